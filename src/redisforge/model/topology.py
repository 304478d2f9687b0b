"""What should be: the declared system, resolved to every node, Envoy, endpoint and user.

A Topology holds no secret and can be printed and stored; passwords travel beside it as `Credentials`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from redisforge.model.hosts import SshAccess
from redisforge.model.secret import Secret

ENVOY_PORT_STEP = 100
"""How far apart the ports of Envoys on one address are: more than the endpoints (32 at most) of one."""

EngineKind = Literal["redis", "valkey"]
Protocol = Literal["RESP2", "RESP3"]


class Role(StrEnum):
    """A node's role, spelled as Redis prints it in CLUSTER NODES ("slave" is read as replica)."""

    MASTER = "master"
    REPLICA = "replica"


class UserRole(StrEnum):
    """What an ACL user is for; its permissions follow from it (render/acl.py)."""

    OPERATOR = "operator"
    APPLICATION = "application"
    READONLY = "readonly"
    MONITOR = "monitor"
    REPLICATION = "replication"
    HANDOFF = "handoff"


class Engine(msgspec.Struct, frozen=True):
    """Which server runs.

    `version` is `"newest"`, a series such as `"8.6"`, or a floor such as `">=8.2"`. The paths are
    explicit binaries of the operator; empty means: find or fetch one (fleet/binaries).
    """

    kind: EngineKind = "redis"
    version: str = "newest"
    server_path: str = ""
    cli_path: str = ""


HostRuntime = Literal["process", "docker"]


class Host(msgspec.Struct, frozen=True):
    """A machine that runs Units. `zone` is the failure domain that it shares with other hosts.

    `ssh` is None for this machine; `folder` is where RedisForge keeps what it has on another one (absolute).
    """

    name: str
    address: str
    zone: str
    ssh: SshAccess | None = None
    folder: str = ""
    runtime: HostRuntime = "process"
    """What runs Units there: a keeper for each as a process of the user, or containers."""
    bind_address: str = ""
    """Where Units listen, if `address`, by which everybody knows them, is translated to it; empty: at `address`."""
    labels: tuple[tuple[str, str], ...] = ()
    """The operator's own notes, by name."""


class RedisNode(msgspec.Struct, frozen=True):
    """A Redis process of the cluster.

    `shard` (from 0) and `intended_role` are where formation puts it; after failovers the real role may
    differ, and that is no drift.
    """

    name: str
    host: str
    address: str
    zone: str
    port: int
    bus_port: int
    shard: int
    intended_role: Role
    managed: bool = True
    """False: somebody else runs it, and RedisForge neither starts nor stops it by itself."""
    service: str = ""
    """What runs it then, if that is known: `systemd:UNIT` or `docker:CONTAINER` on its host."""


class EnvoyInstance(msgspec.Struct, frozen=True):
    """An Envoy process; its admin port listens on loopback only."""

    name: str
    host: str
    address: str
    zone: str
    admin_port: int


class Listener(msgspec.Struct, frozen=True):
    """The address at which one Envoy serves an endpoint."""

    envoy: str
    address: str
    port: int


class EndpointKind(StrEnum):
    """How Envoy treats an endpoint's traffic."""

    COMMANDS = "commands"
    """redis_proxy: each command goes to the node that owns its key."""
    PUBSUB = "pubsub"
    """tcp_proxy to any healthy node: SUBSCRIBE and blocking commands without a slot."""


class Endpoint(msgspec.Struct, frozen=True):
    """A named TLS address for clients. `user` is the ACL user it admits and acts as (commands only)."""

    name: str
    kind: EndpointKind
    protocol: Protocol
    user: str
    prefer_replicas: bool
    listeners: tuple[Listener, ...]


class User(msgspec.Struct, frozen=True):
    """An ACL user of every node."""

    name: str
    role: UserRole


class Persistence(msgspec.Struct, frozen=True):
    """How a node keeps its data on disk. `fsync` applies to `aof`."""

    mode: Literal["aof", "rdb", "none"] = "aof"
    fsync: Literal["everysec", "always", "no"] = "everysec"


class RedisSettings(msgspec.Struct, frozen=True):
    """Settings of every Redis node. `directives` are extra redis.conf lines: (name, value as written)."""

    max_memory_bytes: int
    max_memory_policy: str
    persistence: Persistence
    node_timeout_ms: int
    max_clients: int
    tcp_backlog: int
    io_threads: int
    log_level: str
    directives: tuple[tuple[str, str], ...] = ()


class EnvoySettings(msgspec.Struct, frozen=True):
    """Settings of every Envoy. `version` follows the rules of `Engine.version`."""

    version: str
    path: str
    max_connections: int
    max_pending_requests: int
    refresh_s: float
    operation_timeout_ms: int
    connect_timeout_ms: int


class HandoffSettings(msgspec.Struct, frozen=True):
    """Whether a stopping or dying master hands its slots over (fleet/handoff.py), and how far a replica may lag."""

    enabled: bool = True
    max_lag_bytes: int = 1_000_000


class DockerSettings(msgspec.Struct, frozen=True):
    """How Units run on hosts whose runtime is docker. An empty image is RedisForge's own of the wanted version.

    Containers use their host's `network`, or Docker's bridge with the ports published at their host's address.
    Limits of 0 are none. `memory_bytes` and `cpus` are each node's; a log is kept in `log_files` files of `log_bytes`.
    """

    redis_image: str = ""
    envoy_image: str = ""
    may_pull: bool = False
    memory_bytes: int = 0
    cpus: float = 0.0
    log_bytes: int = 10 * 1024 * 1024
    log_files: int = 3
    network: Literal["host", "bridge"] = "host"


