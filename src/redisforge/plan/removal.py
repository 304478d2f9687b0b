"""What may leave a cluster, and what must not: refused before anything moves, with the reason and the way out."""

from __future__ import annotations

import math

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts
from redisforge.model.slots import SlotRange, describe, merge, subtract
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.model.words import counted
from redisforge.plan.handover import best_replica
from redisforge.plan.view import newest_owners, replicas_of

LEAST_MASTERS = 3
_NAMED = 6
"""So many shards are named in an error; more are counted."""


def refuse_removal(topology: Topology, facts: Facts, leaving: frozenset[str], *, force: bool) -> None:
    """Check that the cluster can do without `leaving`. With `force` a shard may be left without a replica.

    Raises:
        RefusedError: data would be lost, too few masters or no majority across zones would be left, or (without
            `force`) a shard would lose its last replica in sync.
    """
    if not leaving:
        return
    for name in sorted(leaving):
        refuse_lost_data(topology, facts, topology.node(name), leaving)
    owners = [node for node in newest_owners(facts) if node.name not in leaving]
    if any(node.name in leaving for node in newest_owners(facts)):
        _refuse_few_masters(topology, owners_left=[topology.node(node.name) for node in owners], leaving=leaving)
    if force:
        return
    for owner in owners:
        losing = [node.name for node in replicas_of(facts, owner.id) if node.name in leaving]
        if losing and best_replica(topology, facts, owner.id, leaving) is None:
            more = f"add HOST:PORT --replica-of {owner.name}" if topology.access else "--replicas N"
            raise RefusedError(
                f"{', '.join(losing)} is the last replica of {owner.name} that is in sync",
                where=f"slots {describe(owner.slots)}",
                why="their data would be in one copy only",
                next_step=f"add a replica first (`redisforge scale {more}`), or accept that with --force",
            )


def refuse_single_copies(topology: Topology, facts: Facts, leaving: frozenset[str]) -> None:
    """`refuse_removal` for a cluster that is to have no replicas at all: every shard that loses its last one is named.

    Raises:
        RefusedError: a shard that has replicas now would have none.
    """
    lonely: list[str] = []
    last: list[str] = []
    for owner in newest_owners(facts):
        copies = [node.name for node in replicas_of(facts, owner.id)]
        if owner.name in leaving or not copies or not leaving.issuperset(copies):
            continue
        last += sorted(copies)
        lonely.append(f"{', '.join(sorted(copies))} of {owner.name} ({describe(owner.slots)})")
    if not lonely:
        return
    more = f"; and those of {len(lonely) - _NAMED} more" if len(lonely) > _NAMED else ""
    raise RefusedError(
        f"the last replicas of {counted(len(lonely), 'shard')} would be deleted",
        where="; ".join(lonely[:_NAMED]) + more,
        why="their data would be in one copy only: nothing takes over for a master that fails, and what it held is "
        "lost with its disk",
        next_step="keep a replica of each (`redisforge scale --replicas 1`), or accept that with --force",
    )


def refuse_lost_data(topology: Topology, facts: Facts, node: RedisNode, leaving: frozenset[str]) -> None:
    """A node that does not answer and still owns slots: what only it has would be given up."""
    if facts.nodes[node.name].reachable:
        return
    slots = expected_of(facts, node)
    if not slots:
        return
    ids = {p.id for n in facts.reachable_nodes() for p in n.peers if (p.address, p.port) == (node.address, node.port)}
    heirs = [replica for node_id in ids for replica in replicas_of(facts, node_id) if replica.name not in leaving]
    if heirs:
        way_out = f"`redisforge failover {node.name} --force` lets {heirs[0].name} take over; then remove it"
    else:
        way_out = "start it, or bring its data folder back; to give the data up, `redisforge up --accept-data-loss` it"
    raise RefusedError(
        f"{node.name} does not answer and owns slots",
        where=f"slots {describe(slots)}",
        why="removing it would lose what only it holds" if not heirs else "its replica has not taken over yet",
        next_step=way_out,
    )


def expected_of(facts: Facts, node: RedisNode) -> tuple[SlotRange, ...]:
    """The slots that the others still expect of the node at this address, and that no reachable master owns."""
    views = (p for other in facts.reachable_nodes() for p in other.peers)
    claimed = merge(r for p in views if (p.address, p.port) == (node.address, node.port) for r in p.slots)
    owned = merge(r for n in facts.reachable_nodes() if n.role is Role.MASTER for r in n.slots)
    return subtract(claimed, owned)


def _refuse_few_masters(topology: Topology, owners_left: list[RedisNode], leaving: frozenset[str]) -> None:
    names = ", ".join(sorted(leaving))
    if len(owners_left) < LEAST_MASTERS:
        raise RefusedError(
            f"without {names} the cluster would have {len(owners_left)} masters",
            where=topology.name,
            why="with fewer than three, no majority is left when one fails, and nothing fails over",
            next_step="add a master first; or, to replace the node, add a replica to its shard, let that take over "
            "(`redisforge failover`), and remove the node then",
        )
    zones = {node.zone for node in topology.nodes if node.name not in leaving}
    fewest = math.ceil(len(owners_left) / max(1, len(zones)))  # of the zone with most masters, if they stood evenly
    if fewest * 2 >= len(owners_left):
        return  # no placement could survive the loss of any zone
    for zone in sorted({node.zone for node in owners_left}):
        left = [node for node in owners_left if node.zone != zone]
        if len(left) * 2 <= len(owners_left):
            raise RefusedError(
                f"without {names} most masters would stand in one zone",
                where=f"zone {zone}: {len(owners_left) - len(left)} of {len(owners_left)} masters",
                why="the loss of that zone would leave no majority, and nothing would fail over",
                next_step="move masters to other zones first: `redisforge rebalance --roles`",
            )
