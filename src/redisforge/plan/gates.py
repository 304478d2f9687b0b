"""The conditions between phases. A gate answers with the reasons why it does not hold yet; none: it holds."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from redisforge.model.facts import Facts, NodeFacts, UnitState
from redisforge.model.slots import SlotRange, describe, merge, subtract
from redisforge.model.steps import Gate, Phase
from redisforge.model.topology import Role, Topology
from redisforge.plan.handover import electable
from redisforge.plan.view import ALL_SLOTS, connected_ids, unclaimed_slots

Reasons = tuple[str, ...]
"""Why a gate does not hold; empty: it holds."""


def nodes_answer(topology: Topology, facts: Facts) -> Reasons:
    """Every node that runs answers, and every Envoy's admin port does.

    Nodes without a Unit of ours (init-cluster) must answer too; one that its guard holds back cannot, and of those on a
    host that cannot be reached nobody knows whether they run.
    """
    reasons: list[str] = []
    silent = (UnitState.ABSENT, UnitState.STOPPED, UnitState.HELD, UnitState.UNKNOWN)
    for node in topology.nodes:
        seen, unit = facts.nodes[node.name], facts.units.get(node.name)
        ours = node.managed and bool(facts.units)
        if not seen.reachable and not (ours and (unit is None or unit.state in silent)):
            reasons.append(f"{node.name} ({node.address}:{node.port}): {seen.problem}")
    for envoy in topology.envoys:
        seen_envoy, unit = facts.envoys.get(envoy.name), facts.units.get(envoy.name)
        if unit is None or unit.state in silent:
            continue
        if seen_envoy and seen_envoy.problem and not seen_envoy.version:  # with a version it answered
            reasons.append(f"{envoy.name}: {seen_envoy.problem}")
    return tuple(reasons)


def slots_assigned(topology: Topology, facts: Facts) -> Reasons:
    """Every slot has an owner in somebody's view."""
    missing = unclaimed_slots(facts)
    return (f"slots without an owner: {describe(missing)}",) if missing else ()


def all_met(topology: Topology, facts: Facts) -> Reasons:
    """Every reachable node knows every other by its real id and is connected to it."""
    nodes = facts.reachable_nodes()
    reasons: list[str] = []
    for node in nodes:
        connected = connected_ids(node)
        unknown = sorted(other.name for other in nodes if other.id not in connected)
        if unknown:
            reasons.append(f"{node.name} does not know {', '.join(unknown)} yet")
    return tuple(reasons)


def slots_seen(topology: Topology, facts: Facts) -> Reasons:
    """Every reachable node sees an owner for each of the 16384 slots."""
    reasons: list[str] = []
    for node in facts.reachable_nodes():
        missing = subtract(ALL_SLOTS, merge(r for ranges in _owners(node).values() for r in ranges))
        if missing:
            reasons.append(f"{node.name} sees no owner for slots {describe(missing)}")
    return tuple(reasons)


def told(topology: Topology, facts: Facts) -> Reasons:
    """Every reachable node that was asked names every other in CLUSTER SLOTS, so that Envoy learns of all."""
    return tuple(f"{node.name} does not tell proxies of {other.name} yet" for node, other in untold(facts))


def untold(facts: Facts) -> tuple[tuple[NodeFacts, NodeFacts], ...]:
    """(node, other) for each node in the cluster that another one does not name in CLUSTER SLOTS, and could: a master
    without slots, and its replicas, are in nobody's answer."""
    nodes = facts.reachable_nodes()
    idle = {node.id for node in nodes if node.role is Role.MASTER and not node.slots}
    return tuple(
        (node, other)
        for node in nodes
        if node.listed is not None
        for other in nodes
        if (other.slots or (other.master_link_up and other.master_id not in idle)) and other.id not in node.listed
    )


def agreed(topology: Topology, facts: Facts) -> Reasons:
    """All nodes hold the cluster to be ok and see the same living owner for each of the 16384 slots, none open.

    A master that returns to its slots counts as failed until two node timeouts after it was found to have failed
    (cluster_legacy.c, clearNodeFailureIfNeeded): so long the others do not count its slots as ok.
    """
    reasons = list(slots_seen(topology, facts))
    living = {node.id: node.name for node in facts.reachable_nodes()}
    owners: dict[str, tuple[SlotRange, ...]] | None = None
    for node in facts.reachable_nodes():
        view = _owners(node)
        if node.cluster_state != "ok":
            reasons.append(f"{node.name} reports cluster_state:{node.cluster_state}")
        if owners is not None and view != owners:
            reasons.append(f"{node.name} sees other slot owners than the nodes before it")
        owners = owners or view
        failed = (living[peer.id] for peer in node.peers if peer.is_failed and peer.slots and peer.id in living)
        reasons.extend(f"{node.name} still counts {name} as failed" for name in failed)
        myself = node.myself
        if myself and (myself.migrating or myself.importing):
            slots = sorted(slot for slot, _ in (*myself.migrating, *myself.importing))
            reasons.append(f"{node.name} has open slots: {', '.join(map(str, slots[:8]))}")
    return tuple(reasons)


