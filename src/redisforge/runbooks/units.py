"""The Units of a cluster: a Topology, the programs found and the passwords become files and command lines."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import msgspec
from msgspec.structs import replace

from redisforge.errors import CertificateError
from redisforge.fleet.binaries import EngineBinary, EnvoyBinary, entry_folder
from redisforge.model.images import ENVOY_PATH, engine_image, envoy_image, server_path
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.topology import Credentials, EnvoyInstance, Host, RedisNode, Topology, UserRole
from redisforge.model.unit import CarriedFolder, Container, DataGuard, Handoff, Unit, UnitFile
from redisforge.model.versions import version_of
from redisforge.render.acl import render_users_acl
from redisforge.render.envoy import EnvoyContext, envoy_argv, render_envoy
from redisforge.render.envoy_clusters import READS_CHECK_S
from redisforge.render.redis_conf import EVERYWHERE, RedisConfContext, render_redis_conf
from redisforge.render.settings import untold_text
from redisforge.runbooks.cluster import OPERATOR_CERTIFICATE, host_layout, programs_folder

_SAVE_ON_STOP_GRACE_S = 600.0
"""Without AOF a node writes its whole data set when it is told to stop; killing it then would lose the writes
since the last snapshot."""
_AOF_GRACE_S = 30.0
_ENVOY_GRACE_S = 5.0
_FAILOVER_LIMIT_S = 5.0
"""Redis gives a planned failover up after this long (cluster_legacy.c, CLUSTER_MF_TIMEOUT)."""
_LINGER_LIMIT_S = 5.0
"""An Envoy that refreshes more rarely learns of the failover from its first redirection."""
_LINGER_MORE_S = 0.5
_DRAIN_MORE_S = 0.5
"""For the check itself, and for reads that are under way when it fails."""
"""On top of Envoy's refresh: time for the answer (cluster_refresh_timeout is 0.5 s)."""


class Programs(msgspec.Struct, frozen=True):
    """The programs that a cluster runs with."""

    engine: EngineBinary
    envoy: EnvoyBinary


def build_units(
    topology: Topology,
    layout: ClusterLayout,
    credentials: Credentials,
    programs: Programs,
    *,
    with_certificates: bool = True,
) -> dict[str, Unit]:
    """Every declared Unit by name: nodes first, then Envoys.

    Without certificates, which may not be made yet, they are for comparing with what runs, and not to be started.

    Raises:
        ConfigError: a value that a configuration file cannot hold.
        BinaryError: an endpoint needs a newer Envoy.
    """
    here = _OnHost(layout, programs)
    away = [host for host in topology.hosts if host.ssh is not None or host.runtime == "docker"]
    hosts = {host.name: _on_host(host, topology.name, here) for host in away}
    contained = {host.name for host in away if host.runtime == "docker"}
    acl = render_users_acl(
        topology.users,
        {user.name: _sha256(credentials.password(user.name).reveal()) for user in topology.users},
        programs.engine.kind,
        programs.engine.version,
    )
    nodes = [_redis_unit(topology, hosts.get(node.host, here), credentials, node, acl) for node in topology.own_nodes]
    envoys = [_envoy_unit(topology, hosts.get(envoy.host, here), credentials, envoy) for envoy in topology.envoys]
    units = [
        _with_certificates(unit, layout) if with_certificates and unit.host in hosts else unit
        for unit in (*nodes, *envoys)
    ]
    placed = [
        _contained(unit, topology, hosts[unit.host]) if unit.host in contained
        else _with_programs(unit, here) if unit.host in hosts
        else unit
        for unit in units
    ]  # fmt: skip
    return {unit.name: unit for unit in placed}


class _OnHost(msgspec.Struct, frozen=True):
    """A cluster's folder on one machine, and the programs as they lie there."""

    layout: ClusterLayout
    programs: Programs


def _on_host(host: Host, cluster_name: str, here: _OnHost) -> _OnHost:
    engine, envoy = here.programs.engine, here.programs.envoy
    if host.runtime == "docker":
        server, proxy = server_path(engine.kind), ENVOY_PATH
    else:
        server, proxy = _path_on(host, engine.server_path), _path_on(host, envoy.path)
    there = Programs(replace(engine, server_path=server), replace(envoy, path=proxy))
    return _OnHost(host_layout(host, cluster_name, here.layout), there)


def _path_on(host: Host, path: str) -> str:
    """Where a program lies on a host: programs of the cache are carried there, others are expected at the same path."""
    entry = entry_folder(Path(path))
    return path if entry is None else f"{programs_folder(host)}/{entry.name}/{Path(path).relative_to(entry)}"


