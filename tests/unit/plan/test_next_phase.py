"""Single decisions of the planner: this is seen, that is done next. Where they lead is in test_convergence.py."""

from __future__ import annotations

import pytest
from edits import Edit, all_of, also_listing, blank, blank_node, every_line_with, gone, line_with, node_with, unchanged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import all_names, formed, hosts_in_zones, make_topology, nothing_runs, wishes_for
from world import formed_world

from redisforge.model.facts import Facts, PeerView, UnitState
from redisforge.model.slots import SlotRange, subtract
from redisforge.model.steps import Meet, Phase, Replicate, StartUnit
from redisforge.model.topology import Role, Topology
from redisforge.plan.bring_up import next_phase
from redisforge.plan.placement import split_slots
from redisforge.plan.starting import Wishes
from redisforge.plan.view import ALL_SLOTS

TOPOLOGY = make_topology()
"""redis-1 to redis-3 are masters, redis-4 to redis-6 their replicas."""
FORMED = formed(TOPOLOGY)


def with_keys(topology: Topology, facts: Facts) -> Facts:
    """Ten keys in every node."""
    return replace(facts, nodes={name: replace(node, keys=10) for name, node in facts.nodes.items()})


def blanks(topology: Topology) -> Facts:
    """Nodes of somebody else that have just been started."""
    return replace(nothing_runs(topology), nodes={n.name: blank_node(topology, n.name) for n in topology.nodes})


def next_of(edit: Edit, facts: Facts = FORMED, topology: Topology = TOPOLOGY, wishes: Wishes | None = None) -> Phase:
    """The next phase after `edit`; there must be one."""
    wishes = wishes or (wishes_for(topology) if facts.units else Wishes())
    phase = next_phase(topology, edit(topology, facts), wishes)
    assert phase
    return phase


def words(phase: Phase) -> list[str]:
    """The steps as they are printed."""
    return [str(step) for step in phase.steps]


failed_over = all_of(
    every_line_with("redis-4", flags=("master",), master_id="", slots=(SlotRange(0, 5460),), config_epoch=9),
    line_with("redis-4", flags=("myself", "master")),
    every_line_with("redis-1", flags=("master", "fail"), slots=()),
)
"""redis-1 is gone, and redis-4 has taken over."""


def test_a_new_cluster_starts_as_blank_nodes_without_envoys() -> None:
    phase = next_phase(TOPOLOGY, nothing_runs(TOPOLOGY), wishes_for(TOPOLOGY))
    assert phase
    assert phase.steps == tuple(
        StartUnit(unit=node.name, permit_blank=True, why="it is meant to run and does not") for node in TOPOLOGY.nodes
    )


def test_members_start_before_blank_nodes() -> None:
    """Those that have data can tell the blank one what is expected of it."""
    lost = all_of(with_keys, *(gone(name) for name in ("redis-1", "redis-2", "redis-4")))
    facts = lost(TOPOLOGY, FORMED)
    units = {**facts.units, "redis-2": replace(facts.units["redis-2"], has_cluster_config=False)}
    phase = next_phase(TOPOLOGY, replace(facts, units=units), wishes_for(TOPOLOGY))
    assert phase
    assert words(phase) == ["start redis-1", "start redis-4"]
    assert not any(isinstance(step, StartUnit) and step.permit_blank for step in phase.steps)


def test_a_silent_member_is_heard_before_a_blank_node_starts() -> None:
    """It may still be reading its data, and be the only one that expects slots of the blank one."""
    facts = all_of(with_keys, gone("redis-1", UnitState.RUNNING), gone("redis-4"))(TOPOLOGY, FORMED)
    units = {**facts.units, "redis-4": replace(facts.units["redis-4"], has_cluster_config=False)}
    phase = next_phase(TOPOLOGY, replace(facts, units=units), wishes_for(TOPOLOGY))
    assert phase
    assert (phase.steps, phase.gate.name) == ((), "nodes_answer")


def test_slots_are_given_to_the_declared_masters_with_different_epochs() -> None:
    assert words(next_of(unchanged, blanks(TOPOLOGY))) == [
        "redis-1: CLUSTER SET-CONFIG-EPOCH 1",
        "redis-1: CLUSTER ADDSLOTSRANGE 0 5460",
        "redis-2: CLUSTER SET-CONFIG-EPOCH 2",
        "redis-2: CLUSTER ADDSLOTSRANGE 5461 10921",
        "redis-3: CLUSTER SET-CONFIG-EPOCH 3",
        "redis-3: CLUSTER ADDSLOTSRANGE 10922 16383",
    ]


