"""Before the first process starts: is there room, does the engine accept its configuration?

Ports: preflight_ports.py. Other hosts: preflight_hosts.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from redisforge.errors import CertificateError, ConfigError, HostError, RefusedError
from redisforge.fleet.binaries import EngineBinary
from redisforge.model.facts import Facts
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import RedisNode, Topology
from redisforge.model.unit import Unit
from redisforge.runbooks.cluster import Cluster, read_topology

BYTES_PER_NODE = 16 * 1024 * 1024
"""Logs, an empty AOF and its first rewrite; far less than data will need, and too little to even begin with."""
_ENGINE_CHECK_TIMEOUT_S = 10.0


def check_cluster_folder(layout: ClusterLayout) -> None:
    """The folder can be written. Raises HostError."""
    folder = Path(layout.folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise HostError(
            "the cluster's folder cannot be written",
            where=str(folder),
            why="no permission",
            next_step="set REDISFORGE_HOME to a folder of yours, or mend its owner",
        )
    folder.chmod(0o700)


def check_folder_to_come(layout: ClusterLayout) -> None:
    """The folder can be written, or made. Nothing is made. Raises HostError."""
    existing = _nearest(Path(layout.folder))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise HostError(
            "the cluster's folder cannot be written",
            where=str(existing),
            why=f"no permission, and {layout.folder} belongs there",
            next_step="set REDISFORGE_HOME to a folder of yours, or mend its owner",
        )


def _nearest(path: Path) -> Path:
    """The path itself, or what is there of the way to it."""
    while not path.exists():
        path = path.parent
    return path


def units_here(topology: Topology) -> frozenset[str]:
    """The Units that run on this machine, which can be looked at without asking a host."""
    remote = {host.name for host in topology.hosts if host.ssh is not None}
    return frozenset(unit.name for unit in (*topology.own_nodes, *topology.envoys) if unit.host not in remote)


def check_space(layout: ClusterLayout, topology: Topology) -> None:
    """There is room for the nodes that were never placed. Raises HostError.

    Those that are there already have what they began with: a disk that filled up since is no reason not to look
    after them, and `status` tells of nodes that cannot write.
    """
    here = units_here(topology)
    new = [name for name in (node.name for node in topology.own_nodes) if name in here]
    new = [name for name in new if not Path(layout.unit(name)).exists()]
    free = shutil.disk_usage(_nearest(Path(layout.folder))).free
    needed = BYTES_PER_NODE * len(new)
    if new and free < needed:
        raise HostError(
            "not enough space to start",
            where=layout.folder,
            why=f"{free // 2**20} MB free, {needed // 2**20} MB needed for {len(new)} nodes",
            next_step="make room, or set REDISFORGE_HOME to a folder on another disk",
        )


def check_certificate_names(topology: Topology) -> None:
    """A certificate of the operator's own covers every address at which something will listen.

    The nodes and Envoys that do not fit it would start and then be refused by everybody who connects.
    Raises CertificateError naming the addresses.
    """
    from redisforge.security.certificate_checks import missing_names

    path = topology.tls.certificate_path
    if not path:
        return
    addresses = sorted(
        {
            address
            for unit in (*topology.own_nodes, *topology.envoys)
            for address in (unit.address, topology.asked_at(unit))
        }
    )
    if missing := missing_names(Path(path), addresses):
        raise CertificateError(
            "the certificate is not valid for the cluster's addresses",
            where=path,
            why=f"its subject alternative names lack {', '.join(missing)}",
            next_step="have it issued with these names, or leave tls out: RedisForge then issues its own",
        )


def check_addresses(cluster: Cluster, facts: Facts) -> None:
    """Some running nodes stay where they are: the others find their way back by them (plan/readdress.py).

    Raises RefusedError naming who moved, if all do: to restart them one by one would take the cluster apart.
    """
    if not Path(cluster.layout.topology).exists():
        return
    recorded = {node.name: node for node in read_topology(cluster.layout).nodes}
    running = [
        node
        for node in cluster.topology.own_nodes
        if node.name in recorded and (unit := facts.units.get(node.name)) and unit.pid
    ]
    moved = [
        f"{node.name}: {recorded[node.name].address}:{recorded[node.name].port} -> {node.address}:{node.port}"
        for node in running
        if _bind(recorded[node.name]) != _bind(node)
    ]
    if moved and len(moved) == len(running):
        raise RefusedError(
            "running nodes cannot all change their address",
            where=cluster.topology.source or cluster.topology.name,
            why="\n".join(moved),
            next_step="stop the cluster with `redisforge down`, then run `redisforge up`: they find each other again",
        )


def _bind(node: RedisNode) -> tuple[str, int, int]:
    return node.address, node.port, node.bus_port


def was_raised(layout: ClusterLayout) -> bool:
    """Whether this cluster may run, or have data, here or on other hosts. `up` records it before anything starts."""
    return Path(layout.units).exists() or Path(layout.topology).exists()


def refuse_fewer_nodes(topology: Topology, layout: ClusterLayout) -> None:
    """A cluster is not made smaller by declaring fewer nodes. Raises RefusedError naming those that are left out."""
    if not Path(layout.topology).exists():
        return
    recorded = read_topology(layout)
    declared, here = {node.name for node in topology.nodes}, units_here(recorded)
    left_out = [
        node.name
        for node in recorded.own_nodes
        if node.name not in declared
        and (node.name not in here or Path(layout.unit(node.name), "data", "nodes.conf").exists())
    ]
    if left_out:
        raise RefusedError(
            "fewer nodes are declared than the cluster has",
            where=topology.source or topology.name,
            why=f"{', '.join(left_out)} are members of it; `up` adds what is missing and removes nothing",
            next_step="`redisforge scale` takes them out, after their slots have gone to the others; or declare "
            f"shards: {recorded.shards} and replicas: {recorded.replicas}",
        )


def check_configuration(topology: Topology, engine: EngineBinary, units: Mapping[str, Unit]) -> None:
    """Let the engine itself read the configuration before anything is placed.

    With no port at all a server reads its configuration and then ends with "Configured to not listen anywhere";
    a mistake in a value ends it before, with the line. Raises ConfigError with the engine's own words.
    """
    unit = next(unit for unit in units.values() if unit.kind == "redis")
    text = next(file.text() for file in unit.files if file.path == "redis.conf")
    with tempfile.TemporaryDirectory(prefix="redisforge-check-") as folder:
        path = Path(folder, "redis.conf")
        path.touch(mode=0o600)
        # Its own folder and ACL file are not there yet, and are not what is in question.
        lines = [line for line in text.splitlines() if not line.startswith(("dir ", "aclfile "))]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        overrides = ("--port", "0", "--tls-port", "0", "--cluster-enabled", "no", "--dir", folder)
        result = subprocess.run(
            [engine.server_path, str(path), *overrides],
            capture_output=True, text=True, errors="replace", timeout=_ENGINE_CHECK_TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    output = result.stdout + result.stderr
    if "FATAL CONFIG FILE ERROR" in output:
        lines = [line for line in output.splitlines() if line.startswith(">>>") or "argument" in line.lower()]
        complaint = output.partition("FATAL CONFIG FILE ERROR")[2].strip().splitlines()[-2:]
        raise ConfigError(
            f"{engine.kind} {engine.version} does not accept its configuration",
            problems=tuple(dict.fromkeys((*complaint, *lines))),
            next_step="mend the directive under redis_conf in redisforge.yaml"
            + (f" ({topology.source})" if topology.source else ""),
        )
