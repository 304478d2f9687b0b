"""What the facts become when a phase succeeds: the pure model of a cluster behind --dry-run and the plan tests.

It models what formation depends on (who runs, who knows whom, who owns what, who replicates whom). Of time it knows
that it passes while a phase only waits.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from redisforge.model.facts import EndpointFacts, EnvoyFacts, Facts, NodeFacts, PeerView, UnitFacts, UnitState
from redisforge.model.slots import SLOT_COUNT, SlotRange, merge, subtract
from redisforge.model.steps import (
    AllowReads,
    AssignSlots,
    Forget,
    Gate,
    Meet,
    MendSlots,
    MoveSlots,
    NodeStep,
    NoteApplied,
    Phase,
    Plan,
    Promote,
    RefreshUnit,
    RefuseReads,
    RemoveUnit,
    Replicate,
    Reset,
    RestartUnit,
    SaveSettings,
    SetConfigEpoch,
    SetSettings,
    StartUnit,
    Step,
    StopUnit,
)
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.plan import gates
from redisforge.plan.bring_up import next_phase
from redisforge.plan.handover import pause_left_s
from redisforge.plan.placement import split_slots
from redisforge.plan.starting import Wishes
from redisforge.plan.view import actual_shards, newest_owners, slot_owners

_replace = msgspec.structs.replace
_PHASE_LIMIT = 400
_ROUNDING_S = 0.001
"""Seconds since the epoch, added and subtracted, are no more exact than this; and a pause has to be over."""
_RECEIVED_BYTES = 100
"""The offset of a replica that has received something, whatever it is."""
_BLANK_FLAGS = ("myself", "master")


Planner = Callable[[Facts], Phase | None]
"""What to do next, seen from the facts alone; None: nothing is left to do."""


def predict_plan(topology: Topology, facts: Facts, wishes: Wishes) -> Plan:
    """All phases that `up` would go through if every step succeeded.

    Raises:
        RefusedError: as `next_phase`.
        RuntimeError: the plan does not converge (a defect in the planner).
    """
    return predict(topology, facts, wishes, lambda seen: next_phase(topology, seen, wishes))


def predict(topology: Topology, facts: Facts, wishes: Wishes, planner: Planner) -> Plan:
    """All phases that `planner` would go through if every step succeeded.

    Raises:
        RedisForgeError: whatever the planner refuses.
        RuntimeError: the plan does not converge (a defect in the planner).
    """
    return foresee(topology, facts, wishes, planner)[0]


def foresee(topology: Topology, facts: Facts, wishes: Wishes, planner: Planner) -> tuple[Plan, Facts]:
    """The same, and the facts that are then. A phase that waits for what no step of the plan brings about says what
    that is, and is the last one. Raises as `predict`."""
    phases: list[Phase] = []
    # What nodes tell proxies follows from gossip in time, which this model does not have.
    facts = _replace(facts, nodes={name: _replace(node, listed=None) for name, node in facts.nodes.items()})
    while phase := planner(facts):
        phases.append(phase)
        if len(phases) > _PHASE_LIMIT:
            raise RuntimeError(f"the plan does not end: {phase.title}")
        facts = settle(topology, apply(topology, facts, phase.steps, wishes))
        if not phase.steps:
            facts = _replace(facts, observed_at_s=facts.observed_at_s + _wait_s(topology, facts, phase.gate))
            # Where the gate does not hold now, what comes next depends on what silent nodes will say.
            if (reasons := gates.reasons_against(phase.gate, topology, facts)) or planner(facts) == phase:
                phases[-1] = _replace(phase, waits_for=reasons)
                break
    return Plan(tuple(phases)), facts


def _wait_s(topology: Topology, facts: Facts, gate: Gate) -> float:
    """How long a phase without steps lasts: exactly, where its gate is about time, else at most."""
    heir = facts.nodes.get(gate.node)
    master = facts.node_by_id(heir.master_id) if heir else None
    return pause_left_s(topology, facts, master, heir) + _ROUNDING_S if heir and master else gate.deadline_s


def apply(topology: Topology, facts: Facts, steps: tuple[Step, ...], wishes: Wishes) -> Facts:
    """The facts right after `steps` were carried out, before gossip spread the news."""
    for step in steps:
        facts = _apply_one(topology, facts, step, wishes)
    return facts


def _apply_one(topology: Topology, facts: Facts, step: Step, wishes: Wishes) -> Facts:
    if isinstance(step, StartUnit | RestartUnit):
        blank = isinstance(step, StartUnit) and step.permit_blank
        facts = _started(topology, facts, step.unit, wishes, blank=blank)
        return _kept_unread(topology, facts, step.unit) if isinstance(step, RestartUnit) else facts
    if isinstance(step, StopUnit | RemoveUnit):
        return _stopped(facts, step.unit, gone=isinstance(step, RemoveUnit))
    if isinstance(step, RefreshUnit):
        unit = facts.units[step.unit]
        return _with_unit(facts, _replace(unit, placed_hash=wishes.placed_hashes.get(step.unit, "")))
    if isinstance(step, NoteApplied):
        told = _replace(facts.units[step.unit], config_hash=wishes.config_hashes.get(step.unit, ""))
        return _with_unit(facts, _replace(told, applied_at_s=facts.observed_at_s))
    if isinstance(step, MoveSlots):
        return _moved(facts, step)
    return _asked(facts, facts.nodes[step.node], step)


def _asked(facts: Facts, node: NodeFacts, step: NodeStep) -> Facts:
    """What a command to one node changes."""
    if isinstance(step, SetConfigEpoch):
        return _with_node(facts, _replace(_own(node, config_epoch=step.epoch), current_epoch=step.epoch))
    if isinstance(step, AssignSlots):
        return _with_node(facts, _own(node, slots=merge((*node.slots, *step.slots))))
    if isinstance(step, Meet):
        return _joined(facts, node, facts.nodes[step.other])
    if isinstance(step, Replicate):
        master = facts.nodes[step.master]
        return _with_node(facts, _own(node, flags=("myself", "slave"), master_id=master.id))
    if isinstance(step, Promote):
        return _promote(facts, node)
    if isinstance(step, RefuseReads | AllowReads):
        return _with_reads(facts, node, allowed=isinstance(step, AllowReads))
    if isinstance(step, Reset):
        myself = PeerView(id=f"{node.id}'", address=node.address, port=node.port, flags=_BLANK_FLAGS)
        return _with_node(facts, _replace(node, id=myself.id, peers=(myself,), keys=0))
    if isinstance(step, SetSettings | SaveSettings):
        return _with_node(facts, _configured(node, step))
    if isinstance(step, MendSlots):
        return _with_node(facts, _own(node, migrating=(), importing=()))
    return _forgotten(facts, node, step)


def _configured(node: NodeFacts, step: SetSettings | SaveSettings) -> NodeFacts:
    if isinstance(step, SaveSettings):
        return _replace(node, saved="")
    return _replace(node, settings={**(node.settings or {}), **dict(step.settings)}, was_told=True)


def _stopped(facts: Facts, name: str, *, gone: bool) -> Facts:
    state = UnitState.ABSENT if gone else UnitState.STOPPED
    facts = _with_unit(facts, UnitFacts(name=name, state=state, has_cluster_config=not gone))
    node = facts.nodes.get(name)
    if node is None:
        return facts
    return _with_node(facts, NodeFacts(name=name, address=node.address, port=node.port, problem="does not run"))


def _moved(facts: Facts, step: MoveSlots) -> Facts:
    """The target owns the slots with a higher epoch, as after CLUSTER SETSLOT NODE on an importing node."""
    source, target = facts.nodes[step.source], facts.nodes[step.target]
    epoch = max((node.current_epoch for node in facts.reachable_nodes()), default=0) + 1
    facts = _with_node(facts, _own(source, slots=subtract(source.slots, step.slots)))
    took = _own(target, slots=merge((*target.slots, *step.slots)), config_epoch=epoch)
    return _with_node(facts, _replace(took, current_epoch=epoch))


def _with_reads(facts: Facts, node: NodeFacts, *, allowed: bool) -> Facts:
    host = (node.address, node.port)
    envoys = {
        name: _replace(envoy, unhealthy=tuple({*envoy.unhealthy, host} - ({host} if allowed else set())))
        for name, envoy in facts.envoys.items()
    }
    facts = _replace(facts, envoys=envoys)
    return facts if node.refuses_reads is None else _with_node(facts, _replace(node, refuses_reads=not allowed))


def _kept_unread(topology: Topology, facts: Facts, name: str) -> Facts:
    """Who has restarted is kept out of the reader endpoints until it is in sync (runbooks/work.py)."""
    node = facts.nodes.get(name)
    return _with_reads(facts, node, allowed=not topology.reading_users) if node else facts


def _forgotten(facts: Facts, node: NodeFacts, step: Forget) -> Facts:
    left = tuple(peer for peer in node.peers if peer.id != step.node_id)
    return _with_node(facts, _replace(node, peers=left))


def _started(topology: Topology, facts: Facts, name: str, wishes: Wishes, *, blank: bool) -> Facts:
    unit = UnitFacts(
        name=name,
        state=UnitState.RUNNING,
        config_hash=wishes.config_hashes.get(name, ""),
        placed_hash=wishes.placed_hashes.get(name, ""),
        started_at_s=facts.observed_at_s,
        has_cluster_config=True,
    )
    before = facts.units.get(name)
    facts = _with_unit(facts, unit)
    if name not in facts.nodes:
        hosts = tuple((node.address, node.port) for node in topology.nodes)
        return _replace(facts, envoys={**facts.envoys, name: EnvoyFacts(name=name, hosts=hosts)})
    if facts.nodes[name].reachable:
        return facts
    comes_back = before is not None and before.has_cluster_config and not blank
    node = _returned(topology, facts, name) if comes_back else _born(topology.node(name))
    # While it was away Envoys found it unhealthy; they find it healthy again by themselves.
    return _with_node(_with_reads(facts, node, allowed=True), node)


def _born(declared: RedisNode) -> NodeFacts:
    """A node that starts for the first time: alone, and master of nothing."""
    myself = PeerView(id=f"new-{declared.name}", address=declared.address, port=declared.port, flags=_BLANK_FLAGS)
    return _speaking(declared, (myself,), myself.id)


def _returned(topology: Topology, facts: Facts, name: str) -> NodeFacts:
    """A member that starts with its data: as the others remember it, or, if nobody can be asked, as declared."""
    declared = topology.node(name)
    for node in facts.reachable_nodes():
        for peer in node.peers:
            if (peer.address, peer.port) == (declared.address, declared.port) and peer.id != node.id:
                views = (_taken_back(topology, facts, name, p) if p is peer else p for p in node.peers)
                return _speaking(declared, tuple(views), peer.id)
    masters = {node.shard: node for node in topology.nodes if node.intended_role is Role.MASTER}
    split = split_slots(topology.shards)
    members = tuple(
        PeerView(
            id=f"old-{node.name}",
            address=node.address,
            port=node.port,
            flags=("master",) if node is masters[node.shard] else ("slave",),
            master_id="" if node is masters[node.shard] else f"old-{masters[node.shard].name}",
            slots=(split[node.shard],) if node is masters[node.shard] else (),
        )
        for node in topology.nodes
    )
    return _speaking(declared, members, f"old-{name}")


def _taken_back(topology: Topology, facts: Facts, name: str, view: PeerView) -> PeerView:
    """What a member that was away becomes as soon as it hears the others: who finds that all slots of its shard have
    another owner replicates that one. (cluster_legacy.c, clusterUpdateSlotsConfigWith.)

    Every master of slots has an epoch; one that has none has never had a slot, and waits to be attached.
    """
    owners = {owner.id: owner for owner in slot_owners(facts)}
    if view.id in owners or view.master_id in owners or not (view.config_epoch or view.master_id):
        return view
    shards = actual_shards(topology, facts)
    heir = next((node for node in newest_owners(facts) if shards.get(node.name) == shards[name]), None)
    return _replace(view, flags=("slave",), master_id=heir.id, slots=()) if heir else view


def _speaking(declared: RedisNode, views: tuple[PeerView, ...], own_id: str) -> NodeFacts:
    """A node that has just started and knows what `views` say; the one with `own_id` is itself, who neither fails nor
    is unreachable to itself, whatever the others said of it."""
    peers = tuple(
        _replace(view, flags=("myself", *_healthy(view.flags)), link_up=True) if view.id == own_id
        else _replace(view, flags=_others(view.flags))
        for view in views
    )  # fmt: skip
    return NodeFacts(
        name=declared.name,
        address=declared.address,
        port=declared.port,
        id=own_id,
        peers=peers,
        cluster_state="fail",
        current_epoch=max((peer.config_epoch for peer in peers), default=0),
    )


def _promote(facts: Facts, replica: NodeFacts) -> Facts:
    """The replica takes its master's slots; a living master becomes its replica."""
    old = next((peer for peer in replica.peers if peer.id == replica.master_id), None)
    slots = old.slots if old else ()
    new_epoch = max((node.current_epoch for node in facts.reachable_nodes()), default=0) + 1
    took = _own(replica, flags=("myself", "master"), master_id="", slots=slots, config_epoch=new_epoch)
    took = _replace(took, current_epoch=new_epoch)
    master = facts.node_by_id(replica.master_id)
    facts = _with_node(facts, took)
    if master is None:
        return facts
    return _with_node(facts, _own(master, flags=("myself", "slave"), master_id=replica.id, slots=()))


