"""Readings of the facts that planner, gates and diagnosis share: who owns what, who knows whom."""

from __future__ import annotations

from collections import Counter

from redisforge.model.facts import Facts, NodeFacts, PeerView, UnitState
from redisforge.model.slots import SLOT_COUNT, SlotRange, count, merge, subtract
from redisforge.model.topology import RedisNode, Role, Topology

ALL_SLOTS = (SlotRange(0, SLOT_COUNT - 1),)


def claimed_slots(facts: Facts) -> tuple[SlotRange, ...]:
    """Slots that somebody owns in anybody's view, the dead included."""
    return merge(r for node in facts.reachable_nodes() for peer in node.peers for r in peer.slots)


def unclaimed_slots(facts: Facts) -> tuple[SlotRange, ...]:
    """Slots without an owner in every view."""
    return subtract(ALL_SLOTS, claimed_slots(facts))


def served_slots(facts: Facts) -> tuple[SlotRange, ...]:
    """Slots that a reachable master owns in its own view, in a cluster that it holds to be ok."""
    masters = (node for node in facts.reachable_nodes() if node.role is Role.MASTER)
    return merge(r for node in masters if node.cluster_state == "ok" for r in node.slots)


def owned_slots(facts: Facts) -> tuple[SlotRange, ...]:
    """Slots that a reachable master owns in its own view. What others say of these slots may lag behind."""
    return merge(r for node in facts.reachable_nodes() if node.role is Role.MASTER for r in node.slots)


def newest_owners(facts: Facts) -> tuple[NodeFacts, ...]:
    """Reachable masters that own slots, without those all of whose slots another one claims with a higher epoch:
    a master that has just come back claims what a replica took over meanwhile, until it hears of that."""
    masters = [(node, node.slots) for node in facts.reachable_nodes() if node.role is Role.MASTER]
    owners = [(node, slots) for node, slots in masters if slots]
    if sum(count(slots) for _, slots in owners) == count(owned_slots(facts)):
        return tuple(node for node, _ in owners)
    taken: tuple[SlotRange, ...] = ()
    newest: list[NodeFacts] = []
    for node, slots in sorted(owners, key=lambda owner: -_config_epoch(owner[0])):
        if subtract(slots, taken):
            newest.append(node)
            taken = merge((*taken, *slots))
    return tuple(newest)


def _config_epoch(node: NodeFacts) -> int:
    return node.myself.config_epoch if node.myself else 0


def key_total(facts: Facts) -> int:
    """Keys of all reachable nodes, copies included: zero only when nothing is stored anywhere."""
    return sum(node.keys for node in facts.reachable_nodes())


def known_ids(node: NodeFacts) -> frozenset[str]:
    """The ids that a node knows for certain, its own included."""
    return frozenset(peer.id for peer in node.peers if not peer.in_handshake)


def connected_ids(node: NodeFacts) -> frozenset[str]:
    """The ids that a node knows and has a bus link to, its own included; a node that moved to another port is
    known, and lost."""
    linked = (peer.id for peer in node.peers if peer.link_up and not peer.in_handshake)
    return frozenset((node.id, *linked))


def view_of(facts: Facts, node_id: str) -> tuple[PeerView, ...]:
    """How every reachable node sees `node_id`."""
    return tuple(peer for node in facts.reachable_nodes() for peer in node.peers if peer.id == node_id)


def strangers(topology: Topology, facts: Facts) -> dict[str, PeerView]:
    """Ids that the cluster lists and that no reachable node of ours has: dead identities and foreign nodes."""
    own = {node.id for node in facts.reachable_nodes()}
    return {
        peer.id: peer
        for node in facts.reachable_nodes()
        for peer in node.peers
        if peer.id not in own and not peer.in_handshake
    }


def newcomers(before: Facts, after: Facts) -> tuple[str, ...]:
    """Nodes that could not be asked before and are there now, knowing nobody: their keeper let them start blank."""
    return tuple(node.name for node in after.nodes.values() if node.is_blank and not before.nodes[node.name].reachable)


def hanging(facts: Facts) -> tuple[str, ...]:
    """Nodes whose process runs and does not answer, though it is not reading its data from disk."""
    return tuple(
        node.name
        for node in facts.nodes.values()
        if not (node.reachable or node.loading)
        and (unit := facts.units.get(node.name)) is not None
        and unit.state is UnitState.RUNNING
        and unit.pid
    )


def in_container(topology: Topology, name: str) -> bool:
    """Whether a node runs in a container, so that its process has another number on its host."""
    docker = {host.name for host in topology.hosts if host.runtime == "docker"}
    return any(node.name == name and node.host in docker for node in topology.nodes)


def declared_at(topology: Topology, address: str, port: int) -> RedisNode | None:
    """The declared node with this address, or None."""
    return next((node for node in topology.nodes if (node.address, node.port) == (address, port)), None)