def _contained(unit: Unit, topology: Topology, there: _OnHost) -> Unit:
    """The Unit with the container that it runs in."""
    published = unit.ports if topology.docker.network == "bridge" else ()
    container = container_of(unit, topology, there.programs)
    return replace(unit, container=replace(container, read_folders=(there.layout.tls,), published=published))


def container_of(unit: Unit, topology: Topology, programs: Programs) -> Container:
    """The image and the limits that a Unit has in a container, as `docker` of redisforge.yaml declares them."""
    docker = topology.docker
    if unit.kind == "envoy":
        limits = Container(docker.envoy_image or envoy_image(programs.envoy.version), (), docker.may_pull)
    else:
        image = docker.redis_image or engine_image(programs.engine.kind, programs.engine.version)
        limits = Container(image, (), docker.may_pull, docker.memory_bytes, docker.cpus)
    return replace(limits, log_bytes=docker.log_bytes, log_files=docker.log_files)


def _with_programs(unit: Unit, here: _OnHost) -> Unit:
    """The Unit with the programs that must be brought to its host."""
    programs = here.programs
    path = programs.engine.server_path if unit.kind == "redis" else programs.envoy.path
    entry, target = entry_folder(Path(path)), unit.argv[0]
    if entry is None:
        return unit
    carried = CarriedFolder(str(entry), target.removesuffix(f"/{Path(path).relative_to(entry)}"))
    return replace(unit, carried=(carried,))


def _with_certificates(unit: Unit, layout: ClusterLayout) -> Unit:
    """The Unit with its certificate, which is made in `layout`. Raises CertificateError when it cannot be read."""
    certificates = (
        (layout.ca_certificate, 0o644),
        (layout.certificate(unit.name), 0o644),
        (layout.key(unit.name), 0o600),
    )
    beside = tuple(
        UnitFile(str(PurePosixPath(source).relative_to(layout.folder)), _certificate_text(source, mode), mode)
        for source, mode in certificates
    )
    return replace(unit, beside=beside)


def _certificate_text(path: str, mode: int) -> str | Secret:
    """The text of a certificate, or of a key (a Secret)."""
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CertificateError("a certificate cannot be read", where=path, why=str(error)) from error
    return text if mode == 0o644 else Secret(text)


def certificate_names(topology: Topology) -> dict[str, tuple[str, ...]]:
    """Who needs a certificate, and the names and addresses that it must be valid for."""
    extra = topology.tls.extra_names
    units = (*topology.own_nodes, *topology.envoys)
    addresses = {unit.name: dict.fromkeys((unit.address, topology.asked_at(unit))) for unit in units}
    names = {unit.name: (*addresses[unit.name], unit.host, *extra) for unit in units}
    return {**names, OPERATOR_CERTIFICATE: (OPERATOR_CERTIFICATE,)}


def _redis_unit(
    topology: Topology,
    there: _OnHost,
    credentials: Credentials,
    node: RedisNode,
    acl: str,
) -> Unit:
    layout, programs = there.layout, there.programs
    folder = layout.unit(node.name)
    replication = topology.user(UserRole.REPLICATION).name
    monitor = topology.user(UserRole.MONITOR).name
    context = RedisConfContext(
        node=node,
        node_count=len(topology.nodes),
        settings=topology.redis,
        engine_kind=programs.engine.kind,
        engine_version=programs.engine.version,
        require_client_certificates=topology.tls.require_client_certificates,
        data_path=f"{folder}/data",
        ca_path=layout.ca_certificate,
        certificate_path=layout.certificate(node.name),
        key_path=layout.key(node.name),
        acl_path=f"{folder}/users.acl",
        replication_user=replication,
        replication_password=credentials.password(replication),
        bind_address=EVERYWHERE if topology.is_bridged(node) else topology.host(node.host).bind_address,
    )
    bound = topology.listens_on(node)
    guard = _guard(topology, layout, node)
    handoff = _handoff(topology, programs, guard, folder)
    handoff_password = (
        (UnitFile("handoff.password", credentials.password(handoff.user), 0o600),) if handoff is not None else ()
    )
    conf = render_redis_conf(context)
    return Unit(
        name=node.name,
        kind="redis",
        host=node.host,
        folder=folder,
        argv=(programs.engine.server_path, f"{folder}/redis.conf"),
        files=(
            UnitFile("redis.conf", conf, 0o600, restart_text=untold_text(conf.reveal()), is_settings=True),
            UnitFile("users.acl", acl, 0o600),
            UnitFile("monitor.password", credentials.password(monitor), 0o600),
            *handoff_password,
        ),
        ports=((bound, node.port), (bound, node.bus_port)),
        stop_grace_s=_SAVE_ON_STOP_GRACE_S if topology.redis.persistence.mode == "rdb" else _AOF_GRACE_S,
        guard=guard,
        handoff=handoff,
    )