def settle(topology: Topology, facts: Facts) -> Facts:
    """Let gossip spread: acquainted nodes come to know each other and agree, links come up, Envoys follow."""
    nodes = dict(facts.nodes)
    for group in _components(facts):
        views = _agreed_views(group)
        covered = sum(r.slot_count for view in views.values() for r in view.slots) == SLOT_COUNT
        epoch = max(view.config_epoch for view in views.values())
        for node in group:
            peers = tuple(
                _replace(view, flags=("myself", *view.flags)) if peer_id == node.id else view
                for peer_id, view in views.items()
            )
            is_linked = any(other.id == views[node.id].master_id for other in group)
            nodes[node.name] = _replace(
                node,
                peers=peers,
                cluster_state="ok" if covered else "fail",
                current_epoch=max(epoch, node.current_epoch),
                master_link_up=is_linked,
                replication_offset=max(node.replication_offset, _RECEIVED_BYTES if is_linked else 0),
            )
    endpoints = tuple(
        EndpointFacts(
            name=endpoint.name, envoy=listener.envoy, address=listener.address, port=listener.port,
            protocol=endpoint.protocol, user=endpoint.user,
        )
        for endpoint in topology.endpoints
        for listener in endpoint.listeners
    )  # fmt: skip
    envoys = {name: _follow(envoy, facts, nodes) for name, envoy in facts.envoys.items()}
    return _replace(facts, nodes=nodes, endpoints=endpoints, envoys=envoys)