def replicas_of(facts: Facts, master_id: str) -> tuple[NodeFacts, ...]:
    """Reachable replicas of `master_id`, the most advanced first."""
    found = [node for node in facts.reachable_nodes() if node.role is Role.REPLICA and node.master_id == master_id]
    return tuple(sorted(found, key=lambda node: (-node.replication_offset, -node.keys)))


def copies_of(topology: Topology, facts: Facts, master_id: str) -> tuple[NodeFacts, ...]:
    """The replicas of `master_id` that may stand in for its data, the most advanced first.

    One that has lost its own data and cannot reach its master may not: it has no key, and has received nothing
    since it started (INFO prints `slave_repl_offset:0`, or 1, until it has). With snapshots alone, nodes that never
    held a key have no file to show for it, so there an empty cluster is taken for one.
    """
    may_be_empty = topology.redis.persistence.mode != "aof" and not key_total(facts)
    replicas = replicas_of(facts, master_id)
    return tuple(node for node in replicas if node.keys or node.replication_offset > 1 or may_be_empty)


def shard_owner(topology: Topology, facts: Facts, shard: int) -> NodeFacts | None:
    """The reachable master that now serves the nodes declared for `shard`: an owner of slots among them, or
    the master that one of them replicates. None while the shard has none."""
    members = [facts.nodes[node.name] for node in topology.nodes if node.shard == shard]
    for member in members:
        if member.reachable and member.role is Role.MASTER and member.slots:
            return member
    for member in members:
        if member.reachable and member.master_id:
            master = facts.node_by_id(member.master_id)
            if master and master.slots:
                return master
    return None


def neediest_master(topology: Topology, facts: Facts, newcomer: RedisNode, load: Counter[str]) -> NodeFacts | None:
    """The slot owner that `newcomer` should replicate: one that lacks replicas (`load` counts them by master id),
    none of whose shard shares the newcomer's machine, or else its zone, and then the one with the fewest."""
    declared = {node.name: node for node in topology.nodes}
    nodes = facts.reachable_nodes()

    def cost(owner: NodeFacts) -> tuple[bool, int, int, str]:
        shard = [declared[node.name] for node in nodes if owner.id in (node.id, node.master_id)]
        same_zone = any(node.zone == newcomer.zone for node in shard)
        same_machine = any(node.address == newcomer.address for node in shard)
        return load[owner.id] >= topology.replicas, same_machine + same_zone, load[owner.id], owner.name

    return min((node for node in nodes if node.role is Role.MASTER and node.slots), key=cost, default=None)


def actual_shards(topology: Topology, facts: Facts) -> dict[str, int]:
    """Shard number (from 0) by node name, as the running cluster has it; the declared one where unknown.

    Shards are numbered by their first slot: a node's declared shard says nothing after failovers and additions. What is
    silent belongs where the others say. Of a master that was replaced while it was away they say nothing more: it
    belongs to those it was declared with, wherever these are now, or, if they are complete, where somebody is missing.
    """
    owners = sorted(slot_owners(facts), key=lambda owner: min(owner.slots))
    complete = len(owners) == topology.shards
    by_id = {owner.id: number for number, owner in enumerate(owners)} if complete else {}
    places: dict[tuple[str, int], int] = {}
    for peer in (peer for node in facts.reachable_nodes() for peer in node.peers):
        if (number := by_id.get(peer.master_id or peer.id)) is not None:
            places.setdefault((peer.address, peer.port), number)
    known: dict[str, int] = {}
    for node in topology.nodes:
        seen = facts.nodes.get(node.name)
        if seen and seen.reachable:
            number = by_id.get(seen.master_id or seen.id)
        else:
            number = places.get((node.address, node.port))
        if number is not None:
            known[node.name] = number

    sizes = Counter(known.values())
    actual: dict[str, int] = {}
    for node in topology.nodes:
        seen = facts.nodes.get(node.name)
        if node.name in known:
            actual[node.name] = known[node.name]
            continue
        mates = Counter(known[mate.name] for mate in topology.nodes if mate.shard == node.shard and mate.name in known)
        number = max(mates, key=lambda number: (mates[number], -number), default=node.shard)
        if complete and sizes[number] > topology.replicas and not (seen and seen.reachable):
            open_shards = [other for other in range(topology.shards) if sizes[other] <= topology.replicas]
            number = min(open_shards, key=lambda other: sizes[other], default=number)
        sizes[number] += 1
        actual[node.name] = number
    return actual


def slot_owners(facts: Facts) -> tuple[NodeFacts | PeerView, ...]:
    """Who owns slots: reachable masters, and those who are silent and whose slots nobody has taken over."""
    silent: dict[str, PeerView] = {}
    owned = owned_slots(facts)
    for node in facts.reachable_nodes():
        for peer in node.peers:
            if peer.slots and facts.node_by_id(peer.id) is None and subtract(peer.slots, owned):
                silent.setdefault(peer.id, peer)
    return (*newest_owners(facts), *silent.values())
