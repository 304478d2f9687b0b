"""From any state that can be reached, planning again and again ends in a whole cluster, or refuses where data is gone.

What must never be done on the way is checked by the World for every phase.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import all_names, hosts_in_zones, make_topology, master_of, replicas_in, silent, wishes_for
from world import World, formed_world

from redisforge.errors import RefusedError
from redisforge.model.facts import UnitState
from redisforge.model.slots import subtract
from redisforge.model.steps import AssignSlots, Promote, StartUnit, Step, target_of
from redisforge.model.topology import Role, Topology
from redisforge.plan import gates
from redisforge.plan.placement import split_slots
from redisforge.plan.predict import predict_plan
from redisforge.plan.starting import Wishes
from redisforge.plan.view import ALL_SLOTS

slow_enough = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
topologies = st.builds(
    make_topology,
    st.integers(3, 8),
    st.integers(0, 3),
    st.lists(st.integers(1, 3), min_size=1, max_size=3).map(lambda machines: hosts_in_zones(*machines)),
    mode=st.sampled_from(("aof", "rdb")),
    envoys=st.integers(1, 2),
)


def assert_whole(world: World) -> None:
    """Everything is as declared, and a further look finds nothing to do."""
    assert world.next_phase() is None
    assert gates.in_sync(world.topology, world.facts) == ()
    assert gates.endpoints_serve(world.topology, world.facts) == ()
    assert gates.nodes_answer(world.topology, world.facts) == ()
    masters = [node for node in world.facts.reachable_nodes() if node.role is Role.MASTER]
    assert len(masters) == world.topology.shards
    assert len(world.facts.reachable_nodes()) == len(world.topology.nodes)


def heal(world: World) -> RefusedError | None:
    """Converge; returns the refusal if there is one."""
    try:
        world.converge()
    except RefusedError as refusal:
        return refusal
    return None


def some_of(steps: tuple[Step, ...], data: st.DataObject) -> list[Step]:
    """What of a phase may have been done when it was cut: of each target a first part, in order."""
    targets: dict[str, list[Step]] = {}
    for step in steps:
        targets.setdefault(target_of(step), []).append(step)
    return [step for part in targets.values() for step in part[: data.draw(st.integers(0, len(part)))]]


@slow_enough
@given(topologies)
def test_a_fresh_cluster_is_formed(topology: Topology) -> None:
    world = World(topology)
    world.converge()
    assert_whole(world)
    intended = {node.name: node.intended_role for node in topology.nodes}
    assert {node.name: node.role for node in world.facts.reachable_nodes()} == intended
    for node in topology.nodes:
        master = world.facts.nodes[master_of(topology, node.shard).name]
        assert node.intended_role is Role.MASTER or world.facts.nodes[node.name].master_id == master.id


@slow_enough
@given(topologies, st.data())
def test_a_formation_that_is_cut_anywhere_is_finished(topology: Topology, data: st.DataObject) -> None:
    world = World(topology)
    for _ in range(data.draw(st.integers(1, 4), label="cuts")):
        for _ in range(data.draw(st.integers(0, 8), label="whole phases")):
            if phase := world.next_phase():
                world.carry_out(phase.steps)
                world.settle()
        if phase := world.next_phase():
            world.carry_out(some_of(phase.steps, data))
        if data.draw(st.booleans(), label="gossip goes on"):
            world.settle()
        for name in data.draw(st.sets(st.sampled_from(all_names(topology)))):
            world.kill(name)
    world.converge()
    assert_whole(world)


@slow_enough
@given(topologies, st.data())
def test_a_cluster_with_data_heals_or_is_refused(topology: Topology, data: st.DataObject) -> None:
    world = formed_world(topology)
    names = [node.name for node in topology.nodes]
    events = {
        "kill": world.kill, "fail over": world.fail_over, "lose disk": world.lose_disk, "lose data": world.lose_data,
        "orphan": world.orphan, "reborn": world.reborn,
    }  # fmt: skip
    for event in data.draw(st.lists(st.sampled_from(sorted(events)), min_size=1, max_size=8)):
        events[event](data.draw(st.sampled_from(names), label=event))
        if data.draw(st.booleans(), label="gossip goes on"):
            world.settle()
    if data.draw(st.booleans(), label="all go down"):
        for name in all_names(topology):
            world.kill(name)
    if data.draw(st.booleans(), label="the disk with all data folders is gone"):
        for name in names:
            world.lose_disk(name)
    intact = not subtract(ALL_SLOTS, world.surviving_slots())
    assume(world.is_remembered())
    refusal = heal(world)
    if refusal:
        assert not intact, f"refused although all data is there: {refusal}"
        return
    assert intact, "it went on although data is gone"
    assert_whole(world)
    assert not subtract(ALL_SLOTS, world.surviving_slots()), "data got lost on the way"


@slow_enough
@given(st.integers(3, 6), st.integers(0, 2), st.data())
def test_a_cluster_that_keeps_nothing_on_disk_keeps_what_is_in_memory(
    shards: int, replicas: int, data: st.DataObject
) -> None:
    topology = make_topology(shards, replicas, mode="none")
    world = formed_world(topology)
    for name in data.draw(st.lists(st.sampled_from(all_names(topology)), max_size=8)):
        world.kill(name)
        if data.draw(st.booleans(), label="gossip goes on"):
            world.settle()
    before = world.surviving_slots()
    world.converge()
    assert_whole(world)
    assert not subtract(before, world.surviving_slots())


@slow_enough
@given(topologies)
def test_nodes_of_somebody_else_are_formed_without_starting_anything(topology: Topology) -> None:
    """init-cluster: nodes that run, no Units of ours, no Envoys."""
    bare = replace(topology, envoys=(), endpoints=())
    world = World(bare)
    for node in bare.nodes:
        world.reborn(node.name)
    world.wishes = Wishes()
    world.facts = replace(world.facts, units={})
    world.converge()
    assert gates.in_sync(bare, world.facts) == ()
    assert not [step for phase in world.phases for step in phase.steps if isinstance(step, StartUnit)]
    assert world.next_phase() is None


@pytest.mark.parametrize("keepers_live", [False, True])
@pytest.mark.parametrize("replicas", [0, 1, 2])
def test_a_cluster_whose_data_folders_are_all_gone_is_no_new_one(replicas: int, *, keepers_live: bool) -> None:
    """A data disk that is not mounted: every nodes.conf is gone, and nobody is left who could tell."""
    topology = make_topology(3, replicas)
    world = formed_world(topology)
    names = [node.name for node in topology.nodes]
    for name in names:
        world.lose_disk(name)
    if keepers_live:
        world.carry_out(StartUnit(unit=name, why="its keeper lives") for name in names)
    world.phases.clear()
    for accepted in ((), names[:-1]):
        world.wishes = wishes_for(topology, *accepted)
        with pytest.raises(RefusedError, match="data folders") as refusal:
            world.converge()
        assert f"--accept-data-loss {names[-1]}" in str(refusal.value)
    assert not world.facts.nodes[names[-1]].reachable
    assert not [step for phase in world.phases for step in phase.steps if isinstance(step, AssignSlots)]

    world.wishes = wishes_for(topology, *names)
    world.converge()
    assert_whole(world)


def test_a_first_start_that_was_cut_and_lost_its_data_is_refused_too() -> None:
    """Nothing tells it from a cluster; where persistence is off there is nothing to lose."""
    for mode in ("aof", "rdb", "none"):
        topology = make_topology(3, 1, mode=mode)
        world = World(topology)
        while not all(len(node.peers) > 1 for node in world.facts.nodes.values()):
            phase = world.next_phase()
            assert phase
            world.carry_out(phase.steps)
            world.settle()
        for node in topology.nodes:
            world.lose_disk(node.name)
        assert (heal(world) is None) == (mode == "none")


def test_who_reads_its_data_is_heard_before_a_held_node_is_let_go() -> None:
    """All died, one data folder is gone, and the others are still loading: only they know what was in it."""
    topology = make_topology(3, 1)
    world = formed_world(topology)
    for node in topology.nodes:
        world.kill(node.name)
    world.lose_disk("redis-1")
    world.carry_out([StartUnit(unit="redis-1", why="its keeper lives")])
    units = {n.name: replace(world.facts.units[n.name], state=UnitState.RUNNING) for n in topology.nodes[1:]}
    world.facts = replace(world.facts, units={**world.facts.units, **units})
    phase = world.next_phase()
    assert phase
    assert (phase.steps, phase.gate.name) == ((), "nodes_answer")
    (shown,) = predict_plan(topology, world.facts, world.wishes).phases
    assert replace(shown, waits_for=()) == phase, "a prediction ends there"
    assert [reason.partition(" ")[0] for reason in shown.waits_for] == [n.name for n in topology.nodes[1:]]


@pytest.mark.parametrize("replicas", [0, 1, 2])
def test_members_without_data_that_can_ask_nobody_do_not_start_as_empty(replicas: int) -> None:
    """A data disk that is not mounted: every nodes.conf is there, no data, and nobody is left who could tell."""
    topology = make_topology(3, replicas)
    world = formed_world(topology)
    for node in topology.nodes:
        world.lose_data(node.name)
    with pytest.raises(RefusedError, match="has lost its data"):
        world.converge()
    assert not [node for node in world.facts.reachable_nodes() if node.slots], "no master serves emptiness"


def test_a_replica_without_data_is_no_stand_in() -> None:
    """Master and replica lost their data; the replica may start, and must not be promoted."""
    topology = make_topology(3, 1)
    world = formed_world(topology)
    world.lose_data("redis-1")
    world.lose_data(replicas_in(topology, 0)[0].name)
    with pytest.raises(RefusedError, match="redis-1 has lost its data"):
        world.converge()
    assert not [step for phase in world.phases for step in phase.steps if isinstance(step, Promote)]


def test_the_replica_with_data_is_the_stand_in() -> None:
    """Of two replicas that have just started, the one that has keys takes over."""
    topology = make_topology(3, 2)
    world = formed_world(topology)
    first, second = (node.name for node in replicas_in(topology, 0))
    for name in all_names(topology):
        world.kill(name)
    for name in ("redis-1", first):
        world.lose_data(name)
    world.converge()
    assert_whole(world)
    assert world.facts.nodes[second].slots == split_slots(3)[:1]
    assert not subtract(ALL_SLOTS, world.surviving_slots())


def test_a_member_that_moved_and_lost_its_data_is_not_started_as_empty() -> None:
    """Its ports were changed, so the others expect it under its old address; its replica still has the data."""
    topology = make_topology(3, 1)
    world = formed_world(topology)
    world.lose_data("redis-1")
    moved = replace(topology.node("redis-1"), port=8001, bus_port=18001)
    world.topology = replace(topology, nodes=(moved, *topology.nodes[1:]))
    world.facts = replace(world.facts, nodes={**world.facts.nodes, "redis-1": silent(moved)})
    with pytest.raises(RefusedError):
        world.converge()
    assert not world.facts.nodes["redis-1"].reachable
