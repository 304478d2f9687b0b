"""`apply-config`: the settings of redisforge.yaml as they are now, on nodes that go on serving."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import msgspec

from redisforge.fleet.binaries import cache_folder, ensure_envoy
from redisforge.model.facts import Facts
from redisforge.model.topology import Topology
from redisforge.model.unit import Unit
from redisforge.plan.apply_config import ApplyConfig, Declared, apply_phase, left_alone, need_of
from redisforge.plan.predict import Planner
from redisforge.plan.ready import refuse_silent
from redisforge.plan.starting import Wishes
from redisforge.render.directives import settable_directives
from redisforge.render.settings import SECRET_DIRECTIVES, gone, read_conf, taken_back
from redisforge.runbooks.apply_external import external_settings_verb
from redisforge.runbooks.change import Verb
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.placed import PlacedNode, engines_of, placed_nodes
from redisforge.runbooks.preflight import check_configuration
from redisforge.runbooks.run import Progress
from redisforge.runbooks.units import Programs, build_units


def apply_config_verb(cluster: Cluster, declared: Topology, progress: Progress, *, force: bool = False) -> Verb:
    """Bring the nodes of a cluster to the settings of `declared`.

    Raises:
        ConfigError: the engine does not accept the settings.
        BinaryError: the program of a node is gone.
    """
    if cluster.topology.access:
        return external_settings_verb(cluster.topology, declared)
    since_s = time.time()

    def target(topology: Topology, _: Facts) -> Topology:
        return msgspec.structs.replace(topology, redis=declared.redis, source=declared.source)

    wanted = msgspec.structs.replace(cluster, topology=msgspec.structs.replace(cluster.topology, redis=declared.redis))
    placed = placed_nodes(cluster)
    units = _units(wanted, placed, progress)
    settable, nodes = _declared(wanted, placed, units)
    notices: list[str] = []

    def planner(topology: Topology, facts: Facts, _: Wishes) -> Planner:
        refuse_silent(topology, facts)
        asked = ApplyConfig(nodes=nodes, settable=settable, since_s=since_s, force=force)
        pending = {name: nodes[name] for name in nodes if not need_of(facts, asked, name).is_none}
        notices[:] = [*_ways(facts, asked), *left_alone(cluster.topology, declared)]
        asked = msgspec.structs.replace(asked, nodes=pending)
        return lambda seen: apply_phase(topology, seen, asked)

    return Verb(
        name="apply-config",
        what=f"--config {declared.source}" if declared.source else "",
        planner=planner,
        units=units,
        target=target,
        settings=_asked_for(placed, nodes),
        notices=notices,
    )


def _ways(facts: Facts, asked: ApplyConfig) -> list[str]:
    """Which directive goes which way."""
    needs = [need_of(facts, asked, name) for name in asked.nodes]
    restarting = dict.fromkeys(reason for need in needs for reason in need.restart_for)
    told = dict.fromkeys(
        difference.name for need in needs for difference in need.told if difference.name not in restarting
    )
    with_restart = all(need.restart_for for need in needs if need.told)
    return [
        *(f"{name}: {'comes with the restart' if with_restart else 'set on the running nodes'}" for name in told),
        *(f"{reason}: by a restart of one node at a time" for reason in restarting),
    ]


def _asked_for(placed: Mapping[str, PlacedNode], nodes: Mapping[str, Declared]) -> tuple[str, ...]:
    names = {name for node in placed.values() for name in node.settings}
    return tuple(sorted((names | {name for node in nodes.values() for name in node.settings}) - SECRET_DIRECTIVES))


def _units(cluster: Cluster, placed: Mapping[str, PlacedNode], progress: Progress) -> dict[str, Unit]:
    """Every node's Unit with the program that it was started with: another one would be an upgrade."""
    topology, cache = cluster.topology, cache_folder(os.environ)
    envoy = ensure_envoy(topology.envoy.version, topology.envoy.path, cache, progress, os.environ)
    units: dict[str, Unit] = {}
    for path, engine in engines_of(cluster, placed.values()).items():
        built = build_units(topology, cluster.layout, cluster.credentials, Programs(engine, envoy))
        check_configuration(topology, engine, built)
        units.update({name: built[name] for name, node in placed.items() if node.server_path == path})
    return units


def _declared(
    cluster: Cluster, placed: Mapping[str, PlacedNode], units: Mapping[str, Unit]
) -> tuple[frozenset[str], dict[str, Declared]]:
    """What can be set at run time on every node, and what each one is to have."""
    kind = cluster.topology.engine.kind
    engines = engines_of(cluster, placed.values())
    able = {path: settable_directives(kind, engine.version) for path, engine in engines.items()}
    nodes: dict[str, Declared] = {}
    for name, unit in units.items():
        conf = read_conf(next(file.text() for file in unit.files if file.path == "redis.conf"))
        before, defaults = placed[name].settings, able[placed[name].server_path].defaults
        back = taken_back(before, conf, defaults)
        lost = tuple(directive for directive in gone(before, conf) if directive not in back)
        shown = {directive: value for directive, value in conf.items() if directive not in SECRET_DIRECTIVES}
        nodes[name] = Declared({**shown, **back}, unit.config_hash, unit.placed_hash, lost)
    settable = [directives.settable for directives in able.values()]
    return frozenset[str].intersection(*settable) if settable else frozenset(), nodes
