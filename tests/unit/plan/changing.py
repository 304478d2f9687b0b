"""A World under the verbs that change it: they are cut, repeated and taken back, and nobody may notice.

The verbs are the real ones (runbooks/scale, restart, failover), which are pure: `target` says what the topology is to
be, `planner` what comes next, `result` what is left. A verb that is cut has recorded its target, and no more.

Beside what must never be done (checked before a phase), this checks after every single step that each slot has one
owner that answers, unless the test itself killed one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import HASH, all_names, make_topology, silent
from world import World

from redisforge.errors import RedisForgeError
from redisforge.model.facts import Facts, NodeFacts, PeerView, UnitFacts, UnitState
from redisforge.model.slots import SLOT_COUNT, count, merge, subtract
from redisforge.model.steps import (
    AssignSlots,
    Forget,
    Meet,
    MoveSlots,
    Phase,
    Promote,
    RefuseReads,
    RemoveUnit,
    Replicate,
    Reset,
    RestartUnit,
    SetConfigEpoch,
    StartUnit,
    Step,
    StopUnit,
    target_of,
)
from redisforge.model.topology import Endpoint, EndpointKind, Role, Topology
from redisforge.plan import gates
from redisforge.plan.predict import Planner, apply
from redisforge.plan.ready import takes_reads
from redisforge.plan.view import ALL_SLOTS, newcomers, owned_slots
from redisforge.runbooks.change import Verb

PHASE_LIMIT = 150
_SECONDS_PER_LOOK = 1.0
_WAIT_S = 60.0


def some_of(steps: tuple[Step, ...], data: st.DataObject) -> list[Step]:
    """What of a phase may have been done when it was cut: of each target a first part, in order."""
    targets: dict[str, list[Step]] = {}
    for step in steps:
        targets.setdefault(target_of(step), []).append(step)
    return [step for part in targets.values() for step in part[: data.draw(st.integers(0, len(part)))]]


def with_readers(topology: Topology) -> Topology:
    """`topology` with a second endpoint, which reads from replicas."""
    first = topology.endpoints[0]
    listeners = tuple(replace(listener, port=listener.port + 100) for listener in first.listeners)
    readers = Endpoint("readers", EndpointKind.COMMANDS, "RESP2", first.user, True, listeners)
    return replace(topology, endpoints=(first, readers))


class ChangingWorld(World):
    """A World with a clock, elections that need their time, and nodes that come and go.

    `killed` tells whether the test took a node away: then slots may be without an owner for a while. `forced`: the
    verb was told to go on without a replica.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology)
        self.facts = replace(self.facts, observed_at_s=1000.0)
        self.killed = False
        self.forced = False
        self.is_formed = False
        self.removed_ids: set[str] = set()
        self._seen = self.facts

    # --- verbs ---------------------------------------------------------------------------------------------

    def begin(self, verb: Verb) -> Planner:
        """What a run does first: it looks, has those come back whom it has to count, records what it works towards, and
        checks that. Raises RedisForgeError."""
        recorded = self.topology
        if gathering := verb.gather(recorded, self.facts):
            while phase := self.ask(gathering):
                self.carry_out(phase.steps)
                self.wait_for(phase)
        target = verb.target(recorded, self.facts)
        _check_places(recorded, target)
        self.declare(target)
        try:
            return verb.planner(self.topology, self.facts, self.wishes)
        except RedisForgeError:
            self.declare(recorded)
            raise

    def run(self, verb: Verb) -> None:
        """Carry a verb out to its end. Raises RedisForgeError."""
        planner = self.begin(verb)
        began = len(self.phases)
        while phase := self.ask(planner):
            assert len(self.phases) - began <= PHASE_LIMIT, f"no end: {[p.title for p in self.phases[-6:]]}"
            self.carry_out(phase.steps)
            self.wait_for(phase)
        self.declare(verb.result(self.topology, self.facts))

    def run_cut(self, verb: Verb, data: st.DataObject) -> None:
        """Begin a verb and be killed in the middle. Raises RedisForgeError."""
        planner = self.begin(verb)
        for _ in range(data.draw(st.integers(0, 8), label="whole phases")):
            if phase := self.ask(planner):
                self.carry_out(phase.steps)
                self.wait_for(phase)
        if phase := self.ask(planner):
            self.carry_out(some_of(phase.steps, data))
        if data.draw(st.booleans(), label="gossip goes on"):
            self.settle()

    def run_hurt(self, verb: Verb, data: st.DataObject) -> None:
        """Carry a verb out while nodes crash, between its phases, and once more after it was cut in one. Raises
        RedisForgeError."""
        for is_cut in (*[True] * data.draw(st.integers(0, 2), label="cuts"), False):
            planner, began = self.begin(verb), len(self.phases)
            cut_after = data.draw(st.integers(0, 8), label="whole phases") if is_cut else PHASE_LIMIT
            crashes = data.draw(st.lists(st.integers(0, 10), max_size=2), label="crash before phase")
            while phase := self.ask(planner):
                number = len(self.phases) - began
                assert number <= PHASE_LIMIT, f"no end: {_history(self)}"
                if number > cut_after:
                    self.carry_out(some_of(phase.steps, data))
                    self._crash_one(data)
                    break
                self.carry_out(phase.steps)
                self.wait_for(phase)
                if number in crashes:
                    self._crash_one(data)
        self.declare(verb.result(self.topology, self.facts))

    def _crash_one(self, data: st.DataObject) -> None:
        """Of the nodes that run and have a keeper."""
        running = sorted(node.name for node in self.facts.reachable_nodes() if node.name in self.facts.units)
        self.crash(data.draw(st.sampled_from(running), label="crashes"))

    def ask(self, planner: Planner) -> Phase | None:
        """The phase that a verb wants now; it has been checked."""
        self._seen = self.facts
        phase = planner(self.facts)
        if phase:
            self.check_change(phase)
            self.phases.append(phase)
        return phase

    def wait_for(self, phase: Phase) -> None:
        """Let gossip spread, and time pass; the gate then holds."""
        if phase.gate.name == "electable":
            self._pass(_WAIT_S)
        self.settle()
        reasons = gates.reasons_against(phase.gate, self.topology, self.facts)
        let_go = newcomers(self._seen, self.facts)  # by its keeper; the runner then plans anew
        assert self.killed or let_go or not reasons, f"{phase.title} {phase.gate}: {reasons}"

    def declare(self, topology: Topology) -> None:
        """From now on this is the topology; nodes that are new in it do not run yet."""
        self.topology = topology
        self.wishes = replace(self.wishes, config_hashes=_hashes(topology, self.facts))
        old = self.facts.nodes
        nodes = {node.name: old.get(node.name) or silent(node) for node in topology.nodes}
        kept = {*nodes, *(envoy.name for envoy in topology.envoys)}
        units = {name: unit for name, unit in self.facts.units.items() if name in kept}
        envoys = {name: envoy for name, envoy in self.facts.envoys.items() if name in kept}
        self.facts = replace(self.facts, nodes=nodes, units=units, envoys=envoys)

    # --- what happens --------------------------------------------------------------------------------------

    def carry_out(self, steps: Iterable[Step]) -> None:
        """Do steps one by one; after each the cluster is looked at."""
        for step in steps:
            before = self.facts
            self._carry_out_one(step)
            if self.is_formed and not self.killed and not (self.forced and isinstance(step, RestartUnit)):
                assert_each_slot_has_one_owner(self.facts, f"{step}, {_roles(before)}")

    def kill(self, name: str) -> None:
        """The Unit and its keeper die; its disk stays."""
        super().kill(name)
        self.killed = self.killed or self.is_formed

    def crash(self, name: str) -> None:
        """kill -9 of a node's process: its keeper has a replica take over, if one is fit, and starts it again."""
        was_killed, node = self.killed, self.facts.nodes[name]
        self.kill(name)
        replicas = [other for other in self.facts.reachable_nodes() if other.master_id == node.id]
        fit = [other.name for other in replicas if other.master_link_up and is_electable(self.facts, other.name)]
        if node.slots and fit:
            self.fail_over(fit[0])
        self._start(name, permit_blank=False)
        self.settle()
        self.killed = was_killed

    def settle(self) -> None:
        """Gossip spreads, a second passes, and who was removed is known to nobody that has forgotten it."""
        self._pass(_SECONDS_PER_LOOK)
        super().settle()

    def add_stranger(self, address: str, port: int) -> None:
        """Somebody starts an empty node that is no Unit of ours; it is seen as soon as it is declared."""
        myself = PeerView(id=f"guest-{port}", address=address, port=port, flags=("myself", "master"))
        guest = NodeFacts(
            name=f"{address}:{port}", address=address, port=port, id=myself.id, peers=(myself,), cluster_state="fail"
        )
        self.facts = replace(self.facts, nodes={**self.facts.nodes, guest.name: guest})

    def _carry_out_one(self, step: Step) -> None:
        if isinstance(step, RemoveUnit):
            self.lose_disk_of(step.unit)
        elif isinstance(step, MoveSlots):
            self._move(step)
        elif isinstance(step, RestartUnit):
            was_killed = self.killed
            super().carry_out([step])
            self.killed = was_killed
        elif isinstance(step, Promote):
            self._promote(step)
        elif isinstance(step, Forget):
            self.removed_ids.add(step.node_id)
            super().carry_out([step])
        else:
            super().carry_out([step])

    def lose_disk_of(self, name: str) -> None:
        """A Unit is stopped and its folder deleted."""
        was_killed = self.killed
        self.lose_disk(name)
        self.killed = was_killed
        self._put_unit(UnitFacts(name=name, state=UnitState.ABSENT))

    def _move(self, step: MoveSlots) -> None:
        had_keys = self.facts.nodes[step.source].keys
        self.facts = apply(self.topology, self.facts, (step,), self.wishes)
        source, target = self.facts.nodes[step.source], self.facts.nodes[step.target]
        self._put(replace(source, keys=had_keys if source.slots else 0))
        self._put(replace(target, keys=max(target.keys, had_keys)))

    def _promote(self, step: Promote) -> None:
        heir = self.facts.nodes[step.node]
        master = self.facts.node_by_id(heir.master_id)
        super().carry_out([step])
        now_s = self.facts.observed_at_s
        if unit := self.facts.units.get(step.node):
            self._put_unit(replace(unit, elected_at_s=now_s))
        if master and (unit := self.facts.units.get(master.name)):
            self._put_unit(replace(unit, replaced_at_s=now_s))

    def _start(self, name: str, *, permit_blank: bool) -> None:
        was_down = name not in self.facts.nodes or not self.facts.nodes[name].reachable
        super()._start(name, permit_blank=permit_blank)
        node, unit = self.facts.nodes.get(name), self.facts.units[name]
        if was_down:
            self._put_unit(replace(unit, started_at_s=self.facts.observed_at_s))
        if node and node.reachable and was_down:  # it has read its users again: health checks pass
            host = (node.address, node.port)
            envoys = {
                envoy.name: replace(envoy, unhealthy=tuple(other for other in envoy.unhealthy if other != host))
                for envoy in self.facts.envoys.values()
            }
            nodes = {**self.facts.nodes, name: replace(node, refuses_reads=False)}
            self.facts = replace(self.facts, nodes=nodes, envoys=envoys)

    def _pass(self, seconds: float) -> None:
        self.facts = replace(self.facts, observed_at_s=self.facts.observed_at_s + seconds)

    # --- what must never be done ---------------------------------------------------------------------------

    def check_change(self, phase: Phase) -> None:
        """Whatever a verb believes, none of this is ever right in a cluster that holds data."""
        parting = {target_of(step) for step in phase.steps if isinstance(step, RemoveUnit | StopUnit | Reset)}
        for step in phase.steps:
            assert not isinstance(step, AssignSlots | SetConfigEpoch), f"{step} in a cluster that is whole"
            if isinstance(step, StartUnit) and step.permit_blank:
                self._check_permission(step.unit)
            elif isinstance(step, Replicate):
                self._check_replicate(step)
            elif isinstance(step, MoveSlots):
                self._check_move(step)
            elif isinstance(step, Promote) and step.mode == "handover":
                self._check_handover(step)
            elif isinstance(step, RestartUnit):
                self._check_change_restart(phase, step)
            elif isinstance(step, RemoveUnit | StopUnit):
                self._check_parting(step.unit, step, parting)
            elif isinstance(step, Reset):
                self._check_parting(step.node, step, parting)
            elif isinstance(step, Forget):
                self._check_forget(step)
            elif isinstance(step, Meet):
                met = {self.facts.nodes[name].id for name in (step.node, step.other)}
                assert not met & self.removed_ids, f"{step}: it was forgotten, and gossip still spreads that"
        moved = [r for step in phase.steps if isinstance(step, MoveSlots) for r in step.slots]
        assert count(merge(moved)) == count(moved), "a slot is moved twice at once"
        refusing = [step.node for step in phase.steps if isinstance(step, RefuseReads)]
        assert len(refusing) <= 1, "readers lose one node at a time"

    def _check_replicate(self, step: Replicate) -> None:
        node, master = self.facts.nodes[step.node], self.facts.nodes[step.master]
        assert not node.slots, f"{step}: it has slots"
        assert master.role is Role.MASTER, f"{step}: no master to copy (one that is silent counts as a replica)"
        assert not node.keys or not self._is_last_copy(step.node), f"{step}: it holds the last copy of a shard"
        assert not takes_reads(self.topology, self.facts, node) or node.role is Role.MASTER, f"{step}: it takes reads"

    def _check_move(self, step: MoveSlots) -> None:
        source, target = self.facts.nodes[step.source], self.facts.nodes[step.target]
        assert not subtract(step.slots, source.slots), f"{step}: not the source's"
        takes = target.reachable and target.role is Role.MASTER and target.name != source.name
        assert takes, f"{step}: no master to take them"

    def _check_handover(self, step: Promote) -> None:
        heir = self.facts.nodes[step.node]
        master = self.facts.node_by_id(heir.master_id)
        in_sync = heir.master_link_up and heir.replication_offset and not heir.sync_in_progress
        assert in_sync, f"{step}: not in sync"
        assert master, f"{step}: its master does not answer"
        assert master.slots, f"{step}: nothing to take over"
        unit = self.facts.units.get(heir.name)
        pause_s = max(4.0, 4 * self.topology.redis.node_timeout_ms / 1000)
        ready = unit is None or not unit.elected_at_s or unit.started_at_s > unit.elected_at_s
        assert ready or (unit and self.facts.observed_at_s >= unit.elected_at_s + pause_s), f"{step}: too soon"

    def _check_change_restart(self, phase: Phase, step: RestartUnit) -> None:
        assert phase.steps == (step,), "one Unit at a time"
        if step.unit not in self.facts.nodes:
            return
        node = self.facts.nodes[step.unit]
        assert not node.slots or node.role is Role.REPLICA or self.forced, f"{step}: it serves slots"
        assert node.role is Role.MASTER or not takes_reads(self.topology, self.facts, node), f"{step}: it takes reads"
        assert not gates.settled(self.topology, self.facts), f"{step}: while the cluster is not in order"

    def _check_parting(self, name: str, step: Step, parting: set[str]) -> None:
        if name not in self.facts.nodes:
            self._check_parting_envoy(step, parting)
            return
        node = self.facts.nodes[name]
        assert not (node.role is Role.MASTER and node.slots), f"{step}: it serves slots"
        assert not self._is_last_copy(name), f"{step}: it holds the last copy of a shard"
        assert node.role is Role.MASTER or not takes_reads(self.topology, self.facts, node), f"{step}: it takes reads"
        for other in self.facts.reachable_nodes():
            if not node.id or other.name == name or other.id in self.removed_ids or other.name in parting:
                continue
            still = any(peer.id == node.id for peer in other.peers)
            assert not still, f"{step}: {other.name} has not forgotten it, so that gossip could bring it back"
            assert other.master_id != node.id, f"{step}: {other.name} follows it"

    def _check_parting_envoy(self, step: Step, parting: set[str]) -> None:
        serving = {name for name, envoy in self.facts.envoys.items() if not envoy.problem} - parting
        for endpoint in self.topology.endpoints:
            assert serving & {door.envoy for door in endpoint.listeners}, f"{step}: nobody else serves {endpoint.name}"

    def _check_forget(self, step: Forget) -> None:
        gone = self.facts.node_by_id(step.node_id)
        node = self.facts.nodes[step.node]
        assert node.id != step.node_id, f"{step}: itself"
        assert not (gone and gone.role is Role.MASTER and gone.slots), f"{step}: it serves slots"
        assert node.master_id != step.node_id, f"{step}: its own master (Redis refuses that)"
        listed = merge(r for peer in node.peers if peer.id == step.node_id for r in peer.slots)
        assert not subtract(listed, owned_slots(self.facts)), f"{step}: nobody else owns its slots"
        assert not gone or not self._is_last_copy(gone.name), f"{step}: it holds the last copy of a shard"

    def _is_last_copy(self, name: str) -> bool:
        """Whether a node replicates a slot owner that cannot be reached, and nobody else does."""
        node = self.facts.nodes[name]
        if not node.reachable or node.role is not Role.REPLICA or self.facts.node_by_id(node.master_id):
            return False
        listed = merge(
            r for n in self.facts.reachable_nodes() for p in n.peers if p.id == node.master_id for r in p.slots
        )
        if not subtract(listed, owned_slots(self.facts)):
            return False
        return not any(o.master_id == node.master_id and o.name != name for o in self.facts.reachable_nodes())


