"""scale and rebalance, cut anywhere, repeated, or taken back: they end where they should, and nobody notices.

What must never be done on the way is checked by the ChangingWorld for every phase and after every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
from changing import (
    ChangingWorld,
    assert_in_order,
    changing_world,
    disturb,
    shape_of,
    topologies,
    unevenly,
    with_readers,
)
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from topologies import HASH, formed, hosts_in_zones, make_topology, wishes_for

from redisforge.cli.scale import removal_question, scaling_question
from redisforge.errors import NotFoundError, RefusedError, UsageError
from redisforge.model.slots import SLOT_COUNT, SlotRange, count
from redisforge.model.steps import MoveSlots, Plan
from redisforge.model.steps import Phase as PlannedPhase
from redisforge.model.topology import Role, Topology
from redisforge.plan.predict import predict
from redisforge.plan.removal import refuse_single_copies
from redisforge.plan.starting import Wishes
from redisforge.runbooks.scale import Newcomer, Options, add_verb, rebalance_verb, remove_verb, scale_verb

many = settings(
    max_examples=120,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow],
)

UNPROTECTED = Options(force=True)
"""`--force`: the last replicas may go, too."""


def assert_shape(world: ChangingWorld, shards: int, replicas: int) -> None:
    """As many masters and replicas as asked for."""
    assert shape_of(world.facts) == {replicas: shards}
    assert (world.topology.shards, world.topology.replicas) == (shards, replicas)
    assert len(world.topology.nodes) == shards * (replicas + 1)


def shares(world: ChangingWorld) -> dict[str, int]:
    """Slots by master."""
    return {n.name: count(n.slots) for n in world.facts.reachable_nodes() if n.role is Role.MASTER}


def carefully(act: Callable[[], None]) -> None:
    """Do it, or give up the example where too many masters would stand in one zone."""
    try:
        act()
    except RefusedError as refusal:
        if "one zone" not in str(refusal):
            raise
        reject()


def assert_whole_but_for_roles(world: ChangingWorld) -> None:
    """In order, and of any number of replicas."""
    assert_in_order(world)
    assert world.topology.shards == len(shares(world))


@many
@given(topologies(), st.integers(3, 7), st.integers(0, 3), st.data())
def test_any_number_of_shards_and_replicas(topology: Topology, shards: int, replicas: int, data: st.DataObject) -> None:
    world = changing_world(topology)
    disturb(world, data, [node.name for node in topology.nodes])
    unevenly(world, data)
    verb = scale_verb(shards, replicas, UNPROTECTED)
    for _ in range(data.draw(st.integers(0, 3), label="cuts")):
        carefully(lambda: world.run_cut(verb, data))
        disturb(world, data, [node.name for node in world.topology.nodes])
    carefully(lambda: world.run(verb))
    assert_in_order(world)
    assert_shape(world, shards, replicas)
    assert world.ask(world.begin(verb)) is None
    if shards > topology.shards:
        assert max(shares(world).values()) - min(shares(world).values()) <= 1


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_last_replicas_of_all_shards_leave_only_with_force(replicas: int) -> None:
    world = changing_world(make_topology(4, replicas))
    with pytest.raises(RefusedError) as refusal:
        world.begin(scale_verb(3, 0, Options()))
    assert refusal.value.what == "the last replicas of 3 shards would be deleted"
    assert "redis-5 of redis-1 (0-4095)" in refusal.value.where.replace("redis-5, redis-9", "redis-5")
    assert "`redisforge scale --replicas 1`" in refusal.value.next_step
    assert "--force" in refusal.value.next_step
    world.run(scale_verb(3, 0, UNPROTECTED))
    assert_shape(world, 3, 0)
    assert world.ask(world.begin(scale_verb(3, 0, Options()))) is None, "there is nothing to refuse any more"
    world.run(scale_verb(4, 0, Options()))
    assert_shape(world, 4, 0)


def test_many_shards_that_lose_their_replicas_are_counted() -> None:
    topology = make_topology(9, 1)
    leaving = frozenset(node.name for node in topology.nodes if node.intended_role is Role.REPLICA)
    with pytest.raises(RefusedError) as refusal:
        refuse_single_copies(topology, formed(topology), leaving)
    assert refusal.value.what == "the last replicas of 9 shards would be deleted"
    assert refusal.value.where.endswith("; and those of 3 more")


def test_the_question_names_each_node_whose_data_is_deleted() -> None:
    topology = make_topology(3, 1)
    verb, wishes = scale_verb(3, 0, UNPROTECTED), wishes_for(topology)
    facts = formed(topology)
    plan = predict(topology, facts, wishes, verb.planner(topology, facts, wishes))
    assert scaling_question("main", plan, "3 masters with 0 replicas each stay.") == (
        "3 masters with 0 replicas each stay. Take nodes out of main: "
        "delete 3 nodes (redis-4, redis-5, redis-6) with all data on them?"
    )
    assert scaling_question("main", Plan(phases=()), "") == ""


def test_replicas_of_an_emptied_master_count_once_it_has_become_a_replica() -> None:
    """They are not attached to a new master yet when the run is killed; else too many stay."""
    world = changing_world(make_topology(5, 1))
    verb = scale_verb(3, 3, Options())
    planner, titles = world.begin(verb), list[str]()
    while phase := world.ask(planner):
        titles.append(phase.title)
        if phase.title.startswith("attach") and any(title.startswith("move") for title in titles):
            break
        world.carry_out(phase.steps)
        world.wait_for(phase)
    phase = world.ask(world.begin(verb))  # killed before the first of them; the next run is killed after it
    assert phase
    world.carry_out(phase.steps[:1])
    world.run(verb)
    assert_in_order(world)
    assert_shape(world, 3, 3)


def test_replicas_that_follow_an_emptied_master_to_its_new_one_are_evened_out() -> None:
    """A master that a cut-off run has emptied becomes a replica, and Redis takes its own replicas along."""
    world = changing_world(with_readers(make_topology(6, 2)))
    verb = scale_verb(4, 3, Options())
    planner = world.begin(verb)
    while phase := world.ask(planner):
        if phase.title.startswith("attach") and any(seen.title.startswith("move") for seen in world.phases):
            break
        world.carry_out(phase.steps)
        world.wait_for(phase)
    assert phase
    emptied = next(node for node in world.facts.reachable_nodes() if node.role is Role.MASTER and not node.slots)
    heir = next(node.name for node in world.facts.reachable_nodes() if node.master_id == emptied.id)
    world.fail_over(heir)
    world.run(verb)
    assert_in_order(world)
    assert_shape(world, 4, 3)
    assert world.ask(world.begin(verb)) is None


def test_a_new_replica_stands_apart_from_the_shard_that_it_joins_also_after_slots_have_moved() -> None:
    """Shards are numbered by their first slot: after a rebalance these numbers are others than those on record."""
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1)))
    second, third = (node for node in world.facts.reachable_nodes() if node.slots and node.slots[0].first)
    for source, target, first in ((second, third, 5461), (third, second, 16300)):
        moved = (SlotRange(first, first + 50),)
        world.carry_out([MoveSlots(source=source.name, target=target.name, slots=moved, why="by weight, and back")])
        world.settle()
    world.run(scale_verb(3, 2, Options()))
    assert_in_order(world)
    host_of = {node.name: node.host for node in world.topology.nodes}
    nodes = world.facts.reachable_nodes()
    for master in (node for node in nodes if node.slots):
        copies = [node.name for node in nodes if master.id in (node.id, node.master_id)]
        assert len({host_of[name] for name in copies}) == 3, f"two copies on one host: {copies}"


@many
@given(topologies(), st.integers(3, 6), st.integers(0, 2), st.data())
def test_a_scale_that_was_cut_is_taken_back(
    topology: Topology, shards: int, replicas: int, data: st.DataObject
) -> None:
    """The opposite verb goes on from where the first one was killed."""
    world = changing_world(topology)
    carefully(lambda: world.run_cut(scale_verb(shards, replicas, UNPROTECTED), data))
    back = scale_verb(topology.shards, topology.replicas, UNPROTECTED)
    carefully(lambda: world.run(back))
    assert_in_order(world)
    assert_shape(world, topology.shards, topology.replicas)
    assert world.ask(world.begin(back)) is None


@many
@given(topologies(), st.integers(3, 6), st.integers(0, 2), st.data())
def test_nodes_crash_meanwhile(topology: Topology, shards: int, replicas: int, data: st.DataObject) -> None:
    """kill -9 of masters and replicas, of those that join and those that leave, between phases and in the middle."""
    world = changing_world(topology)
    verb = scale_verb(shards, replicas, UNPROTECTED)
    carefully(lambda: world.run_hurt(verb, data))
    carefully(lambda: world.run(verb))  # a crash after the last phase is healed by the next run
    assert_in_order(world)
    assert_shape(world, shards, replicas)


@many
@given(topologies(least_shards=3), st.data())
def test_one_node_is_removed(topology: Topology, data: st.DataObject) -> None:
    """A master, a replica, or one that is dead."""
    world = changing_world(topology)
    names = [node.name for node in topology.nodes]
    disturb(world, data, names)
    unevenly(world, data)
    name = data.draw(st.sampled_from(names), label="leaves")
    was = world.facts.nodes[name]
    is_dead = data.draw(st.booleans(), label="dead")
    if is_dead:
        world.kill(name)
        for replica in [n.name for n in world.facts.reachable_nodes() if n.master_id == was.id][:1]:
            world.fail_over(replica)
        world.settle()
    verb = remove_verb(name, Options(force=True))
    again = remove_verb(name, Options(force=True), removed_before=lambda: True)
    try:
        for _ in range(data.draw(st.integers(0, 3), label="cuts")):
            world.run_cut(verb, data)
        world.run(verb)
    except RefusedError as refusal:
        owners = [node for node in world.facts.reachable_nodes() if node.slots]
        about_the_dead = ("owns slots", "does not serve", "gone")
        allowed = ("one zone", *(about_the_dead if is_dead else ()))
        if len(owners) > 3 and not any(words in str(refusal) for words in allowed):
            raise
        return
    assert name not in world.facts.nodes
    left = world.topology
    assert world.ask(world.begin(again)) is None
    assert again.result(world.topology, world.facts) == world.topology == left
    assert "already gone" in again.notices[0]
    with pytest.raises(NotFoundError):  # another word, or a journal that knows of no such run
        world.begin(verb)
    world.killed = False
    assert_whole_but_for_roles(world)


@many
@given(topologies(), st.data())
def test_weights(topology: Topology, data: st.DataObject) -> None:
    """Every master has its share within a slot, or, within the threshold, nothing moves."""
    world = changing_world(topology)
    disturb(world, data, [node.name for node in topology.nodes])
    unevenly(world, data)
    masters = sorted(shares(world))
    weights = data.draw(
        st.dictionaries(st.sampled_from(masters), st.floats(0.25, 8).map(lambda weight: round(weight, 2))),
        label="weights",
    )
    threshold = data.draw(st.sampled_from((0.0, 0.0, 2.0, 20.0)), label="threshold")
    verb = rebalance_verb(threshold, Options(weights=weights))
    for _ in range(data.draw(st.integers(0, 2), label="cuts")):
        world.run_cut(verb, data)
    world.run(verb)
    assert_in_order(world)
    total = sum(weights.get(name, 1.0) for name in masters)
    for name, held in shares(world).items():
        share = SLOT_COUNT * weights.get(name, 1.0) / total
        assert abs(held - share) <= max(1.0, share * threshold / 100 + 1), name


@many
@given(topologies(least_replicas=1), st.sampled_from(("master", "replica")), st.data())
def test_a_node_of_somebody_else_joins(
    topology: Topology, role: Literal["master", "replica"], data: st.DataObject
) -> None:
    world = changing_world(topology)
    world.add_stranger("10.9.0.1", 6390)
    verb = add_verb(Newcomer(address="10.9.0.1", port=6390, role=role, zone="zone-9"), Options())
    for _ in range(data.draw(st.integers(0, 3), label="cuts")):
        world.run_cut(verb, data)
    world.run(verb)
    assert_whole_but_for_roles(world)
    assert world.facts.nodes["10.9.0.1:6390"].role == role
    assert len(shares(world)) == topology.shards + (role == "master")
    assert max(shares(world).values()) - min(shares(world).values()) <= 1


def test_what_somebody_else_runs_is_reset_and_not_stopped() -> None:
    world = changing_world(make_topology(3, 1))
    world.add_stranger("10.9.0.1", 6390)
    world.run(add_verb(Newcomer(address="10.9.0.1", port=6390, role="replica"), Options()))
    titles, steps = removal_of(world, "10.9.0.1:6390")
    assert "reset 10.9.0.1:6390" in titles
    assert not any(title.startswith("stop") for title in titles)
    assert removal_question(Plan(steps), "10.9.0.1:6390", "main") == (
        "Take 10.9.0.1:6390 out of main, and empty and reset it (CLUSTER RESET HARD)? It goes on running."
    )
    world = changing_world(make_topology(3, 2))
    titles, steps = removal_of(world, "redis-9")
    assert "stop redis-9" in titles
    assert removal_question(Plan(steps), "redis-9", "main") == "Take redis-9 out of main and delete it?"
    assert removal_question(Plan(), "redis-9", "main") == "Take redis-9 out of main?", "its host is lost"


def removal_of(world: ChangingWorld, name: str) -> tuple[list[str], tuple[PlannedPhase, ...]]:
    """The titles and phases of its removal, as `--dry-run` has them."""
    planner = world.begin(remove_verb(name, Options()))
    hashes = dict.fromkeys(world.facts.units, HASH)
    plan = predict(world.topology, world.facts, Wishes(hashes), planner)
    return [phase.title for phase in plan.phases], plan.phases


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_named(weight: float) -> None:
    world = changing_world(make_topology(3, 1))
    with pytest.raises(UsageError, match=f"the weight of redis-1 is {weight:g} and must be above 0"):
        world.begin(rebalance_verb(0.0, Options(weights={"redis-1": weight})))
