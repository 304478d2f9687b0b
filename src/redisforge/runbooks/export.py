"""`export`: the declared topology as docker-compose files or systemd units, for those who run it without RedisForge.

    DIR/README.md                   how to start it and form the cluster
    DIR/operator/                   secrets.env, the CA, the operator's certificate: it stays with the operator
    DIR/hosts/HOST/files/           the cluster's folder as it lies on HOST: units/NAME/…, tls/…
    DIR/hosts/HOST/compose.yaml     or systemd/*.service and install.sh

What lies in files/ is what `up` would place there. Passwords and certificates are those of the cluster, if it has been
raised; else they are made, and kept in operator/ for the next export.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

from redisforge.config.resolve import DEFAULT_HOST_FOLDER
from redisforge.disk import PRIVATE_MODE, PUBLIC_MODE, write_file
from redisforge.errors import HostError, RefusedError, UsageError
from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy
from redisforge.model.exported import ExportedCluster, ExportedHost, ExportedProcess
from redisforge.model.images import ENVOY_PATH, server_path
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.topology import Credentials, Role, Topology, UserRole
from redisforge.model.unit import Unit, UnitFile
from redisforge.render.export_compose import compose_text
from redisforge.render.export_readme import ExportKind, readme_text
from redisforge.render.export_systemd import install_script, unit_name, unit_text
from redisforge.runbooks.cluster import cluster_layout
from redisforge.runbooks.external import refuse_without_units
from redisforge.runbooks.init_cluster import LEAST_NODES
from redisforge.runbooks.run import Progress
from redisforge.runbooks.units import Programs, build_units, certificate_names, container_of

_SYSTEM_ENVOY = "/usr/local/bin/envoy"
_OF_THE_KEEPER = "handoff.password"
"""There is no keeper in what is exported."""


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. `root`: the cluster's folder on the hosts; the paths: where the programs are there. Empty ones
    have defaults."""

    kind: ExportKind
    folder: Path
    topology: Topology
    passwords: Mapping[str, Secret] = {}
    root: str = ""
    server_path: str = ""
    envoy_path: str = ""
    force: bool = False


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: files relative to the folder."""

    cluster: str
    folder: str
    files: tuple[str, ...]


def export(wanted: Export, home: Path, environment: Mapping[str, str], progress: Progress) -> ExportReport:
    """Write the folder.

    Raises:
        UsageError: somebody else runs the cluster, or a path cannot be used.
        RefusedError: the folder holds something already.
        RedisForgeError: what `up` would say of programs, passwords and certificates.
    """
    topology = wanted.topology
    refuse_without_units(topology, "export", "what describes its processes is with whoever runs it")
    for path in (wanted.root, wanted.server_path, wanted.envoy_path):
        if path and not posixpath.isabs(path):
            raise UsageError(f"{path!r} is no absolute path", next_step="paths on the hosts begin with a slash")
    _make_folder(wanted)
    operator = ClusterLayout(str(wanted.folder / "operator"))
    credentials = _own_secrets(wanted, home, operator, progress)
    cluster, units = _cluster(wanted, credentials, environment, progress)
    written = [_written(wanted.folder, file) for file in _files(wanted.kind, cluster, units, operator)]
    return ExportReport(cluster=topology.name, folder=str(wanted.folder), files=tuple(written))


def _make_folder(wanted: Export) -> None:
    folder = wanted.folder
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            is_export = (folder / "operator" / "secrets.env").is_file()
            if not (is_export and wanted.force):
                raise RefusedError(
                    "the folder is not empty" if folder.is_dir() else "there is a file of that name",
                    where=str(folder),
                    next_step="write an earlier export anew with --force: its passwords and certificates are kept"
                    if is_export
                    else "name a new folder",
                )
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise HostError("cannot make the folder", where=str(folder), why=error.strerror or str(error)) from error


def _own_secrets(wanted: Export, home: Path, operator: ClusterLayout, progress: Progress) -> Credentials:
    """Passwords and certificates: those of the running cluster, of an earlier export, or new ones."""
    from redisforge.security.certificates import ensure_certificates
    from redisforge.security.secrets import load_credentials, resolve_credentials

    topology, raised = wanted.topology, cluster_layout(home, wanted.topology.name)
    supplied = dict(wanted.passwords)
    if Path(raised.topology).exists():
        stored = load_credentials(topology, raised)
        supplied |= {name: stored.password(name) for name in stored.user_names()}
        for file in sorted(Path(raised.tls).iterdir()):
            mode = PUBLIC_MODE if file.suffix == ".crt" else PRIVATE_MODE
            write_file(Path(operator.tls, file.name), file.read_bytes(), mode)
        progress("passwords and certificates are those of the cluster that is there already")
    credentials, _ = resolve_credentials(topology, supplied, operator, on_notice=progress)
    ensure_certificates(operator, certificate_names(topology), topology.tls, datetime.now(UTC))
    return credentials


def _cluster(
    wanted: Export, credentials: Credentials, environment: Mapping[str, str], progress: Progress
) -> tuple[ExportedCluster, dict[str, Unit]]:
    topology, cache = wanted.topology, cache_folder(environment)
    engine = ensure_engine(topology.engine, cache, progress, environment)
    envoy = ensure_envoy(topology.envoy.version, topology.envoy.path, cache, progress, environment)
    if wanted.kind == "compose":
        server, proxy = server_path(engine.kind), ENVOY_PATH
    else:
        server = wanted.server_path or topology.engine.server_path or f"/usr/bin/{engine.kind}-server"
        proxy = wanted.envoy_path or topology.envoy.path or _SYSTEM_ENVOY
    programs = Programs(replace(engine, server_path=server), replace(envoy, path=proxy))
    root = wanted.root.rstrip("/") or f"{DEFAULT_HOST_FOLDER}/clusters/{topology.name}"
    # All files are made here and lie under one root on every host, whatever `up` would run there; and a composition
    # uses its hosts' network, whatever RedisForge's own containers would do.
    here = replace(
        topology,
        hosts=tuple(replace(host, ssh=None, runtime="process") for host in topology.hosts),
        docker=replace(topology.docker, network="host"),
    )
    units = build_units(here, ClusterLayout(root), credentials, programs)
    hosts = tuple(
        ExportedHost(host.name, host.address, processes)
        for host in topology.hosts
        if (processes := tuple(_processes(here, units, programs, host.name)))
    )
    ordered = sorted(topology.own_nodes, key=lambda node: (node.intended_role is Role.REPLICA, node.shard))
    exported = ExportedCluster(
        name=topology.name, engine=engine.kind, engine_version=engine.version, envoy_version=envoy.version, root=root,
        nodes=tuple(ordered), replicas=topology.replicas, can_init=len(ordered) >= LEAST_NODES,
        operator=topology.user(UserRole.OPERATOR).name,
        endpoints=tuple(
            f"`{endpoint.name}` ({endpoint.protocol}, as {endpoint.user}): "
            + ", ".join(f"{door.address}:{door.port}" for door in endpoint.listeners)
            for endpoint in topology.endpoints
        ),
        client_certificates=topology.tls.require_client_certificates, hosts=hosts,
    )  # fmt: skip
    return exported, units


def _processes(
    topology: Topology, units: Mapping[str, Unit], programs: Programs, host: str
) -> Iterator[ExportedProcess]:
    root = posixpath.dirname(posixpath.dirname(next(iter(units.values())).folder))
    pings = {node.name: (topology.listens_on(node), node.port) for node in topology.own_nodes}
    pings |= {envoy.name: ("127.0.0.1", envoy.admin_port) for envoy in topology.envoys}
    for unit in units.values():
        if unit.host != host:
            continue
        is_node = unit.kind == "redis"
        yield ExportedProcess(
            name=unit.name, kind=programs.engine.kind if is_node else "envoy",
            version=programs.engine.version if is_node else programs.envoy.version, cluster=topology.name,
            argv=unit.argv, root=root, folder=unit.folder, data_path=f"{unit.folder}/data" if is_node else "",
            ping=pings[unit.name], lowest_port=min(port for _, port in unit.ports), stop_grace_s=unit.stop_grace_s,
            open_files=unit.open_files, monitor_user=topology.user(UserRole.MONITOR).name if is_node else "",
            container=container_of(unit, topology, programs),
        )  # fmt: skip


def _files(
    kind: ExportKind, cluster: ExportedCluster, units: Mapping[str, Unit], operator: ClusterLayout
) -> Iterator[UnitFile]:
    """Every file below the folder; paths relative to it."""
    for host in cluster.hosts:
        base = f"hosts/{host.name}"
        yield UnitFile(f"{base}/files/tls/ca.crt", Path(operator.ca_certificate).read_text(encoding="ascii"))
        for process in host.processes:
            name, unit = process.name, units[process.name]
            inside = f"{base}/files/units/{name}"
            for file in unit.files:
                if file.path != _OF_THE_KEEPER:
                    yield replace(file, path=f"{inside}/{file.path}")
            certificate = Path(operator.certificate(name)).read_text(encoding="ascii")
            key = Secret(Path(operator.key(name)).read_text(encoding="ascii"))
            yield UnitFile(f"{base}/files/tls/{name}.crt", certificate)
            yield UnitFile(f"{base}/files/tls/{name}.key", key, PRIVATE_MODE)
            if process.data_path:
                yield UnitFile(f"{inside}/data/.keep", "")
            if kind == "systemd":
                yield UnitFile(f"{base}/systemd/{unit_name(process)}", unit_text(process))
            elif process.data_path:
                yield UnitFile(f"{base}/data/{name}/.keep", "")
        if kind == "systemd":
            yield UnitFile(f"{base}/install.sh", install_script(host, cluster.name, cluster.root), 0o755)
        else:
            yield UnitFile(f"{base}/compose.yaml", compose_text(host, cluster.name))
    yield UnitFile("README.md", readme_text(cluster, kind))


def _written(folder: Path, file: UnitFile) -> str:
    write_file(folder / file.path, file.text().encode(), file.mode)
    return file.path