def changing_world(topology: Topology) -> ChangingWorld:
    """A cluster that is up and holds keys in every shard."""
    world = ChangingWorld(topology)
    world.converge()
    world.fill()
    asked = {name: replace(node, refuses_reads=False) for name, node in world.facts.nodes.items()}
    world.facts = replace(world.facts, nodes=asked)
    assert not subtract(ALL_SLOTS, world.surviving_slots())
    world.is_formed = True
    return world


def assert_each_slot_has_one_owner(facts: Facts, when: str) -> None:
    """All 16384 slots are served, each by one master, by their own word."""
    owned = [r for node in facts.reachable_nodes() if node.role is Role.MASTER for r in node.slots]
    assert not subtract(ALL_SLOTS, owned), f"after {when}: not served: {subtract(ALL_SLOTS, owned)}"
    assert count(owned) == SLOT_COUNT, f"after {when}: a slot has two owners"


def assert_in_order(world: ChangingWorld) -> None:
    """The cluster is whole, nothing was lost, who left is known to nobody, and `up` has nothing to do."""
    facts, topology = world.facts, world.topology
    assert gates.in_sync(topology, facts) == ()
    serve = gates.endpoints_serve(topology, facts)
    assert not serve, f"{serve} after {_history(world)}"
    assert not [envoy.name for envoy in facts.envoys.values() if envoy.unhealthy], "all replicas are read again"
    assert_each_slot_has_one_owner(facts, "all")
    assert not subtract(ALL_SLOTS, world.surviving_slots()), "data got lost on the way"
    listed = {peer.id for node in facts.reachable_nodes() for peer in node.peers}
    strangers = listed - {node.id for node in facts.reachable_nodes()}
    assert not strangers, f"who is not there is still listed: {strangers} after {_history(world)}"
    silent_nodes = {node.name: facts.units.get(node.name) for node in facts.nodes.values() if not node.reachable}
    assert not silent_nodes, f"they do not answer: {silent_nodes}"
    phase = world.next_phase()
    assert phase is None, f"`up` wants: {phase.title}"


