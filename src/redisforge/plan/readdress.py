"""A host has another address than before: its nodes are the same, and are told where they are.

A node is known by its id, which lies in its nodes.conf and in everybody's CLUSTER NODES; the address is news. One that
was stopped meanwhile starts with the new address and calls on the others, who then note it (cluster_legacy.c,
nodeUpdateAddressIfNeeded). One that still runs listens at the old address, or nowhere: it restarts, one at a time. Its
keeper has a replica take over first, if it can be asked. Where both ends of a link have moved, nobody finds anybody:
then plan/joining.py introduces them again (MEET to a node that is known under its id updates its address).
"""

from __future__ import annotations

from redisforge.model.facts import Facts, PeerView, UnitState
from redisforge.model.steps import Gate, Phase, RestartUnit
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.plan.starting import Wishes

_DEADLINE_S = 90.0


def readdress(topology: Topology, facts: Facts, wishes: Wishes) -> Phase | None:
    """Restart the next node that listens where its host is no more; None if there is none. Replicas go first."""
    moved = {node.name: view for node in topology.own_nodes if (view := moved_view(facts, node, wishes))}
    if not moved:
        return None
    name = min(moved, key=lambda name: (moved[name].role is Role.MASTER, name))
    node, others = topology.node(name), tuple(sorted(moved.keys() - {name}))
    known_at = f"{moved[name].address}:{moved[name].port}" if moved[name].port else "an address that nobody knows"
    step = RestartUnit(
        unit=name,
        why=f"node {moved[name].id[:8]} is known at {known_at}, and its host is at {node.address}:{node.port} now",
    )
    # While others that have moved own slots, nobody counts the cluster as whole.
    serving = any(moved[other].slots for other in others)
    gate = Gate("nodes_answer" if serving else "settled", _DEADLINE_S, without=others)
    return Phase(title=f"bring {name} to its new address", steps=(step,), gate=gate)


def moved_view(facts: Facts, node: RedisNode, wishes: Wishes) -> PeerView | None:
    """How the others know a running node that is not where it is declared; None for all others.

    Its process was started with another configuration, it does not answer at the declared address, and the node with
    the id in its nodes.conf is known under another one.
    """
    unit = facts.units.get(node.name)
    if facts.nodes[node.name].reachable or unit is None or unit.state is not UnitState.RUNNING:
        return None
    if unit.config_hash in ("", wishes.config_hashes.get(node.name, unit.config_hash)) or not unit.node_id:
        return None
    views = (peer for other in facts.reachable_nodes() for peer in other.peers if peer.id == unit.node_id)
    return next((peer for peer in views if (peer.address, peer.port) != (node.address, node.port)), None)
