"""restart under cuts, failovers and repetitions: every node once, masters after a handover, nobody waits in vain.

The ChangingWorld checks that no master with slots, no replica that is read, and no two nodes at once restart.
"""

from __future__ import annotations

from collections import Counter

import edits
import pytest
from changing import ChangingWorld, assert_in_order, changing_world, disturb, topologies, with_readers
from edits import all_of, envoy_with, node_with
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis import strategies as st
from topologies import make_topology, silent

from redisforge.errors import RefusedError
from redisforge.model.steps import AllowReads, Gate, Promote, RefuseReads, RestartUnit, Step
from redisforge.model.topology import Topology
from redisforge.plan.predict import Planner, predict
from redisforge.plan.restart import Restart, restart_phase
from redisforge.runbooks.change import Verb

many = settings(
    max_examples=120,
    deadline=None,
    phases=(HypothesisPhase.generate,),
    suppress_health_check=[HealthCheck.too_slow],
)


def restart(names: frozenset[str], since_s: float, *, force: bool = False) -> Verb:
    """`redisforge restart` by the clock of the World."""
    wanted = Restart(names=names, since_s=since_s, force=force)

    def planner(topology: Topology, *_: object) -> Planner:
        return lambda seen: restart_phase(topology, seen, wanted)

    return Verb(name="restart", what=", ".join(sorted(names)), planner=planner)


def steps_of(world: ChangingWorld, first: int) -> list[Step]:
    """The steps of all phases from number `first` on."""
    return [step for phase in world.phases[first:] for step in phase.steps]


@many
@given(topologies(least_replicas=1), st.data())
def test_each_node_restarts_once(topology: Topology, data: st.DataObject) -> None:
    world = changing_world(topology)
    names = [node.name for node in topology.nodes]
    disturb(world, data, names)
    chosen = frozenset(data.draw(st.sets(st.sampled_from(names), min_size=1), label="restart"))
    before = len(world.phases)
    world.run(restart(chosen, world.facts.observed_at_s))
    restarted = Counter(step.unit for step in steps_of(world, before) if isinstance(step, RestartUnit))
    assert restarted == Counter(chosen)
    assert_in_order(world)


@many
@given(topologies(least_replicas=1), st.data())
def test_a_restart_that_was_cut_is_finished(topology: Topology, data: st.DataObject) -> None:
    """Redis fails over meanwhile; the repeated command starts over, or, with the same clock, goes on."""
    world = changing_world(topology)
    names = [node.name for node in topology.nodes]
    chosen = frozenset(data.draw(st.sets(st.sampled_from(names), min_size=1), label="restart"))
    began_s = world.facts.observed_at_s
    for _ in range(data.draw(st.integers(1, 3), label="cuts")):
        world.run_cut(restart(chosen, began_s), data)
        disturb(world, data, names)
    world.run(restart(chosen, data.draw(st.sampled_from((began_s, world.facts.observed_at_s)), label="since")))
    assert_in_order(world)
    assert all(world.facts.units[name].started_at_s >= began_s for name in chosen)


@many
@given(topologies(least_replicas=1), st.data())
def test_nodes_crash_meanwhile(topology: Topology, data: st.DataObject) -> None:
    """kill -9 of masters and replicas, those that restart and others, between phases and in the middle."""
    world = changing_world(topology)
    names = [node.name for node in topology.nodes]
    chosen = frozenset(data.draw(st.sets(st.sampled_from(names), min_size=1), label="restart"))
    began_s = world.facts.observed_at_s
    world.run_hurt(restart(chosen, began_s), data)
    world.run(restart(chosen, began_s))
    assert_in_order(world)
    assert all(world.facts.units[name].started_at_s >= began_s for name in chosen)


@many
@given(topologies(), st.data())
def test_a_master_without_a_replica_is_restarted_by_force_only(topology: Topology, data: st.DataObject) -> None:
    world = changing_world(topology)
    name = data.draw(st.sampled_from([node.name for node in topology.nodes]), label="restart")
    alone = bool(world.facts.nodes[name].slots) and topology.replicas == 0
    verb = restart(frozenset({name}), world.facts.observed_at_s)
    if alone:
        with pytest.raises(RefusedError, match="no replica that could take over"):
            world.run(verb)
    else:
        world.run(verb)
    world.forced = True
    world.run(restart(frozenset({name}), world.facts.observed_at_s, force=True))
    assert_in_order(world)


