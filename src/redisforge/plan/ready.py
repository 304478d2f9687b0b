"""What every change under load asks for first: a cluster that serves everything and is in sync."""

from __future__ import annotations

from redisforge.errors import NodeError, RefusedError
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.slots import SlotRange, count, describe, merge, subtract
from redisforge.model.steps import AllowReads, Gate, MendSlots, Phase, RefuseReads
from redisforge.model.topology import RedisNode, Topology
from redisforge.plan import gates
from redisforge.plan.joining import announce
from redisforge.plan.view import ALL_SLOTS, owned_slots

SETTLE_DEADLINE_S = 60.0
_TAKEOVER_S = 5.0
"""What an election takes after the node timeout, and some more."""


_NOBODY: frozenset[str] = frozenset()


def whole_first(
    topology: Topology,
    facts: Facts,
    without: frozenset[str] = _NOBODY,
    without_envoys: frozenset[str] = _NOBODY,
    *,
    starts: frozenset[str] = _NOBODY,
) -> Phase | None:
    """A phase that waits until the cluster is in order; None if it is. `without` and `without_envoys` need not be;
    the nodes in `starts` may be dead with their slots, as a run that was killed left them: the verb starts them.

    Raises:
        RefusedError: slots have no living owner: no change can help that, and waiting is no use.
    """
    if opened := [node.name for node in facts.reachable_nodes() if _has_open_slots(node)]:
        step = MendSlots(node=opened[0], why="an interrupted move left them; what they hold is kept")
        return Phase(title="close the slots that were left open", steps=(step,), gate=Gate("agreed", 60.0))
    gate = Gate("settled", SETTLE_DEADLINE_S, without=tuple(sorted(without | without_envoys)))
    is_settled = not gates.reasons_against(gate, topology, facts)
    missing = subtract(ALL_SLOTS, owned_slots(facts))
    if not is_settled and (silent := _silent_owners(topology, facts, missing)):
        seconds = topology.redis.node_timeout_ms / 1000 + _TAKEOVER_S
        title = f"wait for {', '.join(silent)}: no answer, and the other nodes do not count it as failed"
        return Phase(title=title, steps=(), gate=Gate("promoted", seconds))
    if missing and not (is_settled and (without or _are_owned_by(missing, topology, facts, starts))):
        # Nodes agree on the owner of slots that nobody serves too: it is dead, and they know it.
        raise RefusedError(
            "the cluster does not serve all slots",
            where=f"{topology.name}: {count(missing)} slots: {describe(missing)}",
            why="no reachable master owns them",
            next_step="`redisforge up` starts what does not run; `redisforge failover NODE --force` lets a replica "
            "of a dead master take over",
        )
    if not is_settled:
        return Phase(title="wait until the cluster is in order", steps=(), gate=gate)
    # Nodes that leave are served from until they are forgotten.
    gate = Gate("endpoints_serve", 15.0, without=tuple(sorted(without_envoys)))
    if gates.reasons_against(gate, topology, facts):
        return Phase(title="wait until every endpoint serves every shard", steps=(), gate=gate)
    return None


def refuse_silent(topology: Topology, facts: Facts) -> None:
    """A cluster of which no node answers is not changed: it would be waited for in vain, `up` alone starts nodes.

    For the first facts of a verb. On its way all nodes may be silent for a moment, and that is waited for.

    Raises:
        NodeError: with what the nodes say.
    """
    silent = silent_nodes(topology, facts)
    if facts.reachable_nodes() or not silent:
        return
    raise NodeError(
        "no node of the cluster answers",
        where=topology.name,
        why="; ".join(f"{node.name}: {facts.nodes[node.name].problem}" for node in silent[:3]),
        next_step="start the nodes by what runs them"
        if topology.access
        else "`redisforge up` starts what does not run",
    )


def silent_nodes(topology: Topology, facts: Facts) -> tuple[RedisNode, ...]:
    """The nodes that do not answer, but for those of which nothing has been placed yet."""
    started = (node for node in topology.nodes if node.name in facts.units or not node.managed)
    return tuple(node for node in started if not facts.nodes[node.name].reachable)


def _silent_owners(topology: Topology, facts: Facts, missing: tuple[SlotRange, ...]) -> tuple[str, ...]:
    """The names of those who own the slots that no reachable master owns, if the others count all of them as alive:
    a server that does one long thing answers nobody meanwhile. Within the node timeout it is back, or has failed."""
    peers = [peer for node in facts.reachable_nodes() for peer in node.peers if facts.node_by_id(peer.id) is None]
    failed = {peer.id for peer in peers if peer.is_failed}
    alive = [peer for peer in peers if peer.id not in failed and subtract(missing, peer.slots) != missing]
    if not missing or subtract(missing, merge(r for peer in alive for r in peer.slots)):
        return ()
    names = {(node.address, node.port): node.name for node in topology.nodes}
    return tuple(sorted({names.get((p.address, p.port), f"{p.address}:{p.port}") for p in alive}))


def _are_owned_by(slots: tuple[SlotRange, ...], topology: Topology, facts: Facts, names: frozenset[str]) -> bool:
    """Whether all of these slots belong to the nodes called `names`, in the eyes of the others."""
    places = {(node.address, node.port) for node in topology.nodes if node.name in names}
    peers = (peer for node in facts.reachable_nodes() for peer in node.peers if (peer.address, peer.port) in places)
    return not subtract(slots, merge(r for peer in peers for r in peer.slots))


def _has_open_slots(node: NodeFacts) -> bool:
    return node.myself is not None and bool(node.myself.migrating or node.myself.importing)


def left_unread(topology: Topology, facts: Facts, but: frozenset[str] = frozenset()) -> Phase | None:
    """Give reads back to replicas in sync that get none, but for those in `but`: they were taken out of the reader
    endpoints for a restart or for another master, perhaps by a verb that was cut off. Such a replica may have been
    elected since: a master without replicas is read too."""
    for node in facts.reachable_nodes():
        serves = node.master_link_up or bool(node.slots)
        if not serves or node.name in but or not refuses_reads(facts, node):
            continue
        # While a node does not tell proxies of it, Envoy may hear that it is gone, and fail reads on their way to it.
        if phase := announce(topology, facts):
            return phase
        step = AllowReads(node=node.name, why="it is in sync" if node.master_link_up else "it is a master now")
        gate = Gate("read_again", 15.0, node=node.name)
        return Phase(title=f"let {node.name} serve reads again", steps=(step,), gate=gate)
    return None


def refuse_reads(node_name: str, why: str) -> Phase:
    """Take a node out of the reader endpoints."""
    gate = Gate("unread", 15.0, node=node_name)
    return Phase(
        title=f"take {node_name} out of the reader endpoints", steps=(RefuseReads(node=node_name, why=why),), gate=gate
    )


def refuses_reads(facts: Facts, node: NodeFacts) -> bool:
    """Whether Envoys send this node no reads, although it lives, or will not as soon as they look."""
    host = (node.address, node.port)
    seen = any(host in envoy.hosts and host in envoy.unhealthy for envoy in facts.envoys.values())
    return seen or bool(node.refuses_reads)


def takes_reads(topology: Topology, facts: Facts, node: NodeFacts) -> bool:
    """Whether an Envoy sends reads to this node, or will as soon as it looks: then it is taken out of the reader
    endpoints before it stops. A verb that was cut off may have let it serve reads again a moment ago."""
    reads = any(endpoint.prefer_replicas for endpoint in topology.endpoints)
    soon = node.master_link_up and node.refuses_reads is False  # one out of sync serves nothing new
    return reads and (soon or bool(gates.unread(topology, facts, node.name)))