def in_sync(topology: Topology, facts: Facts) -> Reasons:
    """`settled`, and no master is without slots: the cluster is whole."""
    idle = (f"{node.name} is a master without slots" for node in facts.reachable_nodes() if _is_idle(node))
    return (*settled(topology, facts), *idle)


def settled(topology: Topology, facts: Facts) -> Reasons:
    """Every node answers and knows every other, all agree on the slots, and every replica is in sync: the state in
    which a change may begin. Masters that have no slots yet are allowed."""
    reasons = (*nodes_answer(topology, facts), *all_met(topology, facts), *agreed(topology, facts))
    return (*reasons, *linked(topology, facts))


def attached(topology: Topology, facts: Facts) -> Reasons:
    """Every reachable node is a master with slots, or a replica whose link is up and that has received something."""
    idle = (f"{node.name} is a master without slots" for node in facts.reachable_nodes() if _is_idle(node))
    return (*idle, *linked(topology, facts))


def linked(topology: Topology, facts: Facts) -> Reasons:
    """Every reachable replica has its link up and has received something."""
    reasons: list[str] = []
    for node in facts.reachable_nodes():
        if node.role is Role.REPLICA and not node.master_link_up:
            reasons.append(f"{node.name} has no link to its master{' (first copy)' * node.sync_in_progress}")
        elif node.role is Role.REPLICA and not node.replication_offset:
            reasons.append(f"{node.name} has not heard from its master yet")
    return tuple(reasons)


def _is_idle(node: NodeFacts) -> bool:
    return node.role is Role.MASTER and not node.slots


def promoted(topology: Topology, facts: Facts) -> Reasons:
    """Every slot belongs to a reachable master, in its own view."""
    owned = merge(r for node in facts.reachable_nodes() if node.role is Role.MASTER for r in node.slots)
    missing = subtract(ALL_SLOTS, owned)
    return (f"no reachable master owns slots {describe(missing)}",) if missing else ()


def took_over(topology: Topology, facts: Facts, name: str) -> Reasons:
    """The node is a master with slots. What else may be wrong with the cluster is not this takeover's to wait for."""
    node = facts.nodes[name]
    if not node.reachable:
        return (f"{name}: {node.problem}",)
    return () if node.role is Role.MASTER and node.slots else (f"{name} has not taken over yet",)


def endpoints_serve(topology: Topology, facts: Facts) -> Reasons:
    """Every endpoint answers at every Envoy, and every Envoy sends to exactly the nodes of the cluster."""
    reasons = [f"{e.name} at {e.address}:{e.port}: {e.problem}" for e in facts.endpoints if e.problem]
    probed = {(e.name, e.envoy) for e in facts.endpoints}
    for endpoint in topology.endpoints:
        for listener in endpoint.listeners:
            if (endpoint.name, listener.envoy) not in probed:
                reasons.append(f"{endpoint.name} at {listener.address}:{listener.port} was not probed")
    reasons.extend(stale_envoys(topology, facts))
    return tuple(reasons)


def stale_envoys(topology: Topology, facts: Facts) -> Reasons:
    """Envoys that do not send to exactly the nodes that the cluster tells proxies of."""
    expected = told_of(facts)
    members = {(node.address, node.port): node for node in facts.nodes.values()}
    reasons: list[str] = []
    for envoy in facts.envoys.values():
        hosts = set(envoy.hosts)
        if envoy.problem:
            reasons.append(f"{envoy.name}: {envoy.problem}")
        elif missing := expected - hosts:
            reasons.append(f"{envoy.name} does not send to {_listed(missing)}")
        elif extra := {host for host in hosts - expected if host not in members or members[host].reachable}:
            reasons.append(f"{envoy.name} still sends to {_listed(extra)}")
    return tuple(reasons)


def told_of(facts: Facts) -> set[tuple[str, int]]:
    """What CLUSTER SLOTS lists: masters with slots, and their replicas that have received something and have not been
    forgotten by the masters. Of those only the ones that answer."""
    nodes = facts.reachable_nodes()
    owners = {peer.id for node in nodes for peer in node.peers if peer.slots}
    masters = [node for node in nodes if node.id in owners] or nodes
    known = {peer.id for node in masters for peer in node.peers}
    return {
        (node.address, node.port)
        for node in nodes
        if node.id in owners or (node.master_id in owners and node.replication_offset and node.id in known)
    }


