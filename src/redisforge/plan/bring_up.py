"""What `up` does next: one phase at a time, from what is to what should be.

`next_phase` is level-triggered: it looks only at the facts, so it gives the right answer after a crash at any
point, and nothing when all is well. The order:

    1  members first   Units that have been part of a cluster are started before blank ones, so that a node that
                       lost its data can learn from them that it must wait (fleet/keeper.py, "The guard")
    2  epochs, slots   only in a cluster that holds nothing yet: epochs while nodes are alone (Redis refuses later)
    3  MEET            until everybody knows everybody, and again until everybody knows everybody's slots
    4  promotion       of replicas whose master will not come back with its data
    5  REPLICATE       members without slots become replicas
    6  FORGET          of identities that no longer exist
    7  announcement    of replicas that some nodes do not name to proxies yet; then a new cluster's Envoys start
    8  agreement       nothing to do but to wait for it: a master says `fail` for its first two seconds
    9  drift           Units that run with an older configuration restart, one at a time, masters after a hand-over

MEET twice, because the first packets between two nodes introduce them and are not read further; only a later one
carries slots and replication offset, and left alone that takes up to half of the node timeout. A MEET to a node
that knows the sender is such a packet. (cluster_legacy.c, clusterProcessPacket; measured in facts of formation.)

A phase ends with a gate; the runner observes again before it asks for the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, NodeFacts, PeerView, UnitState
from redisforge.model.slots import SlotRange, count, describe, merge, subtract
from redisforge.model.steps import (
    AssignSlots,
    Forget,
    Gate,
    Meet,
    Phase,
    Promote,
    Replicate,
    RestartUnit,
    SetConfigEpoch,
    StartUnit,
    Step,
)
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.plan import gates
from redisforge.plan.placement import split_slots
from redisforge.plan.refusals import (
    lost_identities,
    places_of,
    refuse_if_forgotten,
    refuse_if_unsafe,
    refuse_other_size,
)
from redisforge.plan.view import (
    claimed_slots,
    connected_ids,
    copies_of,
    declared_at,
    key_total,
    known_ids,
    neediest_master,
    owned_slots,
    replicas_of,
    shard_owner,
    strangers,
    unclaimed_slots,
)

MEET_ALL_PAIRS_UP_TO = 16
"""Up to this many nodes everybody is introduced to everybody (fastest); above, one node introduces all."""

_WAIT_FOR_NODES = Phase(title="wait for the nodes that run", steps=(), gate=Gate("nodes_answer", 30.0))


class Wishes(msgspec.Struct, frozen=True):
    """What the planner must know beside topology and facts.

    `config_hashes` by Unit name; empty when nothing is run by RedisForge (init-cluster).
    `accepted_losses` are names of nodes that may start without their data.
    """

    config_hashes: Mapping[str, str] = {}
    accepted_losses: frozenset[str] = frozenset()


def next_phase(topology: Topology, facts: Facts, wishes: Wishes) -> Phase | None:
    """The next phase, or None when the declared state is reached.

    Raises:
        RefusedError: going on could destroy data or capture a node of another cluster.
    """
    refuse_other_size(topology, facts)  # before a Unit of a shard too many is started
    if wishes.config_hashes and (phase := _start_units(topology, facts, wishes)):
        return phase
    refuse_if_unsafe(topology, facts, wishes.accepted_losses)
    if phase := _give_lost_slots(topology, facts, wishes):
        return phase
    makers = (_assign_slots, _introduce, _tell_slots, _replace_lost_masters, _replicate, _forget, _announce, _settle)
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
    return _apply_drift(topology, facts, drifted) if drifted else None


def _start_units(topology: Topology, facts: Facts, wishes: Wishes) -> Phase | None:
    redis_names = {node.name for node in topology.nodes}
    down = [name for name in wishes.config_hashes if not _runs(facts, name)]
    if _is_forming(facts):
        down = [name for name in down if name in redis_names]
    down_nodes = [name for name in down if name in redis_names]
    members = [name for name in down_nodes if name in facts.units and facts.units[name].has_cluster_config]
    accepted = [name for name in wishes.accepted_losses & redis_names if _is_held(facts, name)]
    gate = _WAIT_FOR_NODES.gate
    if accepted:
        steps = tuple(
            StartUnit(unit=name, permit_blank=True, why="its loss of data was accepted") for name in sorted(accepted)
        )
        return Phase(title="start nodes whose loss was accepted", steps=steps, gate=gate)
    if members:
        wave = [*members, *(name for name in down if name not in redis_names)]
        return Phase(title="start nodes that have data", steps=_starts(wave, frozenset()), gate=gate)
    if not down:
        return _start_held(topology, facts, wishes)
    if facts.units and gates.nodes_answer(topology, facts):
        # A silent member could still expect slots of a node that is about to start blank: hear it first.
        return _WAIT_FOR_NODES
    refuse_if_forgotten(topology, facts, wishes.accepted_losses)
    expected = {(p.address, p.port) for n in facts.reachable_nodes() for p in n.peers if p.slots}
    blank = frozenset(
        node.name for node in topology.nodes if node.name in down and (node.address, node.port) not in expected
    )
    title = "start the nodes" if down_nodes else "start the Envoys"
    return Phase(title=title, steps=_starts(down, blank), gate=gate)


def _is_forming(facts: Facts) -> bool:
    """Nothing is stored and the cluster is not whole: an Envoy started now would learn a half of it, and keep to
    that until its next refresh. Later, Envoys start together with the nodes, to serve what can be served."""
    nodes = facts.reachable_nodes()
    whole = not unclaimed_slots(facts) and all(node.slots or node.replication_offset for node in nodes)
    whole = whole and not gates.untold(facts)
    was_member = any(unit.has_cluster_config and not _runs(facts, unit.name) for unit in facts.units.values())
    return not key_total(facts) and not whole and not was_member


def _start_held(topology: Topology, facts: Facts, wishes: Wishes) -> Phase | None:
    """Release nodes whose guard holds them although there is nothing left to protect."""
    steps: list[Step] = []
    owned = owned_slots(facts)
    held = [node for node in topology.nodes if _is_held(facts, node.name)]
    if held and unclaimed_slots(facts) and gates.nodes_answer(topology, facts):
        return _WAIT_FOR_NODES  # one that is reading its data may expect slots of those that are held
    refuse_if_forgotten(topology, facts, wishes.accepted_losses)
    for node in held:
        claims = _claims_on(topology, facts, node)
        copies = [copy for claim in claims for copy in copies_of(topology, facts, claim.id)]
        # Whoever was a member, and can ask nobody, may be the only one that is left.
        unknown = not claims and facts.units[node.name].has_cluster_config and not claimed_slots(facts)
        nothing_kept = topology.redis.persistence.mode == "none" or not (claims or unknown)
        if nothing_kept and not any(copy.keys for copy in copies):
            why = "it keeps nothing on disk and no replica holds a key of it" if claims else "nobody expects it"
            steps.append(StartUnit(unit=node.name, permit_blank=True, why=why))
        elif unknown or (any(subtract(claim.slots, owned) for claim in claims) and not copies):
            raise RefusedError(
                f"{node.name} has lost its data, and no replica of it can be reached",
                where=f"slots {describe(claims[0].slots)}" if claims else f"{node.address}:{node.port}",
                why=facts.units[node.name].reason,
                next_step="bring its data folder back and run `redisforge up` again; or, to serve these slots as "
                f"empty, `redisforge up --accept-data-loss {node.name}`",
            )
    if not steps:
        return None
    return Phase(title="start nodes that have nothing to lose", steps=tuple(steps), gate=_WAIT_FOR_NODES.gate)


def _claims_on(topology: Topology, facts: Facts, node: RedisNode) -> list[PeerView]:
    """What the others expect of a held node: slots under its address, or, for a member that may have moved since,
    under an address that is nobody's."""
    views = [peer for other in facts.reachable_nodes() for peer in other.peers if peer.slots]
    here = [peer for peer in views if (peer.address, peer.port) == (node.address, node.port)]
    if here or not facts.units[node.name].has_cluster_config:
        return here
    gone = [peer for peer in views if facts.node_by_id(peer.id) is None]
    return [peer for peer in gone if declared_at(topology, peer.address, peer.port) is None]


