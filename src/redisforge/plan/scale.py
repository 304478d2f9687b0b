"""Nodes join and leave a running cluster, and the slots follow, while clients go on.

The order, each phase behind its gate:

    1  the Units of new nodes start, and everybody gets to know them; one that a cut-off run had begun to forget gets
       another id first (plan/renewing.py)
    2  new replicas attach: to the shard that they were placed for, to the master that was named, or where they protect
       most. New masters stay empty until 4, and have their replicas first: no key is ever in one copy only. Where all
       are to have as many, one of a master with too many goes to one with too few
    3  the cluster is in order: all agree on the slots, none is open, replicas in sync, Envoys follow
    4  slots move: to new masters by weight, away from leaving ones by free memory, at no point uncovered
    5  replicas of a master that has been emptied find another one
    6  what leaves is taken out of the reader endpoints, forgotten by every node (so that no gossip brings it back),
       made to forget the cluster, stopped, and deleted

Like every planner it looks at the facts alone, so a run that was cut off goes on, or back, from where it stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from redisforge.errors import RefusedError, UsageError
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.slots import count
from redisforge.model.steps import (
    Gate,
    MoveSlots,
    Phase,
    Replicate,
    Step,
)
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.plan import gates
from redisforge.plan.balance import Holder, InsufficientRoomError, Move, balance, drain
from redisforge.plan.joining import forget_dead, introduce, tell_slots
from redisforge.plan.parting import await_envoys, part
from redisforge.plan.ready import left_unread, refuse_reads, takes_reads, whole_first
from redisforge.plan.refusals import refuse_data_risks
from redisforge.plan.renewing import renew
from redisforge.plan.resize import idle_masters
from redisforge.plan.starting import Wishes, start_units
from redisforge.plan.view import neediest_master, newest_owners, replicas_of, shard_owner

_MOVE_DEADLINE_S = 60.0
"""After the mover itself has seen the new owners everywhere."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of the nodes of a topology, which names those that join and those that leave.

    `leaving`: nodes to be emptied and removed. `replica_of`: the master (by name) that a new replica was given.
    `weights` by node name, 1 if not named. `even_replicas`: every master is to have as many as the topology says, and
    not more. `wishes.config_hashes` names the Units that RedisForge runs.
    """

    leaving: frozenset[str] = frozenset()
    replica_of: Mapping[str, str] = {}
    weights: Mapping[str, float] = {}
    threshold_percent: float = 0.0
    even_replicas: bool = False
    wishes: Wishes = Wishes()


def scale_phase(topology: Topology, facts: Facts, wanted: Scale) -> Phase | None:
    """The next phase, or None when everything is as wanted.

    Raises:
        RefusedError: going on would lose data, or the cluster does not serve all slots.
        UsageError: weights that sum to nothing.
    """
    done = frozenset(name for name in wanted.leaving if not _owns(facts, name))
    rest, seen = gates.leave_out(topology, facts, done)
    if phase := _start(rest, seen, wanted):
        return gates.but_for(done, phase)
    refuse_data_risks(rest, seen)
    for phase in (
        renew(rest, seen),
        introduce(rest, seen),
        tell_slots(rest, seen),
        _attach(rest, seen, wanted) or _even_out(rest, seen, wanted),
        forget_dead(topology, facts),
    ):
        if phase:
            return gates.but_for(done, phase)
    if phase := whole_first(topology, facts, without=done):
        return phase
    if phase := _move(rest, seen, wanted):
        return gates.but_for(done, phase)
    return part(topology, facts, done) or await_envoys(rest, seen, done) or left_unread(rest, seen)


def _owns(facts: Facts, name: str) -> bool:
    """Whether a node is a master with slots, by its own word or, if it is silent, by that of the others."""
    node = facts.nodes[name]
    if node.reachable:
        return node.role is Role.MASTER and bool(node.slots)
    here = (node.address, node.port)
    return any((p.address, p.port) == here and p.slots for n in facts.reachable_nodes() for p in n.peers)


def _start(topology: Topology, facts: Facts, wanted: Scale) -> Phase | None:
    names = {node.name for node in topology.nodes} | {envoy.name for envoy in topology.envoys}
    hashes = {name: value for name, value in wanted.wishes.config_hashes.items() if name in names}
    return start_units(topology, facts, replace(wanted.wishes, config_hashes=hashes)) if hashes else None


def new_masters(topology: Topology, facts: Facts, leaving: frozenset[str]) -> tuple[NodeFacts, ...]:
    """Masters without slots that are to get some: as many as the cluster has too few."""
    owners = [node for node in newest_owners(facts) if node.name not in leaving]
    idle = [node for node in idle_masters(topology, facts) if node.name not in leaving]
    return tuple(idle[: max(0, topology.shards - len(owners))])


def _attach(topology: Topology, facts: Facts, wanted: Scale) -> Phase | None:
    """Nodes that are to be replicas and are not yet, or whose master leaves, get their master."""
    future = {node.name: node for node in new_masters(topology, facts, wanted.leaving)}
    load = Counter(node.master_id for node in facts.reachable_nodes() if node.master_id)
    ids = {node.id for node in facts.reachable_nodes()}
    steps: list[Step] = []
    for node in topology.nodes:
        seen = facts.nodes[node.name]
        if not seen.reachable or node.name in wanted.leaving or node.name in future:
            continue
        idle = seen.role is Role.MASTER and not seen.slots and not seen.keys
        orphan = seen.role is Role.REPLICA and seen.master_id not in ids and _has_left(topology, facts, seen)
        if not idle and not orphan:
            continue
        master = _master_for(topology, facts, node, wanted, future, load)
        if orphan and takes_reads(topology, facts, seen):
            return refuse_reads(node.name, "it is about to copy the data of another master")
        if master and master.id != seen.id:
            load[master.id] += 1
            steps.append(
                Replicate(node=node.name, master=master.name, why=f"{master.name} is to have one replica more")
            )
    if not steps:
        return None
    return Phase(title="attach the replicas", steps=tuple(steps), gate=Gate("linked", 120.0))


def _even_out(topology: Topology, facts: Facts, wanted: Scale) -> Phase | None:
    """One replica of a master with too many goes to one with too few. A run that was cut off, or a failover meanwhile,
    leaves them so: Redis itself takes the replicas of a master that becomes a replica along to the new one."""
    if not wanted.even_replicas:
        return None
    declared = {node.name: node for node in topology.nodes}
    future = new_masters(topology, facts, wanted.leaving)
    staying = [node for node in (*newest_owners(facts), *future) if node.name not in wanted.leaving]
    copies = {
        master.id: [declared[node.name] for node in replicas_of(facts, master.id) if node.name not in wanted.leaving]
        for master in staying
    }
    poor = [master for master in staying if len(copies[master.id]) < topology.replicas]
    rich = [master for master in staying if len(copies[master.id]) > topology.replicas]
    if not poor or not rich:
        return None

    def crowding(node: RedisNode, master: NodeFacts) -> tuple[int, int]:
        others = [other for other in (declared[master.name], *copies[master.id]) if other is not node]
        return sum(node.address == other.address for other in others), sum(node.zone == other.zone for other in others)

    giver = max(rich, key=lambda master: (len(copies[master.id]), master.name))
    node, taker = min(
        ((node, master) for node in copies[giver.id] for master in poor),
        key=lambda pair: (
            crowding(*pair),
            [-alike for alike in crowding(pair[0], giver)],
            pair[0].name,
            pair[1].name,
        ),
    )
    if takes_reads(topology, facts, facts.nodes[node.name]):
        return refuse_reads(node.name, "it is about to copy the data of another master")
    why = f"{giver.name} has {len(copies[giver.id])} replicas, and {taker.name} {len(copies[taker.id])}"
    return Phase(
        title="attach the replicas",
        steps=(Replicate(node=node.name, master=taker.name, why=why),),
        gate=Gate("linked", 120.0),
    )


def _has_left(topology: Topology, facts: Facts, replica: NodeFacts) -> bool:
    """Whether its master is no slot owner any more: it is leaving, emptied, or gone."""
    owned = {peer.id for node in facts.reachable_nodes() for peer in node.peers if peer.slots}
    return replica.master_id not in owned


def _master_for(
    topology: Topology,
    facts: Facts,
    node: RedisNode,
    wanted: Scale,
    future: Mapping[str, NodeFacts],
    load: Counter[str],
) -> NodeFacts | None:
    if named := wanted.replica_of.get(node.name):
        return facts.nodes[named]
    declared = {other.name: other for other in topology.nodes}
    mates = [seen for name, seen in future.items() if declared[name].shard == node.shard]
    owner = shard_owner(topology, facts, node.shard)
    owner = owner if owner and owner.name not in wanted.leaving else None
    for master in (*mates, *((owner,) if owner else ()), *future.values()):
        if load[master.id] < topology.replicas:
            return master
    return neediest_master(topology, facts, node, load)


def slot_moves(topology: Topology, facts: Facts, wanted: Scale) -> tuple[Move, ...]:
    """The moves that are left: first off the leaving masters, then to where the weights want them.

    Raises:
        RefusedError: the data of leaving masters does not fit into the others.
        UsageError: the weights sum to nothing.
    """
    owners = newest_owners(facts)
    targets = new_masters(topology, facts, wanted.leaving)
    holders = [
        Holder(node.name, node.slots, 0.0 if node.name in wanted.leaving else wanted.weights.get(node.name, 1.0))
        for node in (*owners, *targets)
    ]
    leaving = frozenset(node.name for node in owners if node.name in wanted.leaving)
    try:
        if leaving and not targets and not wanted.weights:
            return _drained(facts, holders, leaving)
        return balance(holders, threshold_percent=0.0 if leaving or targets else wanted.threshold_percent)
    except ValueError as error:
        raise UsageError(
            "the weights cannot be used", why=str(error), next_step="give at least one staying master a weight above 0"
        ) from error


def _drained(facts: Facts, holders: list[Holder], leaving: frozenset[str]) -> tuple[Move, ...]:
    room = {
        holder.name: max(0, node.max_memory_bytes - node.used_memory_bytes)
        for holder in holders
        if (node := facts.nodes[holder.name]).max_memory_bytes and holder.name not in leaving
    }
    sizes = {
        name: facts.nodes[name].used_memory_bytes / max(1, count(facts.nodes[name].slots))
        for name in leaving
        if facts.nodes[name].keys
    }
    try:
        return drain(holders, leaving, room=room, slot_bytes=sizes)
    except InsufficientRoomError as error:
        raise RefusedError(
            "the data does not fit into the nodes that stay",
            where=", ".join(sorted(leaving)),
            why=f"{error.slot_count} slots with about {error.size_bytes // 2**20 + 1} MB would exceed their memory "
            "limit (memory.max)",
            next_step="raise memory.max (`redisforge apply-config`), or add a master first",
        ) from error


def _move(topology: Topology, facts: Facts, wanted: Scale) -> Phase | None:
    moves = slot_moves(topology, facts, wanted)
    if not moves:
        return None
    total = sum(move.slot_count for move in moves)
    steps = tuple(
        MoveSlots(source=move.source, target=move.target, slots=move.slots, why=_why(move, wanted)) for move in moves
    )
    return Phase(title=f"move {total} slots", steps=steps, gate=Gate("settled", _MOVE_DEADLINE_S))


def _why(move: Move, wanted: Scale) -> str:
    return f"{move.source} leaves" if move.source in wanted.leaving else f"{move.target} is below its share"
