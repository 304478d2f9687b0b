"""One planned failover: a replica in sync takes over from its living master, and no client loses a write.

Elections need their time. Up to Redis 8.6 a replica that was elected less than four node timeouts ago (4 s at the
least), and has not restarted since, holds no proper election when it is asked again; and the other masters vote about
the same master only once in two node timeouts. An order that lapses would pause the master's writes for 5 s. So the
next planned failover of a shard waits for that. Valkey lifted both limits in 8.1. (docs/decisions/0008; measured.)
"""

from __future__ import annotations

import math

from redisforge.model.facts import Facts, NodeFacts, UnitFacts, UnitState
from redisforge.model.steps import Gate, Phase, Promote
from redisforge.model.topology import Topology
from redisforge.plan.view import replicas_of

_LEAST_PAUSE_S = 4.0
_FREE_ENGINE = ("valkey", (8, 1))
HANDOVER_GATE = Gate("settled", 60.0)
_NOBODY = UnitFacts(name="", state=UnitState.ABSENT)


def best_replica(
    topology: Topology, facts: Facts, master_id: str, leaving: frozenset[str] = frozenset()
) -> NodeFacts | None:
    """The replica that may take over best: in sync, able to write to its disk, staying in the cluster, soonest to be
    elected, most advanced; one on a host in maintenance only where there is no other."""
    candidates = [
        node
        for node in replicas_of(facts, master_id)
        if node.name not in leaving and node.master_link_up and node.replication_offset and node.aof_ok
    ]
    resting = topology.resting
    return min(
        candidates,
        key=lambda node: (node.name in resting, _heir_pause_s(topology, facts, node)),
        default=None,
    )


def hand_over(topology: Topology, facts: Facts, master: NodeFacts, heir: NodeFacts, why: str) -> Phase:
    """The phase in which `heir` takes over from `master`, or, if it is too soon for that, the one that waits."""
    left_s = pause_left_s(topology, facts, master, heir)
    if left_s > 0:
        title = f"wait until {heir.name} may be elected again, {math.ceil(left_s)} s"
        return Phase(title=title, steps=(), gate=Gate("electable", left_s + 30.0, node=heir.name))
    step = Promote(node=heir.name, mode="handover", why=why)
    return Phase(title=f"hand over from {master.name} to {heir.name}", steps=(step,), gate=HANDOVER_GATE)


def pause_left_s(topology: Topology, facts: Facts, master: NodeFacts, heir: NodeFacts) -> float:
    """How many seconds from the observation on no election is to be asked for between these two."""
    if _is_free(topology, heir):
        return 0.0
    replaced_at_s = facts.units.get(master.name, _NOBODY).replaced_at_s
    votes_left_s = replaced_at_s + 2 * _timeout_s(topology) - facts.observed_at_s if replaced_at_s else 0.0
    return max(0.0, votes_left_s, _heir_pause_s(topology, facts, heir))


def electable(topology: Topology, facts: Facts, heir_name: str) -> tuple[str, ...]:
    """A gate: the replica may be elected, and its master voted about."""
    heir = facts.nodes[heir_name]
    master = facts.node_by_id(heir.master_id)
    left_s = pause_left_s(topology, facts, master, heir) if master else 0.0
    return (f"{heir_name} may be elected in {math.ceil(left_s)} s",) if left_s > 0 else ()


def _heir_pause_s(topology: Topology, facts: Facts, heir: NodeFacts) -> float:
    unit = facts.units.get(heir.name, _NOBODY)
    if not unit.elected_at_s or unit.started_at_s > unit.elected_at_s or _is_free(topology, heir):
        return 0.0
    return max(0.0, unit.elected_at_s + max(_LEAST_PAUSE_S, 4 * _timeout_s(topology)) - facts.observed_at_s)


def _timeout_s(topology: Topology) -> float:
    return topology.redis.node_timeout_ms / 1000


def _is_free(topology: Topology, node: NodeFacts) -> bool:
    kind, since = _FREE_ENGINE
    numbers = tuple(int(part) for part in node.version.split(".")[:2] if part.isdigit())
    return topology.engine.kind == kind and numbers >= since
