"""Changed configuration: one Unit at a time, replicas before masters, masters after a hand-over.

The World checks each restart; here it is shown that all that drifted restarts, once, and nothing else does.
"""

from __future__ import annotations

from collections import Counter

import pytest
from changing import changing_world, with_readers
from edits import envoy_with, unit_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import all_names, formed, hosts_in_zones, make_topology, wishes_for
from world import World, formed_world

from redisforge.model.facts import EndpointFacts
from redisforge.model.slots import subtract
from redisforge.model.steps import Promote, RefuseReads, RestartUnit, Step
from redisforge.model.topology import Role
from redisforge.plan.bring_up import next_phase
from redisforge.plan.predict import predict_plan
from redisforge.plan.refresh import refresh_phase
from redisforge.plan.starting import Wishes
from redisforge.plan.view import ALL_SLOTS

slow_enough = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def drift(world: World, names: set[str]) -> list[Step]:
    """Declare `names` anew, converge, and return the steps."""
    before = len(world.phases)
    world.reconfigure(names)
    world.converge(limit=200)
    return [step for phase in world.phases[before:] for step in phase.steps]


@slow_enough
@given(st.integers(3, 5), st.integers(0, 2), st.integers(1, 2), st.data())
def test_what_drifted_restarts_once(shards: int, replicas: int, envoys: int, data: st.DataObject) -> None:
    world = formed_world(make_topology(shards, replicas, hosts_in_zones(1, 2), envoys=envoys))
    names = all_names(world.topology)
    for name in data.draw(st.lists(st.sampled_from([node.name for node in world.topology.nodes]), max_size=4)):
        world.fail_over(name)
    changed = data.draw(st.sets(st.sampled_from(names)))
    steps = drift(world, changed)
    assert Counter(step.unit for step in steps if isinstance(step, RestartUnit)) == Counter(changed)
    assert all(isinstance(step, RestartUnit | Promote) for step in steps)
    assert all(step.mode == "handover" for step in steps if isinstance(step, Promote))
    assert not subtract(ALL_SLOTS, world.surviving_slots())
    assert drift(world, changed) == [], "and a second look finds nothing"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (set[str](), []),
        ({"redis-4"}, ["restart redis-4"]),
        ({"redis-1"}, ["redis-4: CLUSTER FAILOVER", "restart redis-1"]),
        ({"envoy-1"}, ["restart envoy-1"]),
        ({"redis-1", "redis-4"}, ["restart redis-4", "redis-4: CLUSTER FAILOVER", "restart redis-1"]),
        (
            {"envoy-1", "redis-1", "redis-6"},
            ["restart redis-6", "redis-4: CLUSTER FAILOVER", "restart redis-1", "restart envoy-1"],
        ),
    ],
)
def test_the_order_of_restarts(changed: set[str], expected: list[str]) -> None:
    assert [str(step) for step in drift(formed_world(make_topology()), changed)] == expected


def test_no_read_fails_meanwhile_and_all_are_read_from_again() -> None:
    world = changing_world(with_readers(make_topology()))
    assert [str(step).split(" (")[0] for step in drift(world, {"redis-1", "redis-4"})] == [
        "redis-4: take it out of the reader endpoints",
        "restart redis-4",
        "redis-4: let it serve reads again",
        "redis-4: CLUSTER FAILOVER",
        "redis-1: take it out of the reader endpoints",
        "restart redis-1",
        "redis-1: let it serve reads again",
    ]
    assert [node.name for node in world.facts.nodes.values() if node.refuses_reads] == []


def test_reads_that_a_verb_took_away_and_was_cut_off_are_given_back() -> None:
    world = changing_world(with_readers(make_topology()))
    world.carry_out([RefuseReads(node="redis-5", why="it is about to restart")])
    assert [str(step).split(" (")[0] for step in drift(world, set())] == ["redis-5: let it serve reads again"]
    assert drift(world, set()) == []


def test_a_node_that_only_envoy_finds_unhealthy_is_left_to_it() -> None:
    topology = with_readers(make_topology())
    node = topology.node("redis-5")
    facts = envoy_with("envoy-1", unhealthy=((node.address, node.port),))(topology, formed(topology))
    assert next_phase(topology, facts, wishes_for(topology)) is None