def test_only_what_is_missing_is_given_out() -> None:
    """Redis refuses the whole command if one slot has an owner, and an epoch once one is set or a node is known."""
    half = all_of(
        line_with("redis-1", slots=(SlotRange(0, 5460),)),
        line_with("redis-2", slots=(SlotRange(6000, 6999),)),
        node_with("redis-2", current_epoch=2),
        also_listing("redis-3", PeerView(id="blank-redis-6", address="127.0.0.1", port=7006, flags=("master",))),
    )
    assert words(next_of(half, blanks(TOPOLOGY))) == [
        "redis-2: CLUSTER ADDSLOTSRANGE 5461 5999 7000 10921",
        "redis-3: CLUSTER ADDSLOTSRANGE 10922 16383",
    ]


def test_a_slot_is_given_to_the_shard_where_it_already_is() -> None:
    """Formation was cut after a replica of shard 1 had been given the first slots: it stays the master."""
    odd = line_with("redis-4", slots=(SlotRange(0, 99),))
    assert words(next_of(odd, blanks(TOPOLOGY)))[:2] == [
        "redis-4: CLUSTER SET-CONFIG-EPOCH 1",
        "redis-4: CLUSTER ADDSLOTSRANGE 100 5460",
    ]


@pytest.mark.parametrize(("shards", "replicas", "meetings"), [(3, 1, 15), (4, 3, 120), (5, 3, 19), (8, 2, 23)])
def test_everybody_is_introduced_and_many_by_one(shards: int, replicas: int, meetings: int) -> None:
    """Every pair of up to 16 nodes; above, one node introduces all and gossip does the rest."""
    topology = make_topology(shards, replicas)
    owners = zip((f"redis-{n}" for n in range(1, shards + 1)), split_slots(shards), strict=True)
    given = all_of(*(line_with(name, slots=(slots,)) for name, slots in owners))
    phase = next_of(given, blanks(topology), topology)
    assert len(phase.steps) == meetings
    assert all(isinstance(step, Meet) for step in phase.steps)
    assert phase.gate.name == "all_met"


def test_two_that_do_not_know_each_other_are_introduced_by_themselves_in_a_large_cluster() -> None:
    topology = make_topology(6, 2)
    split = all_of(line_with("redis-7", "redis-9", link_up=False), line_with("redis-9", "redis-7", link_up=False))
    assert words(next_of(split, formed(topology), topology)) == ["redis-7: CLUSTER MEET redis-9"]


def test_owners_greet_who_has_not_heard_of_their_slots() -> None:
    assert words(next_of(line_with("redis-5", "redis-2", slots=()))) == ["redis-2: CLUSTER MEET redis-5"]


@pytest.mark.parametrize(
    "edit",
    [
        all_of(gone("redis-1", UnitState.RUNNING), with_keys),
        all_of(gone("redis-1", UnitState.BACKOFF), with_keys),
        all_of(gone("redis-1", UnitState.RUNNING), node_with("redis-1", loading=True), with_keys),
    ],
    ids=["silent", "keeps dying", "loading"],
)
def test_nobody_takes_over_from_a_master_that_may_answer_soon(edit: Edit) -> None:
    phase = next_of(edit)
    assert (phase.steps, phase.gate.name) == ((), "in_sync")


def test_a_master_that_is_reborn_blank_is_replaced() -> None:
    """Whatever runs at its address now, it is not that master: its replica has the data."""
    world = formed_world(TOPOLOGY)
    world.reborn("redis-1")
    phase = world.next_phase()
    assert phase
    assert all(isinstance(step, Meet) for step in phase.steps)
    world.carry_out(phase.steps)
    world.settle()
    phase = world.next_phase()
    assert phase
    assert words(phase) == ["redis-4: CLUSTER FAILOVER FORCE"]


def test_a_free_node_goes_to_its_shard_or_where_a_replica_is_missing() -> None:
    topology = make_topology(3, 1, hosts_in_zones(1, 1, 1))
    facts = formed(topology)
    replica = next(node for node in topology.nodes if node.intended_role is Role.REPLICA and node.shard == 0)
    free = line_with(replica.name, flags=("myself", "master"), master_id="")
    assert words(next_of(free, facts, topology)) == [f"{replica.name}: CLUSTER REPLICATE redis-1"]
    other = next(node for node in topology.nodes if node.intended_role is Role.REPLICA and node.shard == 1)
    full = all_of(free, every_line_with(other.name, master_id=facts.nodes["redis-1"].id))
    assert words(next_of(full, facts, topology)) == [f"{replica.name}: CLUSTER REPLICATE redis-2"]


def test_a_member_without_slots_that_holds_keys_is_not_overwritten() -> None:
    """A former master with keys that nobody else has: CLUSTER REPLICATE would delete them (Redis refuses it too)."""
    odd = all_of(line_with("redis-5", flags=("myself", "master"), master_id=""), node_with("redis-5", keys=7))
    phase = next_of(odd)
    assert not [step for step in phase.steps if isinstance(step, Replicate)]
    assert phase.gate.name == "in_sync"


