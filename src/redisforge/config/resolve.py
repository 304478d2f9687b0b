"""From the declared options to the Topology: every node, Envoy, endpoint and port."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from redisforge.config.resolve_external import (
    external_access,
    external_hosts,
    external_nodes,
    external_settings,
    external_users,
)
from redisforge.config.values import is_loopback, size_bytes
from redisforge.model.hosts import SshAccess
from redisforge.model.topology import (
    ENVOY_PORT_STEP,
    DockerSettings,
    Endpoint,
    EndpointKind,
    Engine,
    EnvoyInstance,
    EnvoySettings,
    HandoffSettings,
    Host,
    Listener,
    Persistence,
    RedisNode,
    RedisSettings,
    TlsSettings,
    Topology,
    User,
    UserRole,
)
from redisforge.plan.placement import place

if TYPE_CHECKING:
    from redisforge.config.schema import Declaration, HostOptions

DEFAULT_HOST_FOLDER = "/var/lib/redisforge"
"""Where RedisForge keeps what it has on a host reached over SSH."""
ADMIN_ADDRESS = "127.0.0.1"
"""Envoy's admin interface has no password, so it listens here only."""
_MEMORY_BESIDE_DATA = 512 * 1024 * 1024
"""Buffers of replicas and clients, the keeper, fragmentation."""


def topology_of(declaration: Declaration, folder: Path, source: str) -> Topology:
    """Resolve `declaration`. Relative paths in it start at `folder` (absolute).

    The result may hold port clashes: see config/ports.py.
    """
    hosts = hosts_of(declaration, folder)
    is_external = bool(declaration.external.nodes)
    hosts = external_hosts(declaration, hosts) if is_external else hosts
    envoys = () if is_external else _envoys(declaration, hosts)
    return Topology(
        name=declaration.name,
        engine=Engine(
            kind=declaration.engine.kind,
            version=declaration.engine.version,
            server_path=_path(declaration.engine.server_path, folder),
            cli_path=_path(declaration.engine.cli_path, folder),
        ),
        shards=declaration.shards,
        replicas=declaration.replicas,
        hosts=hosts,
        nodes=external_nodes(declaration, hosts) if is_external else _nodes(declaration, hosts),
        envoys=envoys,
        endpoints=() if is_external else _endpoints(declaration, envoys),
        users=external_users(declaration) if is_external else users_of(declaration),
        redis=_redis_settings(declaration),
        envoy=_envoy_settings(declaration, folder),
        tls=_tls_settings(declaration, folder),
        source=source,
        first_port=declaration.ports.redis,
        bus_offset=declaration.ports.bus_offset,
        handoff=HandoffSettings(declaration.handoff, declaration.handoff_max_lag_bytes),
        docker=_docker_settings(declaration),
        access=external_access(declaration) if is_external else None,
        node_settings=external_settings(declaration) if is_external else None,
    )


def hosts_of(declaration: Declaration, folder: Path = Path()) -> tuple[Host, ...]:
    """The hosts, each with its zone and the way to it. Paths of keys start at `folder`."""
    return tuple(
        Host(
            name=host.name,
            address=host.known_at,
            zone=host.zone or host.name,
            ssh=_ssh_access(host, folder) if is_remote(host) else None,
            folder=(host.folder or DEFAULT_HOST_FOLDER) if is_remote(host) else "",
            runtime=host.runtime,
            bind_address=host.address if host.announce_address else "",
            labels=tuple(sorted(host.labels.items())),
        )
        for host in declaration.hosts
    )


def is_remote(host: HostOptions) -> bool:
    """Whether the host is reached over SSH."""
    return not is_loopback(host.known_at) if host.ssh is None else host.ssh


def _ssh_access(host: HostOptions, folder: Path) -> SshAccess:
    return SshAccess(
        address=host.ssh_address or "",
        port=host.ssh_port or 0,
        user=host.ssh_user or "",
        key_path=_path(host.ssh_key or "", folder),
        jump=host.ssh_jump or "",
    )


def users_of(declaration: Declaration) -> tuple[User, ...]:
    """The ACL users of the nodes that RedisForge runs."""
    return tuple(User(name, role) for role, name in user_names(declaration).items())


def user_names(declaration: Declaration) -> dict[UserRole, str]:
    """The name of each role's user."""
    users = declaration.users
    return {
        UserRole.OPERATOR: users.operator.name,
        UserRole.APPLICATION: users.application.name,
        UserRole.READONLY: users.readonly.name,
        UserRole.MONITOR: users.monitor.name,
        UserRole.REPLICATION: users.replication.name,
        UserRole.HANDOFF: users.handoff.name,
    }