def _starts(names: list[str], blank: frozenset[str]) -> tuple[Step, ...]:
    return tuple(
        StartUnit(unit=name, permit_blank=name in blank, why="it is declared and does not run") for name in names
    )


def _runs(facts: Facts, name: str) -> bool:
    unit = facts.units.get(name)
    return unit is not None and unit.state in (UnitState.RUNNING, UnitState.BACKOFF, UnitState.HELD)


def _is_held(facts: Facts, name: str) -> bool:
    unit = facts.units.get(name)
    return unit is not None and unit.state is UnitState.HELD


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


def _introduce(topology: Topology, facts: Facts) -> Phase | None:
    reachable = [node for node in topology.nodes if facts.nodes[node.name].reachable]
    ids = {node.name: facts.nodes[node.name].id for node in reachable}
    connected = {node.name: connected_ids(facts.nodes[node.name]) for node in reachable}
    pairs = [
        (first.name, second.name)
        for index, first in enumerate(reachable)
        for second in reachable[index + 1 :]
        if ids[second.name] not in connected[first.name] or ids[first.name] not in connected[second.name]
    ]
    if not pairs:
        return None
    if len(reachable) > MEET_ALL_PAIRS_UP_TO:
        hub = reachable[0].name
        pairs = [pair for pair in pairs if pair[0] == hub] or pairs
    why = "they do not know, or do not reach, each other"
    steps = tuple(Meet(node=first, other=second, why=why) for first, second in pairs)
    return Phase(title="introduce the nodes", steps=steps, gate=Gate("all_met", 20.0 + len(reachable) / 10))