class TlsSettings(msgspec.Struct, frozen=True):
    """Certificates. With the three paths empty RedisForge keeps a private CA of the cluster's own."""

    ca_path: str
    certificate_path: str
    key_path: str
    validity_days: int
    extra_names: tuple[str, ...]
    require_client_certificates: bool


class ExternalAccess(msgspec.Struct, frozen=True):
    """How RedisForge reaches nodes that somebody else runs.

    Without `tls` nothing that is sent is protected. `user` "" is the default user; `password` says whether one is
    asked for.
    """

    tls: bool
    check_hostname: bool = True
    user: str = ""
    password: bool = True


DEFAULT_USER = "default"
"""Who is logged in as with a password alone (Redis's own name for it)."""


class Topology(msgspec.Struct, frozen=True):
    """The whole declared system."""

    name: str
    engine: Engine
    shards: int
    replicas: int
    hosts: tuple[Host, ...]
    nodes: tuple[RedisNode, ...]
    envoys: tuple[EnvoyInstance, ...]
    endpoints: tuple[Endpoint, ...]
    users: tuple[User, ...]
    redis: RedisSettings
    envoy: EnvoySettings
    tls: TlsSettings
    source: str = ""
    """The redisforge.yaml that it was read from; empty for the built-in topology."""
    first_port: int = 0
    """The port of the first node on each address (`ports.redis`)."""
    bus_offset: int = 10000
    """How far a node's bus port is above its port (`ports.bus_offset`)."""
    handoff: HandoffSettings = HandoffSettings()
    docker: DockerSettings = DockerSettings()
    access: ExternalAccess | None = None
    """Set when somebody else runs the whole cluster (`external` in redisforge.yaml): no Unit is ours."""
    node_settings: tuple[tuple[str, str], ...] | None = None
    """Where somebody else runs the cluster: the directives that redisforge.yaml itself names, each with its value as
    CONFIG SET takes it, and none of RedisForge's defaults. In a record: those that an `apply-config` has brought to all
    nodes and their files; None if that is not known."""
    maintenance: tuple[str, ...] = ()
    """Hosts that are to have no masters and get no new nodes for now, by name: `host maintenance`, `host drain`."""

    @property
    def own_nodes(self) -> tuple[RedisNode, ...]:
        """The nodes that RedisForge runs."""
        return tuple(node for node in self.nodes if node.managed)

    @property
    def unit_names(self) -> frozenset[str]:
        """The names of all nodes, whoever runs them, and Envoys."""
        return frozenset(unit.name for unit in (*self.nodes, *self.envoys))

    @property
    def reading_users(self) -> tuple[str, ...]:
        """The users of the endpoints that read from replicas: Envoy checks the health of nodes as these."""
        commands = EndpointKind.COMMANDS
        return tuple(sorted({e.user for e in self.endpoints if e.prefer_replicas and e.kind is commands}))

    def node(self, name: str) -> RedisNode:
        """The node called `name`. Raises StopIteration."""
        return next(node for node in self.nodes if node.name == name)

    def host(self, name: str) -> Host:
        """The host called `name`. Raises StopIteration."""
        return next(host for host in self.hosts if host.name == name)

    def listens_on(self, unit: RedisNode | EnvoyInstance) -> str:
        """The address at which a node or an Envoy listens. Others reach it at `unit.address`."""
        bound = next((host.bind_address for host in self.hosts if host.name == unit.host), "")
        return bound or unit.address

    def asked_at(self, unit: RedisNode | EnvoyInstance) -> str:
        """The address at which it is asked by what runs beside it."""
        return "127.0.0.1" if self.is_bridged(unit) else self.listens_on(unit)

    def is_bridged(self, unit: RedisNode | EnvoyInstance) -> bool:
        """Whether it runs in a container that has a network of its own: inside, it listens on every address."""
        return self.docker.network == "bridge" and self.host(unit.host).runtime == "docker"

    @property
    def resting(self) -> frozenset[str]:
        """The names of the nodes and Envoys that stand on hosts in maintenance."""
        return frozenset(unit.name for unit in (*self.nodes, *self.envoys) if unit.host in self.maintenance)

    def endpoint(self, name: str) -> Endpoint | None:
        """The endpoint called `name`, or None."""
        return next((endpoint for endpoint in self.endpoints if endpoint.name == name), None)

    def user(self, role: UserRole) -> User:
        """The user that serves `role`; every Topology has exactly one of each.

        Raises StopIteration for a role that is younger than the record which the Topology was read from.
        """
        return next(user for user in self.users if user.role is role)


class Credentials:
    """Passwords by ACL user name. Never part of anything that is printed or stored as JSON."""

    __slots__ = ("_passwords",)

    def __init__(self, passwords: dict[str, Secret]) -> None:
        self._passwords = dict(passwords)

    def password(self, user_name: str) -> Secret:
        """The password of `user_name`. Raises KeyError."""
        return self._passwords[user_name]

    def user_names(self) -> tuple[str, ...]:
        """The names of all users that have a password."""
        return tuple(self._passwords)

    def __repr__(self) -> str:
        return f"Credentials({', '.join(self._passwords)})"
