"""Take a running cluster to another version of its engine, one node at a time.

All replicas first: a newer server reads what an older one writes, so they sync from their old masters. Not the other
way round: an old replica cannot read the snapshot of a newer master (its RDB version is higher) and would stay without
a copy if it had to sync in full. So once every replica is new, a master hands over to one of them and is restarted
before anything else happens; for that moment it lives on the partial stream that a handover needs.

What is done is seen from the version that each node itself reports, so the order can be computed again at any moment.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.steps import Phase, RestartUnit
from redisforge.model.topology import Role, Topology
from redisforge.plan.ready import left_unread, whole_first
from redisforge.plan.restart import Restart, hand_over_first, stop_and_start


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """`version` in full ("8.6.3"), and the hash of what each node's Unit is with it. `accepted`: what nodes may report
    as well, where `version` is a series or a floor. With `force` a master without a replica is restarted too: its slots
    are not served meanwhile."""

    version: str
    config_hashes: dict[str, str]
    accepted: frozenset[str] = frozenset()
    force: bool = False


def upgrade_phase(topology: Topology, facts: Facts, wanted: Upgrade) -> Phase | None:
    """The next phase, or None when every node runs the version.

    Raises:
        RefusedError: slots are not served, or a master has no replica that could take over.
    """
    pending = [facts.nodes[node.name] for node in topology.nodes if not is_upgraded(facts, wanted, node.name)]
    names = frozenset(node.name for node in pending)
    if phase := whole_first(topology, facts, starts=names):
        return phase
    if phase := left_unread(topology, facts, but=names):
        return phase
    if not pending:
        return None
    node = min(pending, key=lambda node: _turn(facts, wanted, node))
    why = f"{wanted.version} instead of {node.version}" if node.version else f"it is down; now with {wanted.version}"
    restart = Restart(names=frozenset({node.name}), since_s=0.0, why=why, force=wanted.force)
    if phase := hand_over_first(topology, facts, node, restart):
        return phase
    phase = stop_and_start(topology, facts, node, why)
    if not node.reachable or not phase.title.startswith("restart"):
        return phase
    kept = RestartUnit(unit=node.name, keep_identity=True, why=why)
    return replace(phase, title=f"upgrade {node.name} to {wanted.version}", steps=(kept,))


def is_upgraded(facts: Facts, wanted: Upgrade, name: str) -> bool:
    """Whether the node runs the version, by its own word, or was started with its program."""
    node, unit = facts.nodes[name], facts.units.get(name)
    started = unit is not None and unit.config_hash == wanted.config_hashes.get(name)
    return node.reachable and (node.version in {wanted.version, *wanted.accepted} or started)


def _turn(facts: Facts, wanted: Upgrade, node: NodeFacts) -> tuple[bool, bool, str]:
    """Who has just handed over first (its master is newer than itself), then replicas, then masters."""
    master = facts.node_by_id(node.master_id) if node.master_id else None
    behind = master is not None and is_upgraded(facts, wanted, master.name)
    return not behind, node.role is Role.MASTER, node.name


def refuse_older(topology: Topology, facts: Facts, version: str, accepted: frozenset[str] = frozenset()) -> None:
    """Refuse a version of an older series than what a node runs, unless that is `accepted` as well.

    Raises:
        RefusedError: the data may hold what the older server cannot read.
    """
    for node in facts.reachable_nodes():
        if node.version and node.version not in accepted and series(node.version) > series(version):
            raise RefusedError(
                f"{node.name} runs {topology.engine.kind} {node.version}; {version} is older",
                where=f"{node.address}:{node.port}",
                why=f"a server reads data of its own and of older series. What {node.version} has written to disk and "
                f"sends to its replicas may be in a format (RDB version) that {version} does not know",
                next_step=f"stay with {'.'.join(map(str, series(node.version)))} or newer (`engine.version` in "
                "redisforge.yaml). If an upgrade was cut off, `redisforge upgrade "
                f"--{topology.engine.kind} {node.version}` goes on. To go back, load the data into a new cluster",
            )


def series(version: str) -> tuple[int, ...]:
    """`"8.6.3"` as (8, 6)."""
    return tuple(int(part) for part in version.split(".")[:2])
