"""`upgrade`: a running cluster goes to another version of its engine, node by node.

    fetch the program → refuse what cannot go well → let it read a copy of real data → node by node (plan/upgrade.py)

A node that does not come up with the new version is put back (runbooks/put_back.py), and the verb ends with an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from msgspec.structs import replace

from redisforge.errors import RedisForgeError, RefusedError, UsageError
from redisforge.fleet.binaries import EngineBinary, cache_folder, ensure_engine, ensure_envoy
from redisforge.fleet.binaries.ensure import engine_rule
from redisforge.fleet.binaries.versions import parse_version
from redisforge.fleet.data_check import Trial, check_data
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.topology import Engine, EngineKind, Role, Topology
from redisforge.model.unit import Unit
from redisforge.plan.named import with_address
from redisforge.plan.predict import Planner
from redisforge.plan.ready import refuse_silent
from redisforge.plan.starting import Wishes
from redisforge.plan.upgrade import Upgrade, is_upgraded, refuse_older, upgrade_phase
from redisforge.runbooks.change import Verb
from redisforge.runbooks.cluster import REMOTE_PYTHON, Cluster
from redisforge.runbooks.declare import engine_version
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.placed import placed_nodes
from redisforge.runbooks.preflight import check_configuration
from redisforge.runbooks.put_back import PutBack
from redisforge.runbooks.run import Progress
from redisforge.runbooks.units import Programs, build_units
from redisforge.runbooks.upgrade_external import external_upgrade_verb


def upgrade_verb(cluster: Cluster, asked: Engine, progress: Progress, *, force: bool = False) -> Verb:
    """Bring every node of a cluster to the engine that is asked for. Fetches it, if it is not here.

    Raises:
        RefusedError: another kind of engine.
        UsageError: a node that RedisForge does not run, in a cluster of its own; or one of which it is not known what
            runs it, in a cluster that somebody else runs (runbooks/upgrade_external.py).
        BinaryError: there is no such program.
        ConfigError: it does not accept the cluster's configuration.
    """
    _refuse_other_engine(cluster.topology, asked.kind)
    if cluster.topology.access:
        return external_upgrade_verb(cluster.topology, asked, force=force)
    _refuse_unmanaged(cluster.topology)
    engine = ensure_engine(asked, cache_folder(os.environ), progress, os.environ)
    units = _units(cluster, engine, progress)
    hashes = {name: unit.config_hash for name, unit in units.items()}
    wanted = Upgrade(version=engine.version, config_hashes=hashes, force=force)
    before = placed_nodes(cluster)
    notices: list[str] = []

    def planner(topology: Topology, facts: Facts, _: Wishes) -> Planner:
        refuse_silent(topology, facts)
        refuse_older(topology, facts, engine.version)
        return lambda seen: upgrade_phase(topology, seen, wanted)

    async def prepare(facts: Facts) -> None:
        if all(is_upgraded(facts, wanted, node.name) for node in cluster.topology.nodes):
            return
        notices[:] = [await _try_data(cluster, engine, units, facts, progress)]

    async def recover(observer: Observer, error: RedisForgeError) -> None:
        await PutBack(cluster, observer, wanted, units, before, progress).run(error)

    def result(topology: Topology, _: Facts) -> Topology:
        return replace(topology, engine=_recorded(topology.engine, asked, engine))

    return Verb(
        name="upgrade",
        what=f"--{asked.kind} {asked.version}",
        planner=planner,
        units=units,
        result=result,
        declares=engine_version,
        notices=notices,
        prepare=prepare,
        recover=recover,
    )


def _refuse_other_engine(topology: Topology, kind: EngineKind) -> None:
    if topology.engine.kind != kind:
        raise RefusedError(
            f"{topology.name} runs {topology.engine.kind}, not {kind}",
            why="the two have drifted apart: neither reads all that the other writes",
            next_step=f"`redisforge upgrade --{topology.engine.kind} VERSION`; to change the engine, load the data "
            "into a new cluster",
        )


def _refuse_unmanaged(topology: Topology) -> None:
    others = [with_address(node) for node in topology.nodes if not node.managed]
    if others:
        raise UsageError(
            f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} not run by RedisForge",
            why="its program cannot be replaced from here, and a cluster should not stay with two versions",
            next_step="upgrade it by what runs it, replicas first; or remove it with `redisforge scale remove`",
        )


def _units(cluster: Cluster, engine: EngineBinary, progress: Progress) -> dict[str, Unit]:
    """The nodes' Units with the new program. Envoys stay as they are."""
    topology, cache = cluster.topology, cache_folder(os.environ)
    envoy = ensure_envoy(topology.envoy.version, topology.envoy.path, cache, progress, os.environ)
    units = build_units(topology, cluster.layout, cluster.credentials, Programs(engine, envoy))
    check_configuration(topology, engine, units)
    return {node.name: units[node.name] for node in topology.nodes}


def _recorded(before: Engine, asked: Engine, engine: EngineBinary) -> Engine:
    """The rule that is declared from now on: the old one, where the new version fits it."""
    fits = not before.server_path and engine_rule(before).matches(parse_version(engine.version))
    return before if fits else replace(asked, server_path="", cli_path="")


async def _try_data(
    cluster: Cluster, engine: EngineBinary, units: Mapping[str, Unit], facts: Facts, progress: Progress
) -> str:
    """Let the new version read a copy of a replica's data, where that lies; returns what was found.

    Raises:
        RefusedError: it cannot.
        HostError: there is no room for it, or the host cannot be reached.
    """
    node = _sample(cluster.topology, facts)
    if node is None:
        return "the data was not tried with the new version: there is none"
    progress(f"trying {engine.kind} {engine.version} with a copy of the data of {node.name} …")
    site, unit, data_path = cluster.site_of(node.name), units[node.name], f"{cluster.unit_folder(node.name)}/data"
    for folder in unit.carried:
        await site.transport.carry(folder.source, folder.target)
    trial = Trial(
        engine=f"{engine.kind} {engine.version}",
        server_path=unit.argv[0],
        data_path=data_path,
        memory_bytes=node.used_memory_bytes,
        python=sys.executable if cluster.is_here(node.name) and unit.container is None else REMOTE_PYTHON,
        image=unit.container.image if unit.container else "",
    )
    found = await check_data(site.transport, trial)
    if found.skipped:
        return f"the data was not tried with the new version: {found.skipped}"
    if not found.keys:
        raise RefusedError(
            f"{engine.kind} {engine.version} read nothing of the data of {node.name}",
            where=f"{site.name}: {data_path}",
            why=f"the node holds {node.keys} keys; in a copy of its files the new version found none",
            next_step="nothing was changed; stay with the version that runs, or choose another one",
        )
    return f"{engine.version} read a copy of {node.name}'s data: {found.keys} keys"


def _sample(topology: Topology, facts: Facts) -> NodeFacts | None:
    """The smallest node that holds something, a replica if there is one."""
    filled = [facts.nodes[node.name] for node in topology.own_nodes if facts.nodes[node.name].keys]
    return min(filled, key=lambda node: (node.role is Role.MASTER, node.used_memory_bytes), default=None)