def _follow(envoy: EnvoyFacts, before: Facts, nodes: dict[str, NodeFacts]) -> EnvoyFacts:
    """An Envoy that serves sends to whom the cluster names; it is healthy again what has started anew."""
    if envoy.problem:
        return envoy
    hosts = gates.told_of(_replace(before, nodes=nodes))
    return _replace(envoy, hosts=tuple(sorted(hosts)), unhealthy=tuple(h for h in envoy.unhealthy if h in hosts))


def _agreed_views(group: list[NodeFacts]) -> dict[str, PeerView]:
    """What all nodes of a group come to believe of every id: a slot belongs to its claim with the highest epoch.

    A master that so loses its last slot becomes a replica of the winner, and its replicas follow. (Redis Cluster
    specification, "UPDATE messages" and "replica migration"; cluster_legacy.c, clusterUpdateSlotsConfigWith.)
    """
    own = {node.id: _replace(node.myself, flags=_others(node.myself.flags)) for node in group if node.myself}
    dead: dict[str, PeerView] = {}
    for peer in (peer for node in group for peer in node.peers if peer.id not in own):
        if peer.id not in dead or peer.config_epoch > dead[peer.id].config_epoch:
            dead[peer.id] = _replace(peer, flags=(*_healthy(peer.flags), "fail"), link_up=False)
    views = {**dead, **own}
    taken: tuple[SlotRange, ...] = ()
    winners: list[PeerView] = []
    heirs: dict[str, str] = {}
    for view in sorted(views.values(), key=lambda view: (-view.config_epoch, view.id not in own)):
        if not view.slots:
            continue
        left = subtract(view.slots, taken)
        if left != merge(view.slots):
            views[view.id] = _replace(view, slots=left)
        if left:
            taken = merge((*taken, *left))
            winners.append(view)
            continue
        winner = next(w for w in winners if subtract(view.slots, w.slots) != merge(view.slots))
        heirs[view.id] = winner.id
        if view.id in own:
            views[view.id] = _replace(view, slots=(), flags=("slave",), master_id=winner.id)
    for view in list(views.values()):
        master_id = view.master_id
        while master_id in heirs:
            master_id = heirs[master_id]
        master = views.get(master_id)
        if master and master.master_id and master.master_id != view.id:
            master_id = master.master_id
        if master_id != view.id:
            views[view.id] = _replace(view, master_id=master_id)
    return views


def _components(facts: Facts) -> list[list[NodeFacts]]:
    """Groups of reachable nodes that are connected by acquaintance. That takes both sides: what a node that was
    forgotten says is not listened to (cluster_legacy.c, clusterProcessPacket: gossip of unknown senders is dropped)."""
    by_id = {node.id: node for node in facts.reachable_nodes()}
    known = {node.id: {peer.id for peer in node.peers} for node in by_id.values()}
    links = {
        node_id: {peer_id for peer_id in peer_ids if peer_id in by_id and node_id in known[peer_id]}
        for node_id, peer_ids in known.items()
    }
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


def _healthy(flags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(flag for flag in _others(flags) if flag not in ("fail", "fail?"))


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
