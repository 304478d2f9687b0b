"""Before nodes are counted: those come back whose shard nobody can tell while they are away.

The others keep the master of a silent replica, and the slots of a silent master that nobody has replaced. Of a master
that was replaced they list nothing but its id and address. Its declared shard may not be the one that it served: Redis
itself moves replicas to masters that have none. Counted in the wrong shard, it would leave one node too few in its own,
and another node would be started for it, which is one too many as soon as it is back.
"""

from __future__ import annotations

from redisforge.model.facts import Facts, UnitState
from redisforge.model.slots import subtract
from redisforge.model.steps import Gate, Phase, StartUnit
from redisforge.model.topology import Topology
from redisforge.plan import gates
from redisforge.plan.joining import introduce, tell_slots
from redisforge.plan.ready import SETTLE_DEADLINE_S
from redisforge.plan.view import ALL_SLOTS, known_ids, newest_owners, owned_slots, slot_owners

_AWAY = (UnitState.STOPPED, UnitState.RUNNING, UnitState.BACKOFF, UnitState.ORPHANED)
_RUNS = (UnitState.RUNNING, UnitState.BACKOFF)


def astray(topology: Topology, facts: Facts) -> tuple[str, ...]:
    """Members that are away and can come back, and of which nobody knows whose copies they hold; and masters that have
    just come back and have not heard yet that they were replaced."""
    owners = {owner.id for owner in slot_owners(facts)}
    newest = newest_owners(facts)
    views = [[peer for peer in node.peers if not peer.in_handshake] for node in newest]
    found: list[str] = []
    for node in topology.nodes:
        seen, unit = facts.nodes[node.name], facts.units.get(node.name)
        if seen.reachable:
            if seen.slots and seen.id not in owners:
                found.append(node.name)
            continue
        if unit is None or unit.state not in _AWAY or not unit.has_cluster_config:
            continue
        here = [[peer for peer in peers if (peer.address, peer.port) == (node.address, node.port)] for peers in views]
        placed = any(peer.id in owners or peer.master_id in owners for peers in here for peer in peers)
        if here and all(here) and not placed:  # one that is being forgotten leaves
            found.append(node.name)
    return tuple(found)


def bring_back(topology: Topology, facts: Facts) -> Phase | None:
    """The next phase until every member that could come back has its place again; None when nothing is left to do, or
    slots have no owner, which the verb itself has words for."""
    away = [name for name in astray(topology, facts) if not facts.nodes[name].reachable]
    outside = _outside(topology, facts) - {*away}
    gate = Gate("nodes_answer", 30.0, without=tuple(sorted(outside)))
    if stopped := [name for name in away if facts.units[name].state not in _RUNS]:
        why = "its shard can be told when it is back"
        steps = tuple(StartUnit(unit=name, why=why) for name in stopped)
        return Phase(title="start nodes that have data", steps=steps, gate=gate)
    if away:
        return Phase(title="wait for the nodes that run", steps=(), gate=gate)
    rest, seen = gates.leave_out(topology, facts, outside)
    if phase := introduce(rest, seen) or tell_slots(rest, seen):
        return gates.but_for(outside, phase)
    gate = Gate("settled", SETTLE_DEADLINE_S, without=tuple(sorted(outside)))
    if subtract(ALL_SLOTS, owned_slots(facts)) or not gates.reasons_against(gate, topology, facts):
        return None
    return Phase(title="wait until the cluster is in order", steps=(), gate=gate)


def _outside(topology: Topology, facts: Facts) -> frozenset[str]:
    """Who does not answer, is no member yet, or is being forgotten: a verb that was cut off has left them so."""
    owners = newest_owners(facts)
    known = [known_ids(owner) for owner in owners]
    members = {
        node.name
        for node in facts.reachable_nodes()
        if all(node.id in ids for ids in known) and known_ids(node) >= {owner.id for owner in owners}
    }
    return frozenset(node.name for node in topology.nodes if node.name not in members)
