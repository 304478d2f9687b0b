"""Every option of redisforge.yaml, declared once: type, default, unit, bounds and description.

The reference page, the JSON Schema and the commented example are generated from these models
(config/reference.py). Rules that concern more than one option are in config/rules.py.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from pydantic import model_validator as validates

from redisforge.config.declaring import Options, option
from redisforge.config.external import ExternalNodeOptions, ExternalOptions
from redisforge.config.kinds import (
    Address,
    CertificateName,
    DirectiveName,
    DirectiveValues,
    FilePath,
    HostFolder,
    HostName,
    ImageName,
    LabelText,
    LimitSize,
    MemorySize,
    Name,
    SshWord,
    UserName,
    Version,
)

EvictionPolicy = Literal[
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-lrm",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-lrm",
    "volatile-random",
    "volatile-ttl",
]


class EngineOptions(Options):
    """The server that the nodes run."""

    kind: Literal["redis", "valkey"] = option("redis", "Redis or Valkey.")
    version: Version = option(
        "newest",
        'Which version: "newest" (that can be had), a series such as "8.6", or a floor such as ">=8.2".',
    )
    server_path: FilePath = option(
        "", "The server's binary, if it is not to be looked for in PATH or fetched. Empty: look for it."
    )
    cli_path: FilePath = option("", "redis-cli or valkey-cli. Empty: the one beside the server.")


class HostOptions(Options):
    """A machine. Two hosts with one address are one machine."""

    name: HostName = Field(description="The host's name, unique in the cluster.")
    address: Address = Field(
        description="The IP address at which what runs there listens, and the other hosts and the clients reach it."
    )
    announce_address: Address | None = option(
        None,
        "The IP address at which the others reach it, if that is not `address` itself but is translated to it (NAT): "
        "what runs there listens on `address` and announces this one. Ports stay the same. Empty: `address`.",
    )
    labels: dict[HostName, LabelText] = option(
        {}, "Notes of your own, such as rack or provider, which `redisforge host list` shows."
    )
    zone: HostName | None = option(
        None,
        "The failure domain that the host shares with others (rack, room, data centre). A master and its "
        "replicas go to different zones while that is possible. Empty: the host's name.",
    )
    ssh: bool | None = option(
        None,
        "Whether the host is reached over SSH; if not, it is this machine. Empty: true, unless its address is one of "
        "127.0.0.0/8 or ::1.",
    )
    ssh_address: SshWord | None = option(
        None, "Where its sshd is, as name or address. Empty: at `announce_address`, else at `address`."
    )
    ssh_port: int | None = option(
        None, "The port of its sshd. Empty: as your ssh configuration says, else 22.", ge=1, le=65535
    )
    ssh_user: SshWord | None = option(None, "Who logs in. Empty: as your ssh configuration says, else your own name.")
    ssh_key: FilePath | None = option(
        None, "The private key. Empty: those of your ssh agent and your ssh configuration, then the usual ones."
    )
    ssh_jump: SshWord | None = option(None, "A host to go through: [user@]address[:port]. Empty: none.")
    runtime: Literal["process", "docker"] = option(
        "process", "What runs nodes and Envoys there: processes of the user who logs in, or containers."
    )
    folder: HostFolder | None = option(
        None,
        "Where RedisForge keeps everything that it has on a host reached over SSH; ssh_user must be able to write "
        "there. Empty: /var/lib/redisforge.",
    )

    @property
    def known_at(self) -> str:
        """The address at which the others reach it."""
        return self.announce_address or self.address


class PlacementOptions(Options):
    """Where nodes may stand."""

    allow_shared_hosts: bool | None = option(
        None,
        "Whether a replica may stand on the host of its master when there are too few hosts. "
        "Empty: true only if `hosts` is not given.",
    )


class PortOptions(Options):
    """Ports of the nodes. Those of the endpoints and of Envoy's admin interface are declared with them."""

    redis: int = option(
        7001, "Port of the first node; each further node on the same address takes the next.", ge=1, le=65535
    )
    bus_offset: int = option(10000, "What is added to a node's port to get its cluster bus port.", ge=1, le=65534)


class MemoryOptions(Options):
    """Memory of a node."""

    max: MemorySize = option("256mb", "Memory for the data of one node, at least 16mb.", unit="b, k, kb, m, mb, g, gb")
    policy: EvictionPolicy = option(
        "noeviction", "What Redis does when the memory is full. The lrm policies need Redis 8.6."
    )


class PersistenceOptions(Options):
    """How a node keeps its data on disk."""

    mode: Literal["aof", "rdb", "none"] = option(
        "aof", "aof: every write is logged; rdb: snapshots only; none: a restarted shard starts empty."
    )
    fsync: Literal["everysec", "always", "no"] = option(
        "everysec",
        "When the log is forced to disk (aof). everysec: a power cut costs at most about a second.",
    )


