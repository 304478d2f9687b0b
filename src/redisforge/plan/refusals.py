"""What formation must never touch: data, and members of a cluster that is not this one.

Every check answers with an error that says what was found; the planner raises the first.
"""

from __future__ import annotations

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, PeerView, UnitState
from redisforge.model.slots import count, describe, merge, subtract
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.model.words import counted
from redisforge.plan.placement import split_slots
from redisforge.plan.view import (
    copies_of,
    declared_at,
    key_total,
    known_ids,
    newest_owners,
    owned_slots,
    strangers,
    unclaimed_slots,
)


def refuse_if_unsafe(topology: Topology, facts: Facts, accepted_losses: frozenset[str] = frozenset()) -> None:
    """Check that bringing up `topology` over what runs cannot destroy or capture anything.

    `accepted_losses` are nodes whose lost data the operator has given up.

    Raises:
        RefusedError: with what was found, where, and what to do.
    """
    refuse_data_risks(topology, facts, accepted_losses)
    refuse_other_size(topology, facts)


def refuse_data_risks(topology: Topology, facts: Facts, accepted_losses: frozenset[str] = frozenset()) -> None:
    """`refuse_if_unsafe` for verbs that change the number of masters. Raises RefusedError."""
    for check in (_data_outside, _foreign_members, _rival_claims, _unowned_slots):
        check(topology, facts)
    for stranger in lost_identities(topology, facts):
        places = places_of(topology, stranger)
        if not any(node.name in accepted_losses for node in places):
            _refuse_lost(stranger, places)


def forgotten_members(topology: Topology, facts: Facts) -> tuple[str, ...]:
    """Nodes that have been members, of which no nodes.conf is left, while nobody can say what is expected of them.

    That is the sight of a data disk that is not mounted: without this memory it would be that of a first start. A
    first `up` that was killed leaves every nodes.conf that there was.
    """
    if topology.redis.persistence.mode == "none" or not unclaimed_slots(facts):
        return ()
    idle = (UnitState.ABSENT, UnitState.STOPPED, UnitState.HELD)
    units = [facts.units[node.name] for node in topology.nodes if node.name in facts.units]
    gone = (unit.name for unit in units if unit.state in idle and unit.was_member and not unit.has_cluster_config)
    return tuple(name for name in gone if not facts.nodes[name].reachable)


def refuse_if_forgotten(topology: Topology, facts: Facts, accepted_losses: frozenset[str]) -> None:
    """Check that no empty cluster would be formed in the place of one whose data folders are gone.

    Raises:
        RefusedError: with the nodes, and every way out.
    """
    gone = [name for name in forgotten_members(topology, facts) if name not in accepted_losses]
    if not gone:
        return
    accept = " ".join(f"--accept-data-loss {name}" for name in gone)
    raise RefusedError(
        "the data folders of the cluster are gone",
        where=", ".join(gone),
        why="these nodes have been members of the cluster, their folders hold no nodes.conf any more, and no node is "
        "left that knows the slots: to start them now would form an empty cluster",
        next_step="mount the disk or bring the data folders back, and run `redisforge up` again; or give the data up: "
        f"`redisforge down --purge` deletes what is left of the cluster, `redisforge up {accept}` starts it empty",
    )


def lost_identities(topology: Topology, facts: Facts) -> tuple[PeerView, ...]:
    """Owners of slots that no longer exist and have no replica left: their data is gone."""
    lost: list[PeerView] = []
    owned = owned_slots(facts)
    for stranger in strangers(topology, facts).values():
        node = declared_at(topology, stranger.address, stranger.port)
        replaced = node is None or facts.nodes[node.name].reachable
        if subtract(stranger.slots, owned) and replaced and not copies_of(topology, facts, stranger.id):
            lost.append(stranger)
    return tuple(lost)


def places_of(topology: Topology, lost: PeerView) -> tuple[RedisNode, ...]:
    """The declared nodes that `lost` may have been; none if it was not one of them.

    As soon as a blank node answers at the old address, the others drop the address of the old identity (`noaddr`);
    the slots then tell which shard it was.
    """
    if lost.port:
        node = declared_at(topology, lost.address, lost.port)
        return (node,) if node else ()
    intended = split_slots(topology.shards)
    return tuple(node for node in topology.nodes if not subtract(lost.slots, (intended[node.shard],)))


