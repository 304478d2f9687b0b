"""What the facts become when a phase succeeds: the pure model of a cluster behind --dry-run and the plan tests.

It models what formation depends on (who runs, who knows whom, who owns what, who replicates whom), no timing.
"""

from __future__ import annotations

import msgspec

from redisforge.model.facts import EndpointFacts, EnvoyFacts, Facts, NodeFacts, PeerView, UnitFacts, UnitState
from redisforge.model.slots import merge
from redisforge.model.steps import (
    AssignSlots,
    Forget,
    Meet,
    Phase,
    Plan,
    Promote,
    Replicate,
    RestartUnit,
    SetConfigEpoch,
    StartUnit,
    Step,
    StopUnit,
)
from redisforge.model.topology import Topology
from redisforge.plan.bring_up import Wishes, next_phase

_replace = msgspec.structs.replace
_PHASE_LIMIT = 400


def predict_plan(topology: Topology, facts: Facts, wishes: Wishes) -> Plan:
    """All phases that `up` would go through if every step succeeded.

    Raises:
        RefusedError: as `next_phase`.
        RuntimeError: the plan does not converge (a defect in the planner).
    """
    phases: list[Phase] = []
    while phase := next_phase(topology, facts, wishes):
        phases.append(phase)
        if len(phases) > _PHASE_LIMIT:
            raise RuntimeError(f"the plan does not end: {phase.title}")
        facts = settle(topology, apply(topology, facts, phase.steps, wishes))
    return Plan(tuple(phases))


def apply(topology: Topology, facts: Facts, steps: tuple[Step, ...], wishes: Wishes) -> Facts:
    """The facts right after `steps` were carried out, before gossip spread the news."""
    for step in steps:
        facts = _apply_one(topology, facts, step, wishes)
    return facts


def _apply_one(topology: Topology, facts: Facts, step: Step, wishes: Wishes) -> Facts:
    if isinstance(step, StartUnit | RestartUnit):
        return _started(topology, facts, step.unit, wishes)
    if isinstance(step, StopUnit):
        return _with_unit(facts, UnitFacts(name=step.unit, state=UnitState.STOPPED))
    node = facts.nodes[step.node]
    if isinstance(step, SetConfigEpoch):
        return _with_node(facts, _replace(node, current_epoch=step.epoch))
    if isinstance(step, AssignSlots):
        return _with_node(facts, _own(node, slots=merge((*node.slots, *step.slots))))
    if isinstance(step, Meet):
        return _joined(facts, node, facts.nodes[step.other])
    if isinstance(step, Replicate):
        master = facts.nodes[step.master]
        return _with_node(facts, _own(node, flags=("myself", "slave"), master_id=master.id))
    if isinstance(step, Promote):
        return _promote(facts, node)
    return _forgotten(facts, node, step)


def _forgotten(facts: Facts, node: NodeFacts, step: Forget) -> Facts:
    left = tuple(peer for peer in node.peers if peer.id != step.node_id)
    return _with_node(facts, _replace(node, peers=left))


def _started(topology: Topology, facts: Facts, name: str, wishes: Wishes) -> Facts:
    unit = UnitFacts(
        name=name,
        state=UnitState.RUNNING,
        config_hash=wishes.config_hashes.get(name, ""),
        has_cluster_config=True,
    )
    facts = _with_unit(facts, unit)
    if name not in facts.nodes:
        hosts = tuple((node.address, node.port) for node in topology.nodes)
        return _replace(facts, envoys={**facts.envoys, name: EnvoyFacts(name=name, hosts=hosts)})
    node = facts.nodes[name]
    if node.reachable:
        return facts
    declared = topology.node(name)
    myself = PeerView(id=f"new-{name}", address=declared.address, port=declared.port, flags=("myself", "master"))
    born = NodeFacts(
        name=name,
        address=declared.address,
        port=declared.port,
        id=myself.id,
        peers=(myself,),
        cluster_state="fail",
    )
    return _with_node(facts, born)