def _history(world: ChangingWorld) -> list[str]:
    return [f"{phase.title}: {', '.join(map(str, phase.steps[:4]))}" for phase in world.phases[-6:]]


def shape_of(facts: Facts) -> Counter[int]:
    """How many masters with slots have how many replicas."""
    load = Counter(node.master_id for node in facts.reachable_nodes() if node.role is Role.REPLICA)
    return Counter(load[node.id] for node in facts.reachable_nodes() if node.role is Role.MASTER and node.slots)


def _hashes(topology: Topology, facts: Facts) -> dict[str, str]:
    managed = {node.name for node in topology.nodes if node.managed} | {envoy.name for envoy in topology.envoys}
    return {name: HASH for name in all_names(topology) if name in managed}


def _roles(facts: Facts) -> str:
    return " ".join(f"{n.name}:{n.role}:{count(n.slots)}" for n in facts.reachable_nodes())


def _check_places(before: Topology, after: Topology) -> None:
    """What exists stays where it is, and nothing stands where something else does."""
    places = {node.name: (node.host, node.address, node.port, node.bus_port) for node in after.nodes}
    for node in before.nodes:
        assert places[node.name] == (node.host, node.address, node.port, node.bus_port), f"{node.name} was moved"
    assert len(places) == len(after.nodes), "two nodes have one name"
    taken = [(node.address, port) for node in after.nodes for port in (node.port, node.bus_port)]
    assert len(set(taken)) == len(taken), "two nodes have one port"


