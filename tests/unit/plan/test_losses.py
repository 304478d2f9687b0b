"""Data that is gone: given up only by name, and nowhere else."""

from __future__ import annotations

import pytest
from edits import all_of, every_line_with, gone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import all_names, formed, make_topology, master_of, replicas_in, wishes_for
from world import World, formed_world

from redisforge.errors import RefusedError
from redisforge.model.facts import UnitState
from redisforge.model.slots import count, subtract
from redisforge.model.steps import AssignSlots, Promote, StartUnit
from redisforge.plan import gates
from redisforge.plan.bring_up import next_phase
from redisforge.plan.placement import split_slots
from redisforge.plan.view import ALL_SLOTS

slow_enough = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def lose_shard(world: World, shard: int, *, keep_identity: bool) -> None:
    """Every node of the shard dies and its data with it; perhaps the nodes.conf of the master is left."""
    master, replicas = master_of(world.topology, shard), replicas_in(world.topology, shard)
    for node in (master, *replicas):
        (world.lose_data if keep_identity and node is master else world.lose_disk)(node.name)


def permitted(world: World) -> set[str]:
    """Nodes that were told to start blank since the cluster was formed."""
    return {s.unit for p in world.phases for s in p.steps if isinstance(s, StartUnit) and s.permit_blank}


@slow_enough
@given(st.integers(3, 5), st.integers(0, 2), st.data())
def test_accepting_a_loss_gives_up_that_shard_only(shards: int, replicas: int, data: st.DataObject) -> None:
    topology = make_topology(shards, replicas)
    world = formed_world(topology)
    shard = data.draw(st.integers(0, shards - 1))
    lose_shard(world, shard, keep_identity=data.draw(st.booleans(), label="nodes.conf is left"))
    if data.draw(st.booleans(), label="all go down"):
        for name in all_names(topology):
            world.kill(name)
    world.phases.clear()
    with pytest.raises(RefusedError) as refusal:
        world.converge()
    master = master_of(topology, shard).name
    assert f"--accept-data-loss {master}" in str(refusal.value)
    assert master not in permitted(world)
    world.wishes = wishes_for(topology, master)
    world.converge()
    assert gates.in_sync(topology, world.facts) == ()
    assert world.surviving_slots() == subtract(ALL_SLOTS, (split_slots(shards)[shard],))
    given = [r for p in world.phases for s in p.steps if isinstance(s, AssignSlots) for r in s.slots]
    assert subtract(given, (split_slots(shards)[shard],)) == (), "no slot of another shard was given out"


@slow_enough
@given(st.integers(3, 5), st.integers(0, 2), st.data())
def test_a_needless_consent_does_no_harm(shards: int, replicas: int, data: st.DataObject) -> None:
    """--accept-data-loss for nodes that have their data, or whose replicas have it, loses nothing."""
    topology = make_topology(shards, replicas)
    names = [node.name for node in topology.nodes]
    world = formed_world(topology)
    world.wishes = wishes_for(topology, *data.draw(st.sets(st.sampled_from(names))))
    for name in data.draw(st.sets(st.sampled_from(all_names(topology)))):
        world.kill(name)
    world.converge()
    assert gates.in_sync(topology, world.facts) == ()
    assert not subtract(ALL_SLOTS, world.surviving_slots())


def test_a_held_master_with_a_replica_is_replaced_not_blanked() -> None:
    """An empty master that waits: its replica is promoted, and only then it starts, as a replica."""
    world = formed_world(make_topology())
    world.lose_data("redis-1")
    world.phases.clear()
    world.converge()
    steps = [step for phase in world.phases for step in phase.steps]
    assert [step.node for step in steps if isinstance(step, Promote)] == ["redis-4"]
    assert permitted(world) == set()
    assert world.facts.nodes["redis-1"].master_id == world.facts.nodes["redis-4"].id
    assert not subtract(ALL_SLOTS, world.surviving_slots())


@pytest.mark.parametrize(("dead", "mode"), [(1, "force"), (2, "takeover"), (3, "takeover")])
def test_how_a_replica_takes_over(dead: int, mode: str) -> None:
    """With a majority of masters the others vote; without one nobody could."""
    topology = make_topology()
    held = all_of(*(gone(f"redis-{n}", UnitState.HELD, "its data is missing") for n in range(1, dead + 1)))
    phase = next_phase(topology, held(topology, formed(topology)), wishes_for(topology))
    assert phase
    assert {(s.node, s.mode) for s in phase.steps if isinstance(s, Promote)} == {
        (f"redis-{n}", mode) for n in range(4, 4 + dead)
    }


def test_the_most_advanced_replica_takes_over() -> None:
    topology = make_topology(3, 2)
    facts = gone("redis-1", UnitState.HELD, "its data is missing")(topology, formed(topology))
    copies = [node.name for node in replicas_in(topology, 0)]
    for offset, name in enumerate(copies, 10):
        facts = replace(facts, nodes={**facts.nodes, name: replace(facts.nodes[name], replication_offset=offset)})
    phase = next_phase(topology, facts, wishes_for(topology))
    assert phase
    assert [str(step) for step in phase.steps] == [f"{copies[-1]}: CLUSTER FAILOVER FORCE"]


def test_nobody_is_promoted_for_a_master_that_can_come_back() -> None:
    """It is down with its data on disk: it is started, which loses nothing."""
    topology = make_topology()
    phase = next_phase(topology, gone("redis-1")(topology, formed(topology)), wishes_for(topology))
    assert phase
    assert [str(step) for step in phase.steps] == ["start redis-1"]
    assert not any(isinstance(step, StartUnit) and step.permit_blank for step in phase.steps)


@slow_enough
@given(st.integers(3, 5), st.integers(0, 2), st.data())
def test_a_cluster_that_keeps_nothing_comes_back(shards: int, replicas: int, data: st.DataObject) -> None:
    """Without persistence a killed master is empty: a replica takes over if one lives, else it starts empty."""
    topology = make_topology(shards, replicas, mode="none")
    world = formed_world(topology)
    killed = data.draw(st.sets(st.sampled_from([node.name for node in topology.nodes])))
    for name in killed:
        world.kill(name)
    kept = world.surviving_slots()
    world.converge()
    assert gates.in_sync(topology, world.facts) == ()
    assert not subtract(kept, world.surviving_slots()), "what a living copy held is still there"
    assert count(ALL_SLOTS) == sum(count(node.slots) for node in world.facts.reachable_nodes())


def test_a_blank_node_that_nobody_expects_is_released() -> None:
    topology = make_topology()
    nobody = all_of(
        gone("redis-4", UnitState.HELD, "no other node can be asked"),
        every_line_with("redis-4", address="", port=0),
    )
    phase = next_phase(topology, nobody(topology, formed(topology)), wishes_for(topology))
    assert phase
    assert phase.steps == (StartUnit(unit="redis-4", permit_blank=True, why="nobody expects it"),)


def test_a_new_node_is_not_blanked_where_slots_are_expected() -> None:
    """Its Unit has no nodes.conf, and the others expect slots at its address: it starts under its guard."""
    world = formed_world(make_topology())
    world.lose_disk("redis-2")
    phase = world.next_phase()
    assert phase
    assert phase.steps == (StartUnit(unit="redis-2", permit_blank=False, why="it is meant to run and does not"),)
