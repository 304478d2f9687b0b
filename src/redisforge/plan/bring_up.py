"""What `up` does next: one phase at a time, from what is to what should be.

`next_phase` is level-triggered: it looks only at the facts, so it gives the right answer after a crash at any
point, and nothing when all is well. The order:

    1  members first   Units that have been part of a cluster are started before blank ones, so that a node that
                       lost its data can learn from them that it must wait (fleet/keeper.py, "The guard")
       then nodes that run where their host is no more (plan/readdress.py)
    2  epochs, slots   only in a cluster that holds nothing yet: epochs while nodes are alone (Redis refuses later)
    3  MEET            until everybody knows everybody, and again until everybody knows everybody's slots
    4  promotion       of replicas whose master will not come back with its data
    5  REPLICATE       members without slots become replicas
    6  FORGET          of identities that no longer exist
    7  announcement    of replicas that some nodes do not name to proxies yet; then a new cluster's Envoys start
    8  agreement       nothing to do but to wait for it: a master says `fail` for its first two seconds
    9  reads           are given back to replicas that refuse them: they have restarted, or a verb was cut off
       drift           Units that run with an older configuration restart, one at a time, masters after a hand-over,
                       replicas once they get no more reads
    10 files           that have changed and for which nothing has to restart are placed (plan/refresh.py)

A phase ends with a gate; the runner observes again before it asks for the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from msgspec.structs import replace

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, NodeFacts, UnitState
from redisforge.model.slots import SlotRange, count, subtract
from redisforge.model.steps import (
    AssignSlots,
    Gate,
    Phase,
    Promote,
    Replicate,
    RestartUnit,
    SetConfigEpoch,
    Step,
)
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.plan import gates
from redisforge.plan.handover import best_replica, hand_over
from redisforge.plan.joining import announce, forget_dead, introduce, tell_slots
from redisforge.plan.placement import split_slots
from redisforge.plan.readdress import readdress
from redisforge.plan.ready import left_unread, refuse_reads, takes_reads
from redisforge.plan.refresh import refresh_phase
from redisforge.plan.refusals import (
    lost_identities,
    places_of,
    refuse_if_unsafe,
    refuse_other_size,
)
from redisforge.plan.resting import left_out
from redisforge.plan.starting import Wishes, start_units
from redisforge.plan.view import (
    claimed_slots,
    copies_of,
    declared_at,
    key_total,
    known_ids,
    neediest_master,
    newest_owners,
    shard_owner,
    unclaimed_slots,
)


def next_phase(topology: Topology, facts: Facts, wishes: Wishes) -> Phase | None:
    """The next phase, or None when the declared state is reached, but for what is left out of it (plan/resting.py).

    Raises:
        RefusedError: going on could destroy data or capture a node of another cluster.
    """
    if not (out := left_out(topology, facts)):
        return _next_phase(topology, facts, wishes)
    topology, facts = gates.leave_out(topology, facts, out)
    hashes = {name: value for name, value in wishes.config_hashes.items() if name not in out}
    phase = _next_phase(topology, facts, replace(wishes, config_hashes=hashes))
    return gates.but_for(out, phase) if phase else None


def _next_phase(topology: Topology, facts: Facts, wishes: Wishes) -> Phase | None:
    refuse_other_size(topology, facts)  # before a Unit of a shard too many is started
    if wishes.config_hashes and (phase := start_units(topology, facts, wishes)):
        return phase
    if phase := readdress(topology, facts, wishes):
        return phase
    refuse_if_unsafe(topology, facts, wishes.accepted_losses)
    if phase := _give_lost_slots(topology, facts, wishes):
        return phase
    makers = (_assign_slots, introduce, tell_slots, _replace_lost_masters, _replicate, forget_dead, announce, _settle)
    for make in makers:
        if phase := make(topology, facts):
            return phase
    drifted = _drifted(facts, wishes)
    if gates.endpoints_serve(topology, facts):
        # An Envoy that runs with an older configuration need not have the endpoints that are declared now.
        if outdated := [name for name in drifted if name not in facts.nodes]:
            return _apply_drift(topology, facts, outdated)
        gate = Gate("endpoints_serve", 15.0)
        return Phase(title="wait until every endpoint serves every shard", steps=(), gate=gate)
    if phase := _read_again(topology, facts, drifted):
        return phase
    if drifted:
        return _apply_drift(topology, facts, drifted)
    return refresh_phase(facts, wishes.config_hashes, wishes.placed_hashes)


def _assign_slots(topology: Topology, facts: Facts) -> Phase | None:
    missing = unclaimed_slots(facts)
    if not missing or key_total(facts):
        return None
    steps: list[Step] = []
    for shard, intended in enumerate(split_slots(topology.shards)):
        wanted = _intersect(intended, missing)
        if not wanted:
            continue
        master = shard_owner(topology, facts, shard) or _intended_master(topology, facts, shard)
        if len(known_ids(master)) <= 1 and master.current_epoch == 0:
            steps.append(SetConfigEpoch(node=master.name, epoch=shard + 1, why="masters start with different epochs"))
        share = f"{count(wanted)} slots: the even share of {topology.shards} shards"
        steps.append(AssignSlots(node=master.name, slots=wanted, why=share))
    return Phase(title="give out the slots", steps=tuple(steps), gate=Gate("slots_assigned", 10.0))


def _intersect(wanted: SlotRange, missing: tuple[SlotRange, ...]) -> tuple[SlotRange, ...]:
    return subtract((wanted,), subtract((wanted,), missing))


def _intended_master(topology: Topology, facts: Facts, shard: int) -> NodeFacts:
    """The declared master of a shard that has no owner; another member of the shard if that one is gone."""
    members = sorted(
        (node for node in topology.nodes if node.shard == shard),
        key=lambda node: node.intended_role is Role.REPLICA,
    )
    for member in members:
        seen = facts.nodes[member.name]
        if seen.reachable and seen.role is Role.MASTER:
            return seen
    raise RefusedError(
        f"shard {shard + 1} has no node that could own its slots",
        where=", ".join(f"{m.name} ({facts.nodes[m.name].problem or m.intended_role})" for m in members),
        why="none of its nodes answers as a master",
        next_step="start the nodes and run the command again",
    )


def _give_lost_slots(topology: Topology, facts: Facts, wishes: Wishes) -> Phase | None:
    """Slots whose data is gone, with the operator's consent, go to the blank node at the same address.

    It takes them while it is alone, with an epoch above all others: once introduced, its claim prevails over that
    of the dead identity, which then has no slots and is forgotten.
    """
    steps: list[Step] = []
    epoch = max((node.current_epoch for node in facts.reachable_nodes()), default=0)
    for lost in lost_identities(topology, facts):
        places = places_of(topology, lost)
        accepted = (node for node in places if node.name in wishes.accepted_losses)
        if node := next((node for node in accepted if facts.nodes[node.name].is_blank), None):
            epoch += 1
            steps.append(SetConfigEpoch(node=node.name, epoch=epoch, why="its claim must be the newest"))
            why = f"the loss of {count(lost.slots)} slots was accepted"
            steps.append(AssignSlots(node=node.name, slots=lost.slots, why=why))
    if not steps:
        return None
    return Phase(title="give out the lost slots as empty", steps=tuple(steps), gate=Gate("nodes_answer", 10.0))


def _replace_lost_masters(topology: Topology, facts: Facts) -> Phase | None:
    """Promote the best replica of every slot owner that is gone for good or held without its data."""
    steps: list[Step] = []
    owners = {p.id: p for n in facts.reachable_nodes() for p in n.peers if p.slots}
    living = [owner for owner in owners.values() if facts.node_by_id(owner.id)]
    mode = "force" if len(living) * 2 > len(owners) else "takeover"
    for owner in owners.values():
        if facts.node_by_id(owner.id):
            continue
        node = declared_at(topology, owner.address, owner.port)
        unit = facts.units.get(node.name) if node else None
        gone = node is None or facts.nodes[node.name].reachable or (unit and unit.state is UnitState.HELD)
        candidates = copies_of(topology, facts, owner.id)
        if gone and candidates:
            why = f"its master {node.name if node else owner.id[:8]} will not come back with its data"
            steps.append(Promote(node=candidates[0].name, mode=mode, why=why))
    if not steps:
        return None
    return Phase(title="let replicas take over", steps=tuple(steps), gate=Gate("promoted", 60.0))


def _replicate(topology: Topology, facts: Facts) -> Phase | None:
    """Nodes without slots go to the shard that they are declared for, or where a replica is missing more."""
    steps: list[Step] = []
    load = Counter(node.master_id for node in facts.reachable_nodes() if node.master_id)
    left = _without_resting(topology, facts)
    for node in topology.nodes:
        seen = facts.nodes[node.name]
        if not seen.reachable or seen.role is not Role.MASTER or seen.slots or seen.keys:
            continue
        master = _master_for(topology, facts, node, (load, left))
        if master and master.id != seen.id:
            why = f"its shard has {load[master.id]} of {topology.replicas} replicas"
            if load[master.id] >= topology.replicas > left[master.id]:
                why = f"a copy of {master.name} is on a host in maintenance"
            load[master.id] += 1
            left[master.id] += 1
            steps.append(Replicate(node=node.name, master=master.name, why=why))
    if not steps:
        return None
    return Phase(title="attach the replicas", steps=tuple(steps), gate=Gate("attached", 120.0))


def _without_resting(topology: Topology, facts: Facts) -> Counter[str]:
    """How many replicas of each slot owner would be left without the hosts in maintenance, one of them in the owner's
    place if it stands there itself: -1 where nobody would be left."""
    copies = Counter(node.master_id or node.id for node in facts.reachable_nodes() if node.name not in topology.resting)
    return Counter({owner.id: copies[owner.id] - 1 for owner in newest_owners(facts)})


def _master_for(topology: Topology, facts: Facts, node: RedisNode, loads: Iterable[Counter[str]]) -> NodeFacts | None:
    """Where no shard lacks a replica by the first count, a drain that was cut off has started the node for a copy that
    is to leave: the second count is without these."""
    owner, neediest = shard_owner(topology, facts, node.shard), None
    for load in loads:
        if owner and load[owner.id] < topology.replicas:
            return owner
        neediest = neediest_master(topology, facts, node, load)
        if neediest and load[neediest.id] < topology.replicas:
            break
    return neediest


def _settle(topology: Topology, facts: Facts) -> Phase | None:
    if not claimed_slots(facts) or not gates.in_sync(topology, facts):
        return None
    title = "wait until all nodes agree on every slot and every replica is in sync"
    return Phase(title=title, steps=(), gate=Gate("in_sync", 120.0))


def _drifted(facts: Facts, wishes: Wishes) -> list[str]:
    """Units whose running configuration is not the declared one."""
    return [
        name
        for name, config_hash in wishes.config_hashes.items()
        if facts.units[name].config_hash not in ("", config_hash)
    ]


def _read_again(topology: Topology, facts: Facts, drifted: Collection[str]) -> Phase | None:
    """What an Envoy alone finds unhealthy it will find healthy by itself: it may not have looked yet."""
    others = (node.name for node in facts.reachable_nodes() if not node.refuses_reads)
    return left_unread(topology, facts, but=frozenset((*others, *drifted)))


def _apply_drift(topology: Topology, facts: Facts, drifted: list[str]) -> Phase:
    """Restart one of the drifted Units: replicas first, then masters, then Envoys.

    Before a replica restarts its reads go elsewhere.
    """

    def order(name: str) -> tuple[bool, bool, str]:
        node = facts.nodes.get(name)
        return node is None, node is not None and node.role is Role.MASTER, name

    name = min(drifted, key=order)
    node = facts.nodes.get(name)
    heir = best_replica(topology, facts, node.id) if node and node.role is Role.MASTER else None
    if node and heir:
        return hand_over(topology, facts, node, heir, f"{name} is about to restart")
    if node and node.role is Role.REPLICA and takes_reads(topology, facts, node):
        return refuse_reads(name, "so that no read fails while it restarts")
    step = RestartUnit(unit=name, why="it runs with an older configuration")
    gate = Gate("endpoints_serve", 60.0, envoy=name) if node is None else Gate("in_sync", 60.0)
    return Phase(title=f"apply the changed configuration to {name}", steps=(step,), gate=gate)
