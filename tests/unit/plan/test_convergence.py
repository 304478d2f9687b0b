"""From any state that can be reached, planning again and again ends in a whole cluster, or refuses where data is gone.

What must never be done on the way is checked by the World for every phase.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from topologies import all_names, hosts_in_zones, make_topology, master_of
from world import World, formed_world

from redisforge.errors import RefusedError
from redisforge.model.slots import subtract
from redisforge.model.steps import RestartUnit, StartUnit, Step, StopUnit
from redisforge.model.topology import Role, Topology
from redisforge.plan import gates
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


def target_of(step: Step) -> str:
    return step.unit if isinstance(step, StartUnit | RestartUnit | StopUnit) else step.node


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
        "orphan": world.orphan,
    }  # fmt: skip
    for event in data.draw(st.lists(st.sampled_from(sorted(events)), min_size=1, max_size=8)):
        events[event](data.draw(st.sampled_from(names), label=event))
        if data.draw(st.booleans(), label="gossip goes on"):
            world.settle()
    if data.draw(st.booleans(), label="all go down"):
        for name in all_names(topology):
            world.kill(name)
    intact = not subtract(ALL_SLOTS, world.surviving_slots())
    refusal = heal(world)
    if refusal:
        assert not intact, f"refused although all data is there: {refusal}"
        return
    assert intact, "it went on although data is gone"
    assert_whole(world)
    assert not subtract(ALL_SLOTS, world.surviving_slots()), "data got lost on the way"
