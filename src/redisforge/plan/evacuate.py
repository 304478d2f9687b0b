"""A host is to carry no masters, or nothing at all: what runs there goes to other hosts, and no client notices.

The order, each phase behind its gate:

    1  masters hand over to replicas in sync on other hosts
    2  new nodes start on other hosts, everybody gets to know them, and they copy the shards that lose a node
    3  masters that had no replica elsewhere hand over to these
    4  Envoys of the host, if they go too, are deleted: others serve in their place since 2
    5  the nodes of the host leave (plan/parting.py): every shard has all its copies without them
    6  masters are spread evenly over those that are left

Nodes and Envoys of the host that do not answer are not waited for: they may be lost. A lost master is waited for until
a replica has taken over. Like every planner it looks at the facts alone, so a run that was cut off goes on from where
it stands.
"""

from __future__ import annotations

from collections import Counter

import msgspec
from msgspec.structs import replace

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, NodeFacts, UnitState
from redisforge.model.slots import describe, subtract
from redisforge.model.steps import Gate, Phase, RemoveUnit, Replicate
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.plan import gates
from redisforge.plan.handover import best_replica, hand_over
from redisforge.plan.joining import forget_dead, introduce, tell_slots
from redisforge.plan.parting import await_envoys, part
from redisforge.plan.ready import left_unread, whole_first
from redisforge.plan.refusals import refuse_data_risks
from redisforge.plan.removal import expected_of, refuse_lost_data
from redisforge.plan.resting import envoys_on, masters_among, nodes_on
from redisforge.plan.roles import even_roles
from redisforge.plan.starting import Wishes, start_units
from redisforge.plan.view import ALL_SLOTS, known_ids, newest_owners, owned_slots, replicas_of, shard_owner


class Evacuation(msgspec.Struct, frozen=True, kw_only=True):
    """What is to leave: `nodes` and, of the same `hosts`, `envoys`."""

    hosts: frozenset[str]
    nodes: frozenset[str]
    envoys: frozenset[str] = frozenset()
    wishes: Wishes = Wishes()


def evacuation_phase(topology: Topology, facts: Facts, wanted: Evacuation) -> Phase | None:
    """The next phase, or None when nothing of what is to leave is left.

    Raises:
        RefusedError: going on would lose data, or the cluster does not serve all slots.
    """
    if phase := await_heirs(topology, facts, wanted):
        return phase
    gone, parting = _gone_envoys(topology, facts, wanted), _parting(topology, facts, wanted)
    out = parting | gone
    rest, seen = gates.leave_out(topology, facts, out)
    if not subtract(ALL_SLOTS, owned_slots(facts)):
        # Hand over before anything new starts, for the host may be ailing.
        outside = parting | _outside(rest, seen, wanted)
        if phase := _hand_over(topology, facts, wanted, outside, gone | _not_started(topology, facts)):
            return phase
    if phase := _start(rest, seen, wanted):
        return gates.but_for(out, phase)
    refuse_data_risks(rest, seen)
    for phase in (
        introduce(rest, seen),
        tell_slots(rest, seen),
        _attach(rest, seen, wanted),
        forget_dead(topology, facts),
        whole_first(topology, facts, parting, gone),
        _hand_over(topology, facts, wanted, parting, gone),
    ):
        if phase:
            return gates.but_for(out, phase) if phase.gate.name != "endpoints_serve" else phase
    if stuck := masters_among(facts, wanted.nodes):
        raise RefusedError(
            f"{stuck[0].name} cannot hand over",
            where=f"slots {describe(stuck[0].slots)}",
            why="no node on another host has become a replica of it",
            next_step="`redisforge status` shows the replicas; run the same command again once one is in sync",
        )
    for phase in (_delete_envoys(topology, facts, wanted), part(topology, facts, wanted.nodes)):
        if phase:
            return gates.but_for(gone | wanted.envoys, phase)
    return _afterwards(rest, seen, out)


def _afterwards(rest: Topology, seen: Facts, out: frozenset[str]) -> Phase | None:
    """What is left to do among those that stay."""
    for phase in (await_envoys(rest, seen, out), left_unread(rest, seen)):
        if phase:
            return gates.but_for(out, phase)
    for promotion in even_roles(rest, seen):
        master, heir = seen.nodes[promotion.master], seen.nodes[promotion.replica]
        return gates.but_for(out, hand_over(rest, seen, master, heir, promotion.why))
    return None


def await_heirs(topology: Topology, facts: Facts, wanted: Evacuation) -> Phase | None:
    """Redis lets a replica take over from a lost master by itself, after its node timeout.

    Raises:
        RefusedError: nobody else has the data of a lost master, or too few masters are left to elect a replica.
    """
    lost = [name for name in sorted(wanted.nodes) if _is_lost_owner(topology, facts, name)]
    for name in lost:
        node = topology.node(name)
        here = {
            p.id for n in facts.reachable_nodes() for p in n.peers if (p.address, p.port) == (node.address, node.port)
        }
        if not any(r.name not in wanted.nodes for node_id in here for r in replicas_of(facts, node_id)):
            refuse_lost_data(topology, facts, node, wanted.nodes)
    if not lost:
        return None
    living = len(newest_owners(facts))
    if living * 2 <= living + len(lost):
        raise RefusedError(
            f"no majority of masters is left: no replica can be elected for {', '.join(lost)}",
            where=f"{living} of {living + len(lost)} masters answer",
            why="a replica needs the votes of a majority of the masters",
            next_step="; ".join(f"`redisforge failover {name} --takeover`" for name in lost)
            + " lets replicas take over without votes (only if the others are really gone); then run this again",
        )
    deadline_s = 10.0 + 4 * topology.redis.node_timeout_ms / 1000
    title = f"wait until replicas have taken over from {', '.join(lost)}"
    return Phase(title=title, steps=(), gate=Gate("promoted", deadline_s))