def test_the_order_of_a_rolling_restart() -> None:
    """Replicas first, each after it was taken out of the reader endpoints; masters hand over, and are replicas then."""
    world = changing_world(with_readers(make_topology()))
    before = len(world.phases)
    world.run(restart(frozenset({"redis-1", "redis-4"}), world.facts.observed_at_s))
    named = (RestartUnit, Promote, RefuseReads)
    assert [str(step).split(" (")[0] for step in steps_of(world, before) if isinstance(step, named)] == [
        "redis-4: take it out of the reader endpoints",
        "restart redis-4",
        "redis-4: CLUSTER FAILOVER",
        "redis-1: take it out of the reader endpoints",
        "restart redis-1",
    ]


@pytest.mark.parametrize(
    ("refuses", "envoy_sees_it", "first"),
    [
        (False, False, RefuseReads),
        (False, True, RefuseReads),  # a verb that was cut off gave reads back, and Envoy is about to notice
        (True, False, RefuseReads),  # it is on its way out, and Envoy has not noticed
        (True, True, RestartUnit),
        (None, False, RefuseReads),
        (None, True, RestartUnit),
    ],
)
def test_a_replica_restarts_when_it_refuses_reads_and_envoy_knows(
    refuses: bool | None, envoy_sees_it: bool, first: type[Step]
) -> None:
    world = changing_world(with_readers(make_topology()))
    node = world.facts.nodes["redis-4"]
    seen = ((node.address, node.port),) if envoy_sees_it else ()
    edit = all_of(node_with(node.name, refuses_reads=refuses), envoy_with("envoy-1", unhealthy=seen))
    wanted = Restart(names=frozenset({node.name}), since_s=world.facts.observed_at_s)
    phase = restart_phase(world.topology, edit(world.topology, world.facts), wanted)
    assert phase
    assert isinstance(phase.steps[0], first)


def test_a_master_that_does_not_answer_for_a_moment_is_waited_for() -> None:
    """Until the others call it failed: then its slots are not served, and a verb has nothing to wait for."""
    topology = make_topology()
    world = changing_world(topology)
    wanted = Restart(names=frozenset({"redis-5"}), since_s=world.facts.observed_at_s)
    stalled = edits.put(world.facts, silent(topology.node("redis-1")))
    phase = restart_phase(topology, stalled, wanted)
    assert phase
    assert (phase.steps, phase.gate) == ((), Gate("promoted", topology.redis.node_timeout_ms / 1000 + 5.0))
    assert phase.title.startswith("wait for redis-1: ")

    failed = edits.every_line_with("redis-1", flags=("master", "fail"))(topology, world.facts)
    stalled = edits.put(failed, silent(topology.node("redis-1")))
    with pytest.raises(RefusedError, match="does not serve all slots"):
        restart_phase(topology, stalled, wanted)


def test_a_master_hands_over_to_a_replica_only_after_that_is_read_again() -> None:
    """Else both nodes of the shard are out of the reader endpoints when the old master restarts."""
    world = changing_world(with_readers(make_topology()))
    edit = node_with("redis-4", refuses_reads=True)  # it has just restarted, and Envoy has not noticed
    wanted = Restart(names=frozenset({"redis-1"}), since_s=world.facts.observed_at_s)
    phase = restart_phase(world.topology, edit(world.topology, world.facts), wanted)
    assert phase
    assert [type(step) for step in phase.steps] == [AllowReads]
    assert phase.gate == Gate("read_again", 15.0, node="redis-4")


@many
@given(topologies(least_replicas=1))
def test_the_prediction_is_what_happens(topology: Topology) -> None:
    world = changing_world(topology)
    verb = restart(frozenset(node.name for node in topology.nodes), world.facts.observed_at_s)
    planner = verb.planner(world.topology, world.facts, world.wishes)
    predicted = predict(world.topology, world.facts, world.wishes, planner)
    before = len(world.phases)
    world.run(verb)
    assert [phase.title for phase in predicted.phases] == [phase.title for phase in world.phases[before:]]


def test_while_slots_are_not_served_only_their_own_nodes_restart() -> None:
    """The others agree on who owns the slots of a dead shard: that is no order to begin a change in."""
    world = changing_world(make_topology(3, 1))
    shard = {"redis-1", next(node.name for node in world.facts.nodes.values() if is_copy_of(world, node.name))}
    for name in shard:
        world.kill(name)
    world.settle()
    other = next(name for name in world.facts.nodes if name not in shard)
    with pytest.raises(RefusedError, match="does not serve all slots") as refused:
        world.run(restart(frozenset({other}), world.facts.observed_at_s))
    assert "5461 slots: 0-5460" in (refused.value.where or "")
    world.run(restart(frozenset(shard), world.facts.observed_at_s))
    assert_in_order(world)


def is_copy_of(world: ChangingWorld, name: str) -> bool:
    """Whether it is a replica of redis-1."""
    return world.facts.nodes[name].master_id == world.facts.nodes["redis-1"].id