class EnvoyOptions(Options):
    """The proxies in front of the cluster."""

    version: Version = option(">=1.32", 'Which version: "newest", a series such as "1.40", or a floor.')
    path: FilePath = option("", "Envoy's binary. Empty: look for it in PATH, else fetch it.")
    instances: int = option(
        1,
        "How many Envoys. They go to the zones in turn; a further one on an address takes ports 100 higher.",
        ge=1,
        le=16,
    )
    admin_port: int = option(
        9901,
        "Port of the first Envoy's admin interface, on 127.0.0.1 only; the next takes 100 more.",
        ge=1,
        le=65535,
    )
    max_connections: int = option(
        10000, "Connections that one Envoy opens to the nodes, and accepts from clients.", ge=1, le=1_000_000
    )
    max_pending_requests: int = option(
        10000, "Commands that may wait for a connection to the nodes.", ge=1, le=1_000_000
    )
    refresh_s: float = option(
        1.0, "How often Envoy asks for the cluster's slots, besides after errors.", unit="s", ge=0.1, le=3600
    )
    operation_timeout_ms: int = option(
        5000, "How long Envoy waits for the answer to a command.", unit="ms", ge=1, le=3_600_000
    )
    connect_timeout_ms: int = option(
        1500,
        "How long Envoy waits for a connection to a node. Below 1.2 s one lost packet can fail commands: the first "
        "packet of a connection is sent again after 1 s. A longer time prolongs the errors of a node that hangs.",
        unit="ms",
        ge=1,
        le=60_000,
    )


class EndpointOptions(Options):
    """An address for clients: a TLS port at every Envoy."""

    port: int = Field(description="Port at the first Envoy.", ge=1, le=65535)
    kind: Literal["commands", "pubsub"] = option(
        "commands",
        "commands: each command goes to its key's node; pubsub: a connection to any node, for SUBSCRIBE.",
    )
    protocol: Literal["RESP2", "RESP3"] = option("RESP2", "The protocol that its clients speak.")
    user_role: Literal["application", "readonly", "monitor", "operator"] = option(
        "application", "The user that clients log in as, by its role (see `users`)."
    )
    prefer_replicas: bool = option(
        False, "Read from replicas while there are any. What is read may be a moment old. For kind commands."
    )


class DockerOptions(Options):
    """Containers, on hosts whose `runtime` is docker. They run as the user who logs in."""

    network: Literal["host", "bridge"] = option(
        "host",
        "The network of the containers: their host's, or Docker's bridge, with the ports published at the host's "
        "address. The bridge costs some time for every packet, and a host must then not be a loopback address.",
    )
    redis_image: ImageName = option(
        "",
        "The image of the nodes; `engine.version` must say what is inside. Empty: what `redisforge images build` "
        "makes. Images of others have no keeper: there is no hand-off when a process dies.",
    )
    envoy_image: ImageName = option("", "The image of the Envoys. Empty: what `redisforge images build` makes.")
    pull: bool = option(False, "Whether a host may pull an image that it does not have from its registry.")
    memory_limit: LimitSize | None = option(
        None,
        "Memory that a node's container may use; beyond it the kernel kills the node. "
        "Empty: twice `memory.max` and 512mb. 0: no limit.",
        unit="b, k, kb, m, mb, g, gb",
    )
    cpus: float = option(0.0, "Processors that a node's container may use. 0: no limit.", ge=0, le=1024)
    log_max: MemorySize = option(
        "16mb", "Size of a container's log after which a new file is begun.", unit="b, k, kb, m, mb, g, gb"
    )
    log_files: int = option(3, "How many log files of a container are kept.", ge=1, le=100)


class UserOptions(Options):
    """An ACL user. Its password comes from the environment or .env, or is generated; it never stands here."""

    name: UserName = Field(description="The user's name in Redis.")


def _user(name: str, what_for: str) -> Any:
    return option(UserOptions(name=name), what_for)


class UsersOptions(Options):
    """The ACL users, one for each role."""

    operator: UserOptions = _user("operator_user", "Everything. RedisForge itself works as this user.")
    application: UserOptions = _user("app_user", "Data commands, no administrative or dangerous ones.")
    readonly: UserOptions = _user("readonly_user", "Reads only.")
    monitor: UserOptions = _user("monitor_user", "Statistics only, no keys.")
    replication: UserOptions = _user("replication_user", "What a replica needs from its master.")
    handoff: UserOptions = _user("handoff_user", "What a node's keeper needs for the hand-off.")


class TlsOptions(Options):
    """Certificates. Give all three files to use your own, or none for RedisForge's own private CA."""

    ca_file: FilePath = option("", "Certificate of the CA, PEM. Empty: RedisForge's own CA.")
    cert_file: FilePath = option("", "Certificate for all nodes and Envoys, PEM.")
    key_file: FilePath = option("", "Its private key, PEM.")
    validity_days: int = option(825, "Validity of the certificates that RedisForge issues.", unit="days", ge=1, le=3650)
    extra_names: tuple[CertificateName, ...] = option(
        (),
        "DNS names and addresses to add to every certificate, for clients that use them.",
        max_length=100,
        strict=False,
    )
    require_client_certificates: bool = option(False, "Whether clients, too, must show a certificate of the CA.")


