"""A node that some have forgotten comes back under a new identity.

CLUSTER FORGET bans an id for 60 s, and since Redis 7.0 whoever has the ban tells everybody else, who then deletes the
node too (cluster_legacy.c, CLUSTERMSG_EXT_TYPE_FORGOTTEN_NODE). So a node that a removal which was cut off has begun to
forget can be met again, and everybody seems to know it; a moment later it is deleted, with the slots that it got
meanwhile: nobody is sent to them until the ban ends. Another id is not banned: the node is forgotten by all, and reset.
"""

from __future__ import annotations

from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.steps import Forget, Gate, Phase, Reset
from redisforge.model.topology import Role, Topology
from redisforge.plan.ready import refuse_reads, takes_reads
from redisforge.plan.view import known_ids, newest_owners

_WHY = "some have forgotten it: it comes back under another id"


def renew(topology: Topology, facts: Facts) -> Phase | None:
    """The next phase on the way of half-forgotten nodes to new identities; None if there are none."""
    nodes = _half_forgotten(facts)
    names = ", ".join(node.name for node in nodes)
    for node in nodes:
        if node.role is Role.REPLICA and node.master_link_up and takes_reads(topology, facts, node):
            return refuse_reads(node.name, "it is about to get another id")
    ids = {node.id for node in nodes}
    forget = tuple(
        Forget(node=other.name, node_id=node.id, why=_WHY)
        for other in facts.reachable_nodes()
        if other.id not in ids
        for node in nodes
        if node.id in known_ids(other)
    )
    if forget:
        return Phase(title=f"forget {names}", steps=forget, gate=Gate("nodes_answer", 30.0))
    reset = tuple(Reset(node=node.name, why=_WHY) for node in nodes)
    return Phase(title=f"give {names} another id", steps=reset, gate=Gate("nodes_answer", 30.0)) if reset else None


def _half_forgotten(facts: Facts) -> tuple[NodeFacts, ...]:
    """Nodes without slots that know every owner of slots, and a member that does not know them; and the replicas of
    such a master. Members are owners and their replicas: who has just come knows nobody yet, and has forgotten nobody.
    One that holds a copy of a master which does not answer stays as it is."""
    owners = {owner.id for owner in newest_owners(facts)}
    reachable = facts.reachable_nodes()
    members = [node for node in reachable if node.id in owners or (node.master_link_up and node.master_id in owners)]
    claimed = {peer.id for node in reachable for peer in node.peers if peer.slots}
    found: dict[str, NodeFacts] = {}
    for node in reachable:
        known = known_ids(node)
        is_safe = facts.node_by_id(node.master_id) is not None or node.master_id not in claimed
        forgot = any(other.id in known and node.id not in known_ids(other) for other in members)
        if not node.slots and is_safe and forgot and owners <= known:
            found[node.id] = node
    followers = {node.id: node for node in reachable if node.master_id in found and not node.slots}
    return tuple({**found, **followers}.values())