def _nodes(declaration: Declaration, hosts: tuple[Host, ...]) -> tuple[RedisNode, ...]:
    """Number the seats redis-1, redis-2 ...; on each address the ports count up from the first."""
    taken: Counter[str] = Counter()
    nodes: list[RedisNode] = []
    for number, seat in enumerate(place(hosts, declaration.shards, declaration.replicas), start=1):
        port = declaration.ports.redis + taken[seat.host.address]
        taken[seat.host.address] += 1
        nodes.append(
            RedisNode(
                name=f"redis-{number}",
                host=seat.host.name,
                address=seat.host.address,
                zone=seat.host.zone,
                port=port,
                bus_port=port + declaration.ports.bus_offset,
                shard=seat.shard,
                intended_role=seat.role,
            )
        )
    return tuple(nodes)


def _envoys(declaration: Declaration, hosts: tuple[Host, ...]) -> tuple[EnvoyInstance, ...]:
    """Deal the Envoys to the zones in turn, and within a zone to its hosts in turn.

    All admin interfaces share one address of this machine, so each takes a port of its own.
    """
    zones: dict[str, list[Host]] = {}
    for host in hosts:
        zones.setdefault(host.zone, []).append(host)
    zone_hosts = list(zones.values())
    envoys: list[EnvoyInstance] = []
    for index in range(declaration.envoy.instances):
        members = zone_hosts[index % len(zone_hosts)]
        host = members[index // len(zone_hosts) % len(members)]
        admin_port = declaration.envoy.admin_port + ENVOY_PORT_STEP * index
        envoys.append(EnvoyInstance(f"envoy-{index + 1}", host.name, host.address, host.zone, admin_port))
    return tuple(envoys)


def _endpoints(declaration: Declaration, envoys: tuple[EnvoyInstance, ...]) -> tuple[Endpoint, ...]:
    shifts: list[int] = []
    earlier: Counter[str] = Counter()
    for envoy in envoys:
        shifts.append(ENVOY_PORT_STEP * earlier[envoy.address])
        earlier[envoy.address] += 1
    users = user_names(declaration)
    return tuple(
        Endpoint(
            name=name,
            kind=EndpointKind(options.kind),
            protocol=options.protocol,
            user=users[UserRole(options.user_role)],
            prefer_replicas=options.prefer_replicas,
            listeners=tuple(
                Listener(envoy.name, envoy.address, options.port + shift)
                for envoy, shift in zip(envoys, shifts, strict=True)
            ),
        )
        for name, options in declaration.endpoints.items()
    )


def _redis_settings(declaration: Declaration) -> RedisSettings:
    return RedisSettings(
        max_memory_bytes=size_bytes(declaration.memory.max),
        max_memory_policy=declaration.memory.policy,
        persistence=Persistence(declaration.persistence.mode, declaration.persistence.fsync),
        node_timeout_ms=declaration.node_timeout_ms,
        max_clients=declaration.max_clients,
        tcp_backlog=declaration.tcp_backlog,
        io_threads=declaration.io_threads,
        log_level=declaration.log_level,
        directives=tuple((name.lower(), value) for name, lines in declaration.redis_conf.items() for value in lines),
    )


def _envoy_settings(declaration: Declaration, folder: Path) -> EnvoySettings:
    envoy = declaration.envoy
    return EnvoySettings(
        version=envoy.version,
        path=_path(envoy.path, folder),
        max_connections=envoy.max_connections,
        max_pending_requests=envoy.max_pending_requests,
        refresh_s=float(envoy.refresh_s),
        operation_timeout_ms=envoy.operation_timeout_ms,
        connect_timeout_ms=envoy.connect_timeout_ms,
    )


def _docker_settings(declaration: Declaration) -> DockerSettings:
    docker = declaration.docker
    if docker.memory_limit is None:  # an AOF is rewritten by a copy, and every page written meanwhile is there twice
        memory_bytes = 2 * size_bytes(declaration.memory.max) + _MEMORY_BESIDE_DATA
    else:
        memory_bytes = size_bytes(docker.memory_limit)
    return DockerSettings(
        redis_image=docker.redis_image,
        envoy_image=docker.envoy_image,
        may_pull=docker.pull,
        memory_bytes=memory_bytes,
        cpus=float(docker.cpus),
        log_bytes=size_bytes(docker.log_max),
        log_files=docker.log_files,
        network=docker.network,
    )


def _tls_settings(declaration: Declaration, folder: Path) -> TlsSettings:
    tls = declaration.tls
    return TlsSettings(
        ca_path=_path(tls.ca_file, folder),
        certificate_path=_path(tls.cert_file, folder),
        key_path=_path(tls.key_file, folder),
        validity_days=tls.validity_days,
        extra_names=tls.extra_names,
        require_client_certificates=tls.require_client_certificates,
    )


def _path(text: str, folder: Path) -> str:
    """An absolute path: `~` is the user's home, and relative ones start at `folder`. Empty stays empty."""
    if not text:
        return ""
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # no home is known for that user: the name is taken as it stands
        path = Path(text)
    return str(folder / path)