LOCAL_HOST = HostOptions(name="local", address="127.0.0.1", zone="local")
"""The machine itself: where everything runs if `hosts` is not given."""

DEFAULT_ENDPOINTS = {
    "primary": EndpointOptions(port=6380),
    "primary-resp3": EndpointOptions(port=6381, protocol="RESP3"),
    "reader": EndpointOptions(port=6382, user_role="readonly", prefer_replicas=True),
    "pubsub": EndpointOptions(port=6383, kind="pubsub"),
}


class Declaration(Options):
    """The whole of redisforge.yaml."""

    name: Name = option("main", "The cluster's name; several clusters on one machine need different ones.")
    engine: EngineOptions = option(EngineOptions(), "")
    shards: int = option(3, "Masters, each with a share of the 16,384 slots.", ge=3, le=1000)
    replicas: int = option(1, "Replicas of each master.", ge=0, le=5)
    hosts: tuple[HostOptions, ...] = option(
        (LOCAL_HOST,), "Where nodes and Envoys run.", min_length=1, max_length=1000, strict=False
    )
    placement: PlacementOptions = option(PlacementOptions(), "")
    ports: PortOptions = option(PortOptions(), "")
    memory: MemoryOptions = option(MemoryOptions(), "")
    persistence: PersistenceOptions = option(PersistenceOptions(), "")
    node_timeout_ms: int = option(
        5000,
        "Silence after which a node counts as failed (cluster-node-timeout).",
        unit="ms",
        ge=500,
        le=60_000,
    )
    handoff: bool = option(
        True,
        "Whether a master that is stopped, or whose process dies, hands its slots to its best replica at once. "
        "false: Redis notices by itself, after node_timeout_ms and more.",
    )
    handoff_max_lag_bytes: int = option(
        1_000_000,
        "How far a replica may be behind what its master was last seen to have written, to take over from one that "
        "died. Beyond that the master is started again with its data, which loses less. "
        "A replica in sync is not behind at all.",
        unit="bytes",
        ge=0,
        le=1_000_000_000_000,
    )
    max_clients: int = option(10000, "Connections to one node (maxclients).", ge=100, le=1_000_000)
    tcp_backlog: int = option(511, "Connections that may wait to be accepted (tcp-backlog).", ge=1, le=65535)
    io_threads: int = option(1, "Threads of a node for the network (io-threads).", ge=1, le=128)
    log_level: Literal["debug", "verbose", "notice", "warning"] = option("notice", "Log level of the nodes.")
    redis_conf: dict[DirectiveName, DirectiveValues] = option(
        {}, "Further redis.conf directives. A list writes the directive once for each item.", max_length=200
    )
    envoy: EnvoyOptions = option(EnvoyOptions(), "")
    endpoints: dict[Name, EndpointOptions] = option(
        DEFAULT_ENDPOINTS,
        "Addresses for clients. Of the four that are there by default a few fields may be changed "
        "(`primary: {port: 16380}`), all but `primary` may be switched off (`reader: null`), and "
        "others may be added.",
        max_length=32,
    )
    docker: DockerOptions = option(DockerOptions(), "")
    users: UsersOptions = option(UsersOptions(), "")
    tls: TlsOptions = option(TlsOptions(), "")
    external: ExternalOptions = option(ExternalOptions(), "")

    @validates(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Complete what may be given in part: sections without content, default endpoints and users."""
        if not isinstance(data, dict):
            return data
        given: dict[str, Any] = {k: v for k, v in data.items() if not (v is None and k in SECTIONS)}  # pyright: ignore[reportUnknownVariableType]
        if isinstance(given.get("endpoints"), dict):
            given["endpoints"] = _with_default_endpoints(given["endpoints"])
        return given


SECTIONS = frozenset(
    name
    for name, field in Declaration.model_fields.items()
    if name in {"redis_conf", "endpoints"}
    or (isinstance(field.annotation, type) and issubclass(field.annotation, Options))
)
"""Options that hold others; written without content (`memory:`) they keep their defaults."""


def _with_default_endpoints(given: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name, default in DEFAULT_ENDPOINTS.items():
        own = given.get(name, {})
        if isinstance(own, dict):
            merged[name] = default.model_dump() | own
        elif own is not None or name == "primary":
            merged[name] = own  # a wrong type, reported by the validation
    own_names = {name: value for name, value in given.items() if name not in DEFAULT_ENDPOINTS}
    return merged | own_names


def model_at(path: tuple[str | int, ...]) -> type[Options] | None:
    """The model of the section at `path`, or None if there is no section there."""
    if path and path[0] in {"hosts", "endpoints"}:
        item = HostOptions if path[0] == "hosts" else EndpointOptions
        return item if len(path) == 2 else None
    if path[:2] == ("external", "nodes"):
        return ExternalNodeOptions if len(path) == 3 else None
    model: type[Options] | None = Declaration
    for part in path:
        field = model.model_fields.get(str(part)) if model else None
        annotation: Any = field.annotation if field else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, Options) else None
    return model