def test_a_cut_rolling_change_is_finished() -> None:
    """Killed between any two steps, the next run restarts what is left and nothing twice."""
    for cut in range(1, 12):
        world = formed_world(make_topology(envoys=2))
        names = set(all_names(world.topology))
        world.reconfigure(names)
        before = len(world.phases)
        for _ in range(cut):
            if phase := world.next_phase():
                world.carry_out(phase.steps)
                world.settle()
        steps = drift(world, names)
        done = [step for phase in world.phases[before:] for step in phase.steps]
        assert steps == done[len(done) - len(steps) :]
        assert Counter(s.unit for s in done if isinstance(s, RestartUnit)) == Counter(names)


def test_a_master_without_a_replica_restarts_as_it_is() -> None:
    world = formed_world(make_topology(3, 0))
    assert [str(step) for step in drift(world, {"redis-2"})] == ["restart redis-2"]
    assert world.facts.nodes["redis-2"].role is Role.MASTER


def test_nothing_restarts_before_the_cluster_is_whole() -> None:
    """A node is down and another has drifted: first it is started, then the other restarts."""
    world = formed_world(make_topology())
    world.kill("redis-4")
    assert [str(step) for step in drift(world, {"redis-5"})] == ["start redis-4", "restart redis-5"]


def test_the_running_configuration_may_be_unknown() -> None:
    """A Unit whose keeper cannot say what it was started with is left alone."""
    topology = make_topology()
    facts = unit_with("redis-4", config_hash="")(topology, formed(topology))
    assert next_phase(topology, facts, wishes_for(topology)) is None


def test_an_outdated_envoy_restarts_although_its_endpoints_fail() -> None:
    """It does not have the endpoint that is declared now, and waiting would not bring it."""
    topology = make_topology()
    failing = tuple(
        EndpointFacts(
            name=e.name,
            envoy=e.envoy,
            address=e.address,
            port=e.port,
            protocol=e.protocol,
            user=e.user,
            problem="refused",
        )
        for e in formed(topology).endpoints
    )
    facts = replace(formed(topology), endpoints=failing)
    phase = next_phase(topology, facts, wishes_for(topology))
    assert phase
    assert (phase.steps, phase.gate.name, phase.gate.envoy) == ((), "endpoints_serve", "")
    drifted = unit_with("envoy-1", config_hash="older")(topology, facts)
    phase = next_phase(topology, drifted, wishes_for(topology))
    assert phase
    assert [str(step) for step in phase.steps] == ["restart envoy-1"]
    assert (phase.gate.name, phase.gate.envoy) == ("endpoints_serve", "envoy-1")


def test_files_that_need_no_restart_are_placed_last() -> None:
    topology = make_topology()
    wishes = replace(wishes_for(topology), placed_hashes=dict.fromkeys(wishes_for(topology).config_hashes, "new"))
    facts = formed(topology)
    for name in wishes.config_hashes:
        facts = unit_with(name, placed_hash="new" if name == "redis-2" else "old")(topology, facts)
    outdated = unit_with("redis-5", config_hash="older")(topology, facts)

    plan = predict_plan(topology, outdated, wishes)

    assert [str(step) for step in plan.phases[0].steps] == ["restart redis-5"]
    placed = [str(step) for step in plan.phases[-1].steps]
    others = [name for name in wishes.config_hashes if name not in ("redis-2", "redis-5")]
    assert placed == [f"place the files of {name}" for name in others]
    assert not plan.phases[2:]


def test_files_are_not_placed_under_a_unit_that_is_not_known() -> None:
    topology = make_topology()
    assert next_phase(topology, formed(topology), wishes_for(topology)) is None
    assert refresh_phase(formed(topology), {}, {"redis-9": "new"}) is None


def test_nodes_of_others_are_never_restarted() -> None:
    topology = make_topology()
    facts = unit_with("redis-4", config_hash="older")(topology, formed(topology))
    assert next_phase(topology, facts, Wishes()) is None
