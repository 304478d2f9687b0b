"""Nodes that own nothing any more leave a running cluster: nobody reads from them, all forget them, they forget all.

In this order, since gossip brings back who is forgotten by some only, and a node that has left and does not know it
calls on the others.
"""

from __future__ import annotations

from redisforge.model.facts import Facts, UnitState
from redisforge.model.steps import Forget, Gate, Phase, RemoveUnit, Reset, Step
from redisforge.model.topology import Role, Topology
from redisforge.plan import gates
from redisforge.plan.ready import refuse_reads, takes_reads
from redisforge.plan.resize import id_of
from redisforge.plan.view import known_ids

_OUT_OF_REACH = (UnitState.ABSENT, UnitState.UNKNOWN)
"""There is nothing to delete, or nobody who could: the host is lost."""


def part(topology: Topology, facts: Facts, done: frozenset[str]) -> Phase | None:
    """The next phase in which the nodes called `done`, which own nothing, leave: forgotten, stopped, deleted."""
    ids = {name: id_of(facts, name) for name in sorted(done)}
    living = [facts.nodes[name] for name in ids if facts.nodes[name].reachable]
    reading = [n for n in living if n.role is Role.REPLICA and n.master_link_up and takes_reads(topology, facts, n)]
    if reading:
        return refuse_reads(reading[0].name, "it is about to leave")
    without = tuple(ids)
    forget = tuple(
        Forget(node=node.name, node_id=node_id, why=f"{name} leaves")
        for node in facts.reachable_nodes()
        if node.name not in done
        for name, node_id in ids.items()
        if node_id and node_id in known_ids(node)
    )
    if forget:
        gate = Gate("endpoints_serve", 30.0, without=without)
        return Phase(title=f"forget {', '.join(ids)}", steps=forget, gate=gate)
    managed = {node.name for node in topology.nodes if node.managed}
    steps: list[Step] = [
        Reset(node=node.name, why="so that it does not call on the others") for node in living if len(node.peers) > 1
    ]
    steps += [
        RemoveUnit(unit=name, why="it has left")
        for name in ids
        if name in managed and (unit := facts.units.get(name)) and unit.state not in _OUT_OF_REACH
    ]
    if not steps:
        return None
    ours, others = [name for name in ids if name in managed], [name for name in ids if name not in managed]
    title = " and ".join(
        f"{does} {', '.join(names)}" for does, names in (("stop", ours), ("reset", others)) if names
    )  # what somebody else runs goes on running
    return Phase(title=title, steps=tuple(steps), gate=Gate("settled", 60.0, without=without))


def await_envoys(rest: Topology, seen: Facts, done: frozenset[str]) -> Phase | None:
    """An Envoy that had asked a leaving node for the members, before that one forgot them, adds it again: until it asks
    another one. `rest` and `seen` are without those that have left."""
    if not done or not gates.stale_envoys(rest, seen):
        return None
    gate = Gate("endpoints_serve", 30.0, without=tuple(sorted(done)))
    return Phase(title="wait until no Envoy sends to who has left", steps=(), gate=gate)
