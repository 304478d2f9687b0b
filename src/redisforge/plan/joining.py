"""Nodes come to know each other, each other's slots, and to be known to proxies.

MEET twice, because the first packets between two nodes introduce them and are not read further; only a later one
carries slots and replication offset, and left alone that takes up to half of the node timeout. A MEET to a node
that knows the sender is such a packet. (cluster_legacy.c, clusterProcessPacket; measured in facts of formation.)
"""

from __future__ import annotations

from redisforge.model.facts import Facts
from redisforge.model.slots import merge, subtract
from redisforge.model.steps import Forget, Gate, Meet, Phase
from redisforge.model.topology import Role, Topology
from redisforge.plan import gates
from redisforge.plan.view import connected_ids, declared_at, known_ids, owned_slots, replicas_of, strangers

_MEET_DEADLINE_S = 75.0
"""A node that was forgotten is not let in again for 60 s (cluster_legacy.c, CLUSTER_BLACKLIST_TTL)."""
MEET_ALL_PAIRS_UP_TO = 16
"""Up to this many nodes everybody is introduced to everybody (fastest); above, one node introduces all."""


def introduce(topology: Topology, facts: Facts) -> Phase | None:
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
    return Phase(title="introduce the nodes", steps=steps, gate=Gate("all_met", _MEET_DEADLINE_S + len(reachable) / 10))


def tell_slots(topology: Topology, facts: Facts) -> Phase | None:
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


def announce(topology: Topology, facts: Facts) -> Phase | None:
    """Let nodes greet those that do not name them to proxies yet."""
    steps = tuple(
        Meet(node=other.name, other=node.name, why=f"{node.name} does not tell proxies of it yet")
        for node, other in gates.untold(facts)
    )
    return Phase(title="announce the replicas", steps=steps, gate=Gate("told", 20.0)) if steps else None


def forget_dead(topology: Topology, facts: Facts) -> Phase | None:
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