def _is_lost_owner(topology: Topology, facts: Facts, name: str) -> bool:
    return not facts.nodes[name].reachable and bool(expected_of(facts, topology.node(name)))


def _gone_envoys(topology: Topology, facts: Facts, wanted: Evacuation) -> frozenset[str]:
    """Envoys of the hosts that do not run any more, or do not answer."""
    silent = {name for name, envoy in facts.envoys.items() if envoy.problem} | _not_started(topology, facts)
    return envoys_on(topology, wanted.hosts) & silent


def _not_started(topology: Topology, facts: Facts) -> frozenset[str]:
    """Envoys that do not run, wherever they are."""
    running = (UnitState.RUNNING, UnitState.ORPHANED)
    units = ((envoy.name, facts.units.get(envoy.name)) for envoy in topology.envoys)
    return frozenset(name for name, unit in units if unit is None or unit.state not in running)


def _parting(topology: Topology, facts: Facts, wanted: Evacuation) -> frozenset[str]:
    """Leaving nodes that do not count any more: all, once every shard has its copies elsewhere. Before that those that
    are dead, and those that a run which was cut off has begun to forget."""
    leaving = [facts.nodes[name] for name in wanted.nodes]
    if not masters_among(facts, wanted.nodes):
        rest, seen = gates.leave_out(topology, facts, wanted.nodes)
        whole = not subtract(ALL_SLOTS, owned_slots(seen))
        if whole and not _outside(rest, seen, wanted) and not gates.linked(rest, seen):
            return wanted.nodes
    owners = [owner for owner in newest_owners(facts) if owner.name not in wanted.nodes]
    return frozenset(
        node.name
        for node in leaving
        if not node.reachable or (not node.slots and any(node.id not in known_ids(owner) for owner in owners))
    )


def _outside(topology: Topology, facts: Facts, wanted: Evacuation) -> frozenset[str]:
    """Staying nodes that belong to no shard yet: they do not answer, or are masters of nothing."""
    return frozenset(
        node.name for node in topology.nodes if node.name not in wanted.nodes and _is_outside(facts.nodes[node.name])
    )


def _is_outside(node: NodeFacts) -> bool:
    return not node.reachable or (node.role is Role.MASTER and not node.slots)


def _hand_over(
    topology: Topology, facts: Facts, wanted: Evacuation, outside: frozenset[str], gone: frozenset[str]
) -> Phase | None:
    """Let a master that leaves hand over to a replica that stays, if there is one."""
    avoided = wanted.nodes | outside | nodes_on(topology, topology.maintenance)
    masters = [
        master
        for master in masters_among(facts, wanted.nodes)
        if any(replica.name not in avoided for replica in replicas_of(facts, master.id))
    ]
    if not masters:
        return None
    if phase := whole_first(topology, facts, outside, gone):
        return phase
    for master in masters:
        if heir := best_replica(topology, facts, master.id, avoided):
            phase = hand_over(topology, facts, master, heir, f"the host of {master.name} is to carry nothing")
            return gates.but_for(outside | gone, phase)
    return None


def _start(topology: Topology, facts: Facts, wanted: Evacuation) -> Phase | None:
    """Start what is new. What does not run on the host is left alone: it is about to leave."""
    names = {node.name for node in topology.nodes if node.name not in wanted.nodes}
    names |= {envoy.name for envoy in topology.envoys} - envoys_on(topology, wanted.hosts)
    hashes = {name: value for name, value in wanted.wishes.config_hashes.items() if name in names}
    return start_units(topology, facts, replace(wanted.wishes, config_hashes=hashes)) if hashes else None


def _attach(topology: Topology, facts: Facts, wanted: Evacuation) -> Phase | None:
    """New nodes copy the shard that they were placed for, or the one that lacks most."""
    copies: Counter[str] = Counter()
    for node in facts.reachable_nodes():
        if node.name not in wanted.nodes:
            copies[node.master_id or node.id] += 1
    steps: list[Replicate] = []
    for node in topology.nodes:
        seen = facts.nodes[node.name]
        if not seen.reachable or seen.role is not Role.MASTER or seen.slots or seen.keys or node.name in wanted.nodes:
            continue
        master = _master_for(topology, facts, node, copies)
        if master and master.id != seen.id:
            copies[master.id] += 1
            steps.append(Replicate(node=node.name, master=master.name, why=f"a copy of {master.name} is to leave"))
    if not steps:
        return None
    return Phase(title="attach the replicas", steps=tuple(steps), gate=Gate("linked", 120.0))


def _master_for(topology: Topology, facts: Facts, node: RedisNode, copies: Counter[str]) -> NodeFacts | None:
    owner = shard_owner(topology, facts, node.shard)
    if owner and copies[owner.id] <= topology.replicas:
        return owner
    return min(newest_owners(facts), key=lambda owner: (copies[owner.id], owner.name), default=None)


def _delete_envoys(topology: Topology, facts: Facts, wanted: Evacuation) -> Phase | None:
    out_of_reach = (UnitState.ABSENT, UnitState.UNKNOWN)
    steps = tuple(
        RemoveUnit(unit=name, why="its host leaves, and others serve in its place")
        for name in sorted(wanted.envoys)
        if (unit := facts.units.get(name)) and unit.state not in out_of_reach
    )
    if not steps:
        return None
    gate = Gate("endpoints_serve", 30.0, without=tuple(sorted(wanted.envoys)))
    return Phase(title=f"stop {', '.join(step.unit for step in steps)}", steps=steps, gate=gate)