def _data_outside(topology: Topology, facts: Facts) -> None:
    """A node with keys that owns no slots and is in no cluster: its keys would be lost."""
    for node in facts.reachable_nodes():
        if node.keys and not node.slots and len(known_ids(node)) <= 1:
            raise RefusedError(
                f"{node.name} already holds data",
                where=f"{node.address}:{node.port}",
                why=f"it stores {node.keys} keys and belongs to no cluster",
                next_step="save the keys elsewhere and empty the node (FLUSHALL), or give a different node",
            )


def _foreign_members(topology: Topology, facts: Facts) -> None:
    """A node whose cluster has members that were not declared."""
    unknown = strangers(topology, facts)
    for node in facts.reachable_nodes():
        others = [
            peer
            for peer in node.peers
            if peer.id in unknown
            and "noaddr" not in peer.flags
            and declared_at(topology, peer.address, peer.port) is None
        ]
        if others:
            listed = ", ".join(f"{peer.address}:{peer.port} ({peer.id[:8]})" for peer in others[:4])
            raise RefusedError(
                f"{node.name} belongs to a cluster with members that are not declared",
                where=f"{node.address}:{node.port}",
                why=f"it knows {counted(len(others), 'node')} that this topology does not name: {listed}",
                next_step="name all nodes of that cluster, or leave this node out",
            )


def _rival_claims(topology: Topology, facts: Facts) -> None:
    """Nodes of two clusters: both own the same slots and do not know each other."""
    masters = [node for node in facts.reachable_nodes() if node.role is Role.MASTER and node.slots]
    owned = {master.name: master.slots for master in masters}
    for index, first in enumerate(masters):
        known = known_ids(first)
        for second in masters[index + 1 :]:
            if second.id not in known and count(merge((*owned[first.name], *owned[second.name]))) < (
                count(owned[first.name]) + count(owned[second.name])
            ):
                raise RefusedError(
                    f"{first.name} and {second.name} belong to different clusters",
                    where=f"{first.address}:{first.port} and {second.address}:{second.port}",
                    why=f"both own slots of {describe(first.slots)} / {describe(second.slots)} "
                    "and do not know each other",
                    next_step="bring up each cluster with its own topology",
                )


def _unowned_slots(topology: Topology, facts: Facts) -> None:
    """Slots that nobody owns in a cluster with data: no unfinished formation, so nothing to give out."""
    missing = unclaimed_slots(facts)
    if missing and key_total(facts):
        raise RefusedError(
            "slots have no owner in a cluster that holds data",
            where=f"slots {describe(missing)}",
            why=f"{key_total(facts)} keys are stored, so this is no unfinished formation",
            next_step="find out where these slots went (redisforge status); to give them to a node as empty, "
            "send it CLUSTER ADDSLOTSRANGE",
        )


def _refuse_lost(stranger: PeerView, places: tuple[RedisNode, ...]) -> None:
    accept = f"; to serve them as empty, `redisforge up --accept-data-loss {places[0].name}`" if places else ""
    raise RefusedError(
        "the data of a shard is gone",
        where=f"slots {describe(stranger.slots)}",
        why=f"they belong to node {stranger.id[:8]} ({stranger.address}:{stranger.port}), which no longer exists, "
        "and no replica of it is left",
        next_step=f"bring its data folder back and run `redisforge up` again{accept}",
    )


def refuse_other_size(topology: Topology, facts: Facts) -> None:
    """A complete cluster with another number of masters than declared: that is scaling, not bringing up.

    Raises:
        RefusedError: with both numbers.
    """
    masters = master_count(topology, facts)
    if masters and masters != topology.shards:
        raise RefusedError(
            f"the running cluster has {masters} masters with slots, {topology.shards} shards are declared",
            where=topology.source or topology.name,
            why="changing the number of shards of a running cluster moves slots; `up` does not do that",
            next_step=f"`redisforge scale --shards {topology.shards}` moves the slots; or declare shards: {masters}",
        )


def master_count(topology: Topology, facts: Facts) -> int:
    """How many masters share the slots of a complete cluster; 0 where slots are without an owner."""
    if unclaimed_slots(facts):
        return 0
    owned = owned_slots(facts)  # whoever else is said to own these is a master of the past
    owners = {node.id for node in newest_owners(facts)}
    owners |= {peer.id for peer in strangers(topology, facts).values() if subtract(peer.slots, owned)}
    return len(owners)
