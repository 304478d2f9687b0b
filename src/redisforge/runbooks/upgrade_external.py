"""`upgrade` of a cluster that somebody else runs: its owner has installed the program, here the nodes are restarted."""

from __future__ import annotations

from msgspec.structs import replace

from redisforge.errors import UsageError
from redisforge.fleet.binaries.ensure import engine_rule
from redisforge.fleet.binaries.versions import VersionRule, parse_version, show
from redisforge.model.facts import Facts
from redisforge.model.topology import Engine, Topology
from redisforge.plan.predict import Planner
from redisforge.plan.ready import refuse_silent
from redisforge.plan.starting import Wishes
from redisforge.plan.upgrade import Upgrade, is_upgraded, refuse_older
from redisforge.plan.upgrade_external import upgrade_external_phase
from redisforge.runbooks.change import Verb
from redisforge.runbooks.declare import engine_version
from redisforge.runbooks.external import service_units

_NOT_TRIED = "the data was not tried with the new version: its program is not RedisForge's to start"


def external_upgrade_verb(topology: Topology, asked: Engine, *, force: bool) -> Verb:
    """Restart every node that does not run what is asked for, by what runs it, until all do.

    Raises:
        UsageError: it is not known what runs a node.
        BinaryError: `asked.version` is not a version.
    """
    _refuse_unnamed(topology)
    rule = engine_rule(asked)
    units = service_units(topology)
    hashes = {name: unit.config_hash for name, unit in units.items()}
    notices: list[str] = []

    def wanted(facts: Facts) -> Upgrade:
        return Upgrade(version=str(rule), config_hashes=hashes, accepted=_accepted(rule, facts), force=force)

    def planner(topology: Topology, facts: Facts, _: Wishes) -> Planner:
        refuse_silent(topology, facts)
        asked = wanted(facts)
        refuse_older(topology, facts, show(rule.numbers), asked.accepted)
        behind = any(not is_upgraded(facts, asked, node.name) for node in topology.nodes)
        notices[:] = [_NOT_TRIED] if behind else []
        processes = {name: unit.pid for name, unit in facts.units.items()}
        return lambda seen: upgrade_external_phase(topology, seen, wanted(seen), processes)

    def result(topology: Topology, facts: Facts) -> Topology:
        before = topology.engine
        seen = {node.version for node in facts.reachable_nodes()}
        fits = not before.server_path and seen <= _accepted(engine_rule(before), facts)
        return replace(topology, engine=before if fits else replace(asked, server_path="", cli_path=""))

    return Verb(
        name="upgrade",
        what=f"--{asked.kind} {asked.version}",
        planner=planner,
        units=units,
        result=result,
        declares=engine_version,
        notices=notices,
        keeps_nodes=True,
    )


def _refuse_unnamed(topology: Topology) -> None:
    if unnamed := [node.name for node in topology.nodes if not node.service]:
        raise UsageError(
            f"it is not known what runs {', '.join(unnamed)}",
            where=topology.source or topology.name,
            why="upgrade restarts nodes by what runs them, after their owner has brought the new program",
            next_step="name it in external.nodes (service: systemd:UNIT or docker:CONTAINER) and run `redisforge up`; "
            "or upgrade the nodes by what runs them, replicas first, masters after `redisforge failover`",
        )


def _accepted(rule: VersionRule, facts: Facts) -> frozenset[str]:
    """Those of the versions that nodes report which the rule takes."""
    return frozenset(node.version for node in facts.reachable_nodes() if _takes(rule, node.version))


def _takes(rule: VersionRule, version: str) -> bool:
    try:
        return rule.matches(parse_version(version))
    except ValueError:  # what no release calls itself
        return False