machines = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@st.composite
def topologies(draw: st.DrawFn, *, least_shards: int = 3, least_replicas: int = 0) -> Topology:
    """Clusters of 3 to 6 shards with 0 to 2 replicas on one to nine machines, mostly with an endpoint for readers."""
    from topologies import hosts_in_zones

    topology = make_topology(
        draw(st.integers(least_shards, 6), label="shards"),
        draw(st.integers(least_replicas, 2), label="replicas"),
        hosts_in_zones(*draw(machines, label="machines by zone")),
        mode=draw(st.sampled_from(("aof", "rdb"))),
        envoys=draw(st.integers(1, 2), label="envoys"),
    )
    return with_readers(topology) if draw(st.integers(0, 3), label="readers") else topology


def disturb(world: ChangingWorld, data: st.DataObject, names: Iterable[str]) -> None:
    """Redis fails over by itself here and there; nothing is lost by that."""
    for name in data.draw(st.lists(st.sampled_from(sorted(names)), max_size=3), label="failovers"):
        if name in world.facts.nodes:
            world.settle()  # whoever has not heard of the last move is not elected
            if is_electable(world.facts, name):
                world.fail_over(name)


def is_electable(facts: Facts, name: str) -> bool:
    """Whether a majority of the masters with slots knows the node: nobody votes for one that he has forgotten."""
    voters = [node for node in facts.reachable_nodes() if node.role is Role.MASTER and node.slots]
    known = [node for node in voters if any(peer.id == facts.nodes[name].id for peer in node.peers)]
    return len(known) * 2 > len(voters)


def unevenly(world: ChangingWorld, data: st.DataObject) -> None:
    """Slots have been moved by hand before."""
    owners = [node for node in world.facts.reachable_nodes() if node.role is Role.MASTER and node.slots]
    for _ in range(data.draw(st.integers(0, 3), label="moves by hand")):
        source, target = data.draw(st.permutations([node.name for node in owners]), label="from, to")[:2]
        node = world.facts.nodes[source]
        last = node.slots[-1]
        if last.slot_count < 3:
            continue
        cut = replace(last, first=data.draw(st.integers(last.first + 1, last.last), label="from slot"))
        world.carry_out([MoveSlots(source=source, target=target, slots=(cut,), why="by hand")])
        world.settle()
