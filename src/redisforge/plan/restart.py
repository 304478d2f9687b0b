"""Restart nodes one after the other while clients go on.

Replicas first; a master hands over to its best replica and is then a replica itself. Whoever is about to stop is
first taken out of the reader endpoints. Between two nodes the cluster is whole again: slots agreed, replicas in
sync, and every Envoy's view equal to the cluster's. What has been restarted is seen from when its process was
started, so the order can be computed again at any moment.
"""

from __future__ import annotations

import msgspec

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.steps import Gate, Phase, RestartUnit
from redisforge.model.topology import Role, Topology
from redisforge.plan.handover import best_replica, hand_over
from redisforge.plan.ready import left_unread, refuse_reads, takes_reads, whole_first

_RESTART_DEADLINE_S = 120.0


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """Which nodes, and what counts as done: a process started at or after `since_s` (seconds since the epoch, by the
    host's clock). With `force` a master without a replica is restarted too: its slots are not served meanwhile."""

    names: frozenset[str]
    since_s: float
    why: str = "asked for"
    force: bool = False


def restart_phase(topology: Topology, facts: Facts, wanted: Restart) -> Phase | None:
    """The next phase, or None when all are restarted.

    Raises:
        RefusedError: slots are not served, or a node cannot be restarted without an interruption.
    """
    if phase := whole_first(topology, facts, starts=wanted.names):
        return phase
    pending = [node for name, node in facts.nodes.items() if name in wanted.names and not _is_done(facts, name, wanted)]
    if phase := left_unread(topology, facts, but=frozenset(node.name for node in pending)):
        return phase
    if not pending:
        return None
    node = min(pending, key=lambda node: (node.role is Role.MASTER, node.name))
    return hand_over_first(topology, facts, node, wanted) or stop_and_start(topology, facts, node, wanted.why)


def stop_and_start(topology: Topology, facts: Facts, node: NodeFacts, why: str) -> Phase:
    """The next phase on the way of one node through its restart; it is not a master that could hand over."""
    if node.role is Role.REPLICA and takes_reads(topology, facts, node):
        return refuse_reads(node.name, "so that no read fails while it restarts")
    restart = RestartUnit(unit=node.name, why=why)
    return Phase(title=f"restart {node.name}", steps=(restart,), gate=Gate("settled", _RESTART_DEADLINE_S))


def hand_over_first(topology: Topology, facts: Facts, node: NodeFacts, wanted: Restart) -> Phase | None:
    """The phase in which a master gives its slots to its best replica; None if it has none to give, or `force`.

    Raises:
        RefusedError: there is no replica that could take over.
    """
    if node.role is not Role.MASTER or not node.slots:
        return None
    heir = best_replica(topology, facts, node.id)
    if heir is None:
        if wanted.force:
            return None
        raise RefusedError(
            f"{node.name} has no replica that could take over",
            where=f"{node.address}:{node.port}",
            why="its slots would not be served while it restarts",
            next_step=f"add a replica (`redisforge scale --replicas N`), or accept the interruption: "
            f"`redisforge restart {node.name} --force`",
        )
    return hand_over(topology, facts, node, heir, f"{node.name} is about to restart")


def _is_done(facts: Facts, name: str, wanted: Restart) -> bool:
    unit = facts.units.get(name)
    return unit is not None and unit.started_at_s >= wanted.since_s