def _tell_slots(topology: Topology, facts: Facts) -> Phase | None:
    """Let owners greet the nodes that do not know their slots yet."""
    masters = (node for node in facts.reachable_nodes() if node.role is Role.MASTER)
    owners = [(master.name, slots) for master in masters if (slots := master.slots)]
    heard = [(node, merge(r for peer in node.peers for r in peer.slots)) for node in facts.reachable_nodes()]
    steps = tuple(
        Meet(node=owner, other=node.name, why=f"{node.name} has not heard of its slots")
        for node, known in heard
        for owner, slots in owners
        if subtract(slots, known)
    )
    if not steps:
        return None
    return Phase(title="spread the slots", steps=steps, gate=Gate("slots_seen", 20.0))


def _announce(topology: Topology, facts: Facts) -> Phase | None:
    """Let nodes greet those that do not name them to proxies yet."""
    steps = tuple(
        Meet(node=other.name, other=node.name, why=f"{node.name} does not tell proxies of it yet")
        for node, other in gates.untold(facts)
    )
    return Phase(title="announce the replicas", steps=steps, gate=Gate("told", 20.0)) if steps else None


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
    for node in topology.nodes:
        seen = facts.nodes[node.name]
        if not seen.reachable or seen.role is not Role.MASTER or seen.slots or seen.keys:
            continue
        master = shard_owner(topology, facts, node.shard)
        if master is None or load[master.id] >= topology.replicas:
            master = neediest_master(topology, facts, node, load)
        if master and master.id != seen.id:
            load[master.id] += 1
            steps.append(
                Replicate(
                    node=node.name,
                    master=master.name,
                    why=f"its shard has {load[master.id] - 1} of {topology.replicas} replicas",
                )
            )
    if not steps:
        return None
    return Phase(title="attach the replicas", steps=tuple(steps), gate=Gate("attached", 120.0))


def _forget(topology: Topology, facts: Facts) -> Phase | None:
    """Forget dead identities whose place was taken by a node with another id, and whose slots, if some nodes still
    list them under it, have a living owner."""
    dead: set[str] = set()
    owned = owned_slots(facts)
    for stranger in strangers(topology, facts).values():
        node = declared_at(topology, stranger.address, stranger.port)
        replaced = "noaddr" in stranger.flags or (node is not None and facts.nodes[node.name].reachable)
        if replaced and not subtract(stranger.slots, owned) and not replicas_of(facts, stranger.id):
            dead.add(stranger.id)
    steps = tuple(
        Forget(node=node.name, node_id=node_id, why="this identity no longer exists")
        for node in facts.reachable_nodes()
        for node_id in sorted(dead)
        if node_id in known_ids(node)
    )
    return Phase(title="forget dead identities", steps=steps, gate=Gate("agreed", 20.0)) if steps else None


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


def _apply_drift(topology: Topology, facts: Facts, drifted: list[str]) -> Phase:
    """Restart one of the drifted Units: replicas first, then masters, then Envoys."""

    def order(name: str) -> tuple[bool, bool, str]:
        node = facts.nodes.get(name)
        return node is None, node is not None and node.role is Role.MASTER, name

    name = min(drifted, key=order)
    node = facts.nodes.get(name)
    replicas = replicas_of(facts, node.id) if node and node.role is Role.MASTER else ()
    if replicas:
        step: Step = Promote(node=replicas[0].name, mode="handover", why=f"{name} is about to restart")
        return Phase(title=f"hand over from {name}", steps=(step,), gate=Gate("in_sync", 60.0))
    step = RestartUnit(unit=name, why="it runs with an older configuration")
    gate = Gate("endpoints_serve", 60.0, envoy=name) if node is None else Gate("in_sync", 60.0)
    return Phase(title=f"apply the changed configuration to {name}", steps=(step,), gate=gate)