def _listed(hosts: set[tuple[str, int]]) -> str:
    return ", ".join(f"{address}:{port}" for address, port in sorted(hosts))


def unread(topology: Topology, facts: Facts, node_name: str) -> Reasons:
    """No Envoy sends reads to the node any more: it may stop without a reader's noticing."""
    node = facts.nodes[node_name]
    host = (node.address, node.port)
    return tuple(
        f"{envoy.name} still sends reads to {node_name}"
        for envoy in facts.envoys.values()
        if not envoy.problem and host in envoy.hosts and host not in envoy.unhealthy
    )


def read_again(topology: Topology, facts: Facts, node_name: str) -> Reasons:
    """Every Envoy sends reads to the node (again)."""
    node = facts.nodes[node_name]
    host = (node.address, node.port)
    return tuple(
        f"{envoy.name} does not send reads to {node_name} yet"
        for envoy in facts.envoys.values()
        if not envoy.problem and (host not in envoy.hosts or host in envoy.unhealthy)
    )


def forgotten(topology: Topology, facts: Facts) -> Reasons:
    """No node lists an id that is none of ours."""
    own = {node.id for node in facts.reachable_nodes()}
    return tuple(
        f"{node.name} still lists {peer.id[:8]}"
        for node in facts.reachable_nodes()
        for peer in node.peers
        if peer.id not in own and not peer.in_handshake
    )


GATES: dict[str, Callable[[Topology, Facts], Reasons]] = {
    "nodes_answer": nodes_answer,
    "slots_assigned": slots_assigned,
    "all_met": all_met,
    "slots_seen": slots_seen,
    "told": told,
    "agreed": agreed,
    "attached": attached,
    "linked": linked,
    "settled": settled,
    "in_sync": in_sync,
    "promoted": promoted,
    "forgotten": forgotten,
    "endpoints_serve": endpoints_serve,
}
_OF_ONE_NODE: dict[str, Callable[[Topology, Facts, str], Reasons]] = {
    "unread": unread,
    "read_again": read_again,
    "electable": electable,
    "took_over": took_over,
}


def reasons_against(gate: Gate, topology: Topology, facts: Facts) -> Reasons:
    """Why `gate` does not hold; empty: it holds. Raises KeyError for a name that GATES does not have."""
    if gate.envoy:
        topology, facts = _at_envoys(topology, facts, frozenset({gate.envoy}))
    if gate.without:
        topology, facts = leave_out(topology, facts, frozenset(gate.without))
    if gate.name in _OF_ONE_NODE:
        return _OF_ONE_NODE[gate.name](topology, facts, gate.node)
    return GATES[gate.name](topology, facts)


def but_for(names: frozenset[str], phase: Phase) -> Phase:
    """The phase with a gate that does not ask about these nodes and Envoys: they may be gone already."""
    return replace(phase, gate=replace(phase.gate, without=tuple(sorted({*names, *phase.gate.without}))))


def leave_out(topology: Topology, facts: Facts, names: frozenset[str]) -> tuple[Topology, Facts]:
    """Both as if the nodes and Envoys called `names` were not there; others may still list the nodes, those that are
    silent or have been reset too: under an id that only their address tells."""
    left_out = [facts.nodes[name] for name in names if name in facts.nodes]
    ids = {node.id for node in left_out}
    places = {(node.address, node.port) for node in left_out}
    nodes = {
        name: replace(
            node,
            peers=tuple(p for p in node.peers if p.id not in ids and (p.address, p.port) not in places),
        )
        for name, node in facts.nodes.items()
        if name not in names
    }
    units = {name: unit for name, unit in facts.units.items() if name not in names}
    left = tuple(node for node in topology.nodes if node.name not in names)
    topology, facts = replace(topology, nodes=left), replace(facts, nodes=nodes, units=units)
    envoys = frozenset(envoy.name for envoy in topology.envoys)
    return _at_envoys(topology, facts, envoys - names) if envoys & names else (topology, facts)


def _at_envoys(topology: Topology, facts: Facts, names: frozenset[str]) -> tuple[Topology, Facts]:
    """Both as if these were the only Envoys."""
    endpoints = tuple(
        replace(endpoint, listeners=tuple(door for door in endpoint.listeners if door.envoy in names))
        for endpoint in topology.endpoints
    )
    left = tuple(envoy for envoy in topology.envoys if envoy.name in names)
    probed = tuple(endpoint for endpoint in facts.endpoints if endpoint.envoy in names)
    envoys = {name: envoy for name, envoy in facts.envoys.items() if name in names}
    return replace(topology, endpoints=endpoints, envoys=left), replace(facts, endpoints=probed, envoys=envoys)


def _owners(node: NodeFacts) -> dict[str, tuple[SlotRange, ...]]:
    return {peer.id: merge(peer.slots) for peer in node.peers if peer.slots}