def _promote(facts: Facts, replica: NodeFacts) -> Facts:
    """The replica takes its master's slots; a living master becomes its replica."""
    old = next((peer for peer in replica.peers if peer.id == replica.master_id), None)
    slots = old.slots if old else ()
    new_epoch = max((node.current_epoch for node in facts.reachable_nodes()), default=0) + 1
    took = _own(replica, flags=("myself", "master"), master_id="", slots=slots, config_epoch=new_epoch)
    nodes: dict[str, NodeFacts] = {}
    for name, node in facts.nodes.items():
        if node.name == replica.name:
            nodes[name] = took
        elif node.reachable and node.id == replica.master_id:
            nodes[name] = _own(node, flags=("myself", "slave"), master_id=replica.id, slots=())
        elif node.reachable:
            peers = tuple(_replace(p, slots=()) if old and p.id == old.id else p for p in node.peers)
            nodes[name] = _replace(node, peers=peers)
        else:
            nodes[name] = node
    return _replace(facts, nodes=nodes)


def settle(topology: Topology, facts: Facts) -> Facts:
    """Let gossip spread: acquainted nodes come to know each other and agree, links come up, Envoys follow."""
    groups = _components(facts)
    nodes = dict(facts.nodes)
    for group in groups:
        own = {node.id: _replace(node.myself, flags=_others(node.myself.flags)) for node in group if node.myself}
        dead = {p.id: p for node in group for p in node.peers if p.id not in own}
        covered = sum(r.slot_count for view in (*own.values(), *dead.values()) for r in view.slots) == 16384
        for node in group:
            peers = tuple(
                _replace(view, flags=("myself", *view.flags)) if peer_id == node.id else view
                for peer_id, view in {**dead, **own}.items()
            )
            nodes[node.name] = _replace(
                node,
                peers=peers,
                cluster_state="ok" if covered else "fail",
                master_link_up=bool(node.master_id),
                replication_offset=node.replication_offset or int(bool(node.master_id)),
            )
    endpoints = tuple(
        EndpointFacts(
            name=endpoint.name, envoy=listener.envoy, address=listener.address, port=listener.port,
            protocol=endpoint.protocol, user=endpoint.user,
        )
        for endpoint in topology.endpoints
        for listener in endpoint.listeners
    )  # fmt: skip
    return _replace(facts, nodes=nodes, endpoints=endpoints)


def _components(facts: Facts) -> list[list[NodeFacts]]:
    """Groups of reachable nodes that are connected by acquaintance."""
    by_id = {node.id: node for node in facts.reachable_nodes()}
    links: dict[str, set[str]] = {node_id: set() for node_id in by_id}
    for node in by_id.values():
        for peer in node.peers:
            if peer.id in by_id:
                links[node.id].add(peer.id)
                links[peer.id].add(node.id)
    groups: list[list[NodeFacts]] = []
    left = dict(by_id)
    while left:
        todo = [next(iter(left))]
        group: list[NodeFacts] = []
        while todo:
            node = left.pop(todo.pop(), None)
            if node:
                group.append(node)
                todo.extend(links[node.id])
        groups.append(group)
    return groups


def _others(flags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(flag for flag in flags if flag != "myself")


def _joined(facts: Facts, first: NodeFacts, second: NodeFacts) -> Facts:
    def introduce(node: NodeFacts, other: NodeFacts) -> NodeFacts:
        if any(peer.id == other.id for peer in node.peers) or other.myself is None:
            return node
        view = _replace(other.myself, flags=_others(other.myself.flags))
        return _replace(node, peers=(*node.peers, view))

    return _with_node(_with_node(facts, introduce(first, second)), introduce(second, first))


def _own(node: NodeFacts, **changes: object) -> NodeFacts:
    """The node with its own line of CLUSTER NODES changed."""
    peers = tuple(_replace(peer, **changes) if "myself" in peer.flags else peer for peer in node.peers)
    return _replace(node, peers=peers)


def _with_node(facts: Facts, node: NodeFacts) -> Facts:
    return _replace(facts, nodes={**facts.nodes, node.name: node})


def _with_unit(facts: Facts, unit: UnitFacts) -> Facts:
    return _replace(facts, units={**facts.units, unit.name: unit})