def test_a_dead_identity_is_forgotten_by_all() -> None:
    dead = PeerView(id="dead", address="", port=0, flags=("master", "fail", "noaddr"))
    listed = all_of(*(also_listing(node.name, dead) for node in TOPOLOGY.nodes))
    assert words(next_of(listed)) == [f"redis-{n}: CLUSTER FORGET dead" for n in range(1, 7)]


def test_somebody_who_is_being_introduced_is_not_forgotten() -> None:
    """An entry in handshake has a provisional id and goes away by itself."""
    coming = PeerView(id="provisional", address="", port=0, flags=("handshake", "noaddr"))
    facts = also_listing("redis-1", coming)(TOPOLOGY, FORMED)
    assert next_phase(TOPOLOGY, facts, wishes_for(TOPOLOGY)) is None


def test_a_dead_identity_with_a_follower_is_not_forgotten() -> None:
    """Its replica has the data, and takes over before anything else happens to the identity."""
    dead = PeerView(id="dead", address="", port=0, flags=("master", "fail", "noaddr"), slots=(SlotRange(5461, 10921),))
    listed = all_of(*(also_listing(node.name, dead) for node in TOPOLOGY.nodes))
    following = all_of(listed, every_line_with("redis-5", master_id="dead"), every_line_with("redis-2", slots=()))
    assert words(next_of(following)) == ["redis-5: CLUSTER FAILOVER FORCE"]


def test_a_dead_identity_is_not_forgotten_before_its_replica_has_moved() -> None:
    """Its slots are redis-2's now; Redis moves the replica by itself, unless the id is unknown by then."""
    dead = PeerView(id="dead", address="", port=0, flags=("master", "fail", "noaddr"))
    listed = all_of(*(also_listing(node.name, dead) for node in TOPOLOGY.nodes))
    follower = all_of(listed, every_line_with("redis-5", master_id="dead"), node_with("redis-5", master_link_up=False))
    phase = next_of(follower)
    assert (phase.steps, phase.gate.name) == ((), "in_sync")


def test_whoever_is_not_named_to_proxies_greets() -> None:
    others = tuple(node.id for node in FORMED.nodes.values() if node.name != "redis-5")
    assert words(next_of(node_with("redis-2", listed=others))) == ["redis-5: CLUSTER MEET redis-2"]


@pytest.mark.parametrize(
    "edit",
    [node_with("redis-5", master_link_up=False), node_with("redis-3", cluster_state="fail")],
    ids=["a link is down", "a master in its first seconds"],
)
def test_what_settles_by_itself_is_waited_for(edit: Edit) -> None:
    phase = next_of(edit)
    assert (phase.steps, phase.gate.name) == ((), "in_sync")


def test_accepted_slots_are_given_with_an_epoch_above_all() -> None:
    lost = all_of(with_keys, blank("redis-1"), blank("redis-4"), node_with("redis-2", current_epoch=41))
    phase = next_of(lost, wishes=wishes_for(TOPOLOGY, "redis-1"))
    assert words(phase) == ["redis-1: CLUSTER SET-CONFIG-EPOCH 42", "redis-1: CLUSTER ADDSLOTSRANGE 0 5460"]


def test_a_master_of_the_past_is_not_one_master_too_many() -> None:
    """It has just come back, claims what was taken over meanwhile, and has not heard of that."""
    back = all_of(
        failed_over,
        line_with("redis-1", "redis-4", flags=("slave",), slots=(), master_id=FORMED.nodes["redis-1"].id),
        line_with("redis-1", flags=("myself", "master"), slots=(SlotRange(0, 5460),)),
        node_with("redis-1", cluster_state="fail"),
    )
    phase = next_of(all_of(with_keys, back))
    assert (phase.steps, phase.gate.name) == ((), "in_sync")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(3, 6), st.integers(1, 2), st.data())
def test_nothing_is_refused_before_news_has_spread(shards: int, replicas: int, data: st.DataObject) -> None:
    """Nodes come back with what they knew, and are planned for before they have heard what happened meanwhile."""
    world = formed_world(make_topology(shards, replicas))
    names = [node.name for node in world.topology.nodes]
    for _ in range(data.draw(st.integers(1, 3))):
        world.kill(data.draw(st.sampled_from(names), label="kill"))
        world.fail_over(data.draw(st.sampled_from(names), label="fail over"))
    if data.draw(st.booleans(), label="all go down"):
        for name in all_names(world.topology):
            world.kill(name)
    for _ in range(3):
        if phase := world.next_phase():
            world.carry_out(phase.steps)
    world.settle()
    world.converge()
    assert not subtract(ALL_SLOTS, world.surviving_slots())