def _guard(topology: Topology, layout: ClusterLayout, node: RedisNode) -> DataGuard:
    folder, own_address = layout.unit(node.name), topology.asked_at(node)
    return DataGuard(
        address=own_address,
        known_as=node.address if node.address != own_address else "",
        port=node.port,
        data_path=f"{folder}/data",
        persistence=topology.redis.persistence.mode,
        peers=tuple((peer.address, peer.port) for peer in topology.nodes if peer.name != node.name),
        ca_path=layout.ca_certificate,
        certificate_path=layout.certificate(node.name),
        key_path=layout.key(node.name),
        user=topology.user(UserRole.MONITOR).name,
        password_path=f"{folder}/monitor.password",
    )


def _handoff(topology: Topology, programs: Programs, guard: DataGuard, folder: str) -> Handoff | None:
    """None for a Topology that was recorded before there was a user for it: the node then has no such user."""
    user = next((user.name for user in topology.users if user.role is UserRole.HANDOFF), None)
    if user is None:
        return None
    return Handoff(
        enabled=topology.handoff.enabled,
        max_lag_bytes=topology.handoff.max_lag_bytes,
        stop_limit_s=_FAILOVER_LIMIT_S + topology.redis.node_timeout_ms / 1000,
        linger_s=min(topology.envoy.refresh_s, _LINGER_LIMIT_S) + _LINGER_MORE_S if topology.envoys else 0.0,
        election_pause_s=_election_pause_s(topology, programs),
        address=guard.address,
        port=guard.port,
        data_path=guard.data_path,
        ca_path=guard.ca_path,
        certificate_path=guard.certificate_path,
        key_path=guard.key_path,
        user=user,
        password_path=f"{folder}/handoff.password",
        drained_users=topology.reading_users if _keeps_connections_at_acl_load(programs) else (),
        drain_s=READS_CHECK_S + _DRAIN_MORE_S,
    )


def _keeps_connections_at_acl_load(programs: Programs) -> bool:
    """Redis 7.0 closes every client's connection when it loads its ACL file (redis/redis pull request 12171). It was
    tried on Redis 8.0 and 8.6, and on Valkey 8.1 and 9.1."""
    oldest = (8, 1) if programs.engine.kind == "valkey" else (8, 0)
    return version_of(programs.engine.version) >= oldest


def _election_pause_s(topology: Topology, programs: Programs) -> float:
    """How long after an election no other one may be asked for in the same shard.

    Redis asks for votes again only after twice its voting time-out, which is twice the node timeout and 2 s at the
    least (cluster_legacy.c, clusterHandleSlaveFailover: auth_retry_time). A replica that is told to take over earlier
    does nothing until the order lapses, or, worse, counts the votes of the last time: seen with 7.0 and 8.6. Valkey
    begins anew since 8.1 (its pull requests 1274, 1305, 1356).
    """
    if programs.engine.kind == "valkey" and version_of(programs.engine.version) >= (8, 1):
        return 0.0
    return 2 * max(2 * topology.redis.node_timeout_ms / 1000, 2.0)


def _envoy_unit(
    topology: Topology,
    there: _OnHost,
    credentials: Credentials,
    envoy: EnvoyInstance,
) -> Unit:
    layout, programs = there.layout, there.programs
    folder = layout.unit(envoy.name)
    context = EnvoyContext(
        topology=topology,
        envoy=envoy,
        folder=folder,
        ca_path=layout.ca_certificate,
        certificate_path=layout.certificate(envoy.name),
        key_path=layout.key(envoy.name),
        credentials=credentials,
        version=programs.envoy.version,
        bind_address=EVERYWHERE if topology.is_bridged(envoy) else "",
    )
    listeners = [
        listener for endpoint in topology.endpoints for listener in endpoint.listeners if listener.envoy == envoy.name
    ]
    return Unit(
        name=envoy.name,
        kind="envoy",
        host=envoy.host,
        folder=folder,
        argv=envoy_argv(programs.envoy.path, folder),
        files=render_envoy(context),
        ports=(
            *((topology.listens_on(envoy), listener.port) for listener in listeners),
            ("127.0.0.1", envoy.admin_port),
        ),
        stop_grace_s=_ENVOY_GRACE_S,
    )


def _sha256(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
