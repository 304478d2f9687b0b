"""A running cluster that somebody else built becomes a description: which shards, who is in them. Pure.

Refused is what has no stable description: slots without an owner, nodes that do not know each other, masters that are
too few for a majority. What is merely odd is described, and said.
"""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from redisforge.errors import NodeError, RefusedError
from redisforge.model.adopted import AdoptedNode, AdoptedShape
from redisforge.model.facts import Facts, NodeFacts, PeerView
from redisforge.model.slots import describe
from redisforge.model.topology import Role, Topology
from redisforge.plan import gates
from redisforge.plan.removal import LEAST_MASTERS
from redisforge.plan.view import newest_owners, unclaimed_slots

MOST_REPLICAS = 5
"""As many as redisforge.yaml can ask for."""


def members_of(seed: NodeFacts) -> tuple[PeerView, ...]:
    """Whom the seed knows, itself included; it may not know its own address yet. Those whose address nobody knows any
    more (`noaddr`) are left out."""
    known = (
        replace(peer, address=peer.address or seed.address, port=peer.port or seed.port)
        if "myself" in peer.flags
        else peer
        for peer in seed.peers
    )
    return tuple(peer for peer in known if not peer.in_handshake and peer.address and peer.port)


def adopted_shape(topology: Topology, facts: Facts, members: tuple[PeerView, ...]) -> AdoptedShape:
    """What the members of a cluster are. `facts` has each of them by ADDRESS:PORT, `topology` names them for messages.

    Raises:
        NodeError: members cannot be reached.
        RefusedError: the cluster is half formed, or too small.
    """
    silent = _refuse_silent(facts, members)
    _refuse_half_formed(topology, facts)
    owners = sorted(newest_owners(facts), key=lambda node: node.slots[0])
    if len(owners) < LEAST_MASTERS:
        raise RefusedError(
            f"the cluster has {len(owners)} masters with slots",
            where=topology.name,
            why="with fewer than three no majority is left when one fails, so that none of the verbs would be safe",
            next_step="give it three masters first: redis-cli --cluster add-node, and --cluster rebalance "
            "--cluster-use-empty-masters",
        )
    shard_of = {node.id: number for number, node in enumerate(owners, start=1)}
    sizes = Counter(dict.fromkeys(shard_of.values(), 0))
    placed: list[AdoptedNode] = []
    notices: list[str] = []
    for peer in sorted(members, key=lambda peer: (peer.role is Role.REPLICA, peer.address, peer.port)):
        shard = shard_of.get(peer.id) or shard_of.get(peer.master_id)
        role = Role.MASTER if peer.id in shard_of else Role.REPLICA
        if shard is None:
            shard = min(sizes, key=lambda number: (sizes[number], number))
            notices.append(_idle(peer))
        if role is Role.REPLICA:
            sizes[shard] += 1
        placed.append(AdoptedNode(peer.address, peer.port, peer.bus_port, shard, role))
    notices += [f"{where} does not answer: {facts.nodes[where].problem}" for where in silent]
    notices += [_unlinked(facts, node) for node in facts.reachable_nodes() if _has_no_link(node)]
    notices += [f"{node.name} has open slots; `redisforge rebalance` closes them" for node in _with_open_slots(facts)]
    placed.sort(key=lambda node: (node.shard, node.role is Role.REPLICA, node.address, node.port))
    return AdoptedShape(tuple(placed), len(owners), _usual(sizes), tuple(notices))


def _usual(sizes: Counter[int]) -> int:
    """The number of replicas that most shards have; the larger of two that are as common."""
    common = Counter(sizes.values())
    return min(MOST_REPLICAS, max(common, key=lambda size: (common[size], size)))


def _idle(peer: PeerView) -> str:
    where = f"{peer.address}:{peer.port}"
    return (
        f"{where} is a master without slots: `redisforge up` makes it a replica; to give it slots instead, take it out "
        f"of external.nodes, run `redisforge up` and `redisforge scale add {where} --role master`"
    )


def _has_no_link(node: NodeFacts) -> bool:
    return node.role is Role.REPLICA and not node.master_link_up


def _unlinked(facts: Facts, node: NodeFacts) -> str:
    """A replica that copies nothing protects nothing; the cluster itself does not call it failed."""
    master = facts.node_by_id(node.master_id)
    of_whom = f"its master {master.name}" if master else "its master"
    if node.sync_in_progress:
        return f"{node.name} is still copying the data of {of_whom}: until it is done, its shard is less protected"
    return f"{node.name} has no link to {of_whom}: its shard is less protected; its log says why"


def _with_open_slots(facts: Facts) -> list[NodeFacts]:
    return [
        node for node in facts.reachable_nodes() if node.myself and (node.myself.migrating or node.myself.importing)
    ]


def _refuse_silent(facts: Facts, members: tuple[PeerView, ...]) -> list[str]:
    """The members that are dead by the cluster's own word and own nothing; all others must answer."""
    dead: list[str] = []
    missing: list[str] = []
    for peer in members:
        where = f"{peer.address}:{peer.port}"
        if facts.nodes[where].reachable:
            continue
        (dead if peer.is_failed and not peer.slots else missing).append(where)
    if missing:
        raise NodeError(
            f"{len(missing)} of {len(members)} nodes of the cluster cannot be asked",
            where=", ".join(missing[:8]),
            why="\n".join(f"{where}: {facts.nodes[where].problem}" for where in missing[:8]),
            next_step="the addresses are those that the nodes announce to each other (cluster-announce-ip): run this "
            "where they can be reached, with a password and a CA that all nodes accept; bring back nodes that are down",
        )
    return dead


def _refuse_half_formed(topology: Topology, facts: Facts) -> None:
    missing = unclaimed_slots(facts)
    closed = {name: _without_open_slots(node) for name, node in facts.nodes.items()}
    seen = replace(facts, nodes=closed)
    reasons = (*gates.all_met(topology, seen), *(() if missing else gates.agreed(topology, seen)))
    if missing:
        reasons = (f"slots without an owner: {describe(missing)}", *reasons)
    if reasons:
        raise RefusedError(
            "the cluster is half formed, or about to change",
            where=topology.name,
            why="\n".join(reasons[:8]),
            next_step="wait until redis-cli --cluster check finds nothing; what was begun is finished by what began it "
            "(`redisforge init-cluster` finishes a formation)",
        )


def _without_open_slots(node: NodeFacts) -> NodeFacts:
    return replace(node, peers=tuple(replace(peer, migrating=(), importing=()) for peer in node.peers))
