"""What formation must never touch: every refusal says what was found, and what is harmless is not refused."""

from __future__ import annotations

import pytest
from edits import (
    Edit,
    all_of,
    also_listing,
    blank,
    blank_node,
    every_line_with,
    gone,
    line_with,
    node_with,
    unchanged,
)
from msgspec.structs import replace
from topologies import formed, make_topology, nothing_runs, wishes_for

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, PeerView, UnitState
from redisforge.model.slots import SlotRange
from redisforge.model.topology import Topology
from redisforge.plan.bring_up import next_phase
from redisforge.plan.predict import apply, settle
from redisforge.plan.refusals import lost_identities, places_of, refuse_if_unsafe
from redisforge.plan.starting import Wishes

TOPOLOGY = make_topology()
"""redis-1 to redis-3 are masters, redis-4 to redis-6 their replicas."""
FORMED = formed(TOPOLOGY)
BLANK = replace(nothing_runs(TOPOLOGY), nodes={node.name: blank_node(TOPOLOGY, node.name) for node in TOPOLOGY.nodes})
STRANGER = PeerView(id="f" * 40, address="10.9.9.9", port=7001, flags=("master",))


def with_keys(topology: Topology, facts: Facts) -> Facts:
    """Ten keys in every node that has slots, and in its replicas."""
    nodes = {name: replace(node, keys=10) for name, node in facts.nodes.items()}
    return replace(facts, nodes=nodes)


def half_done(topology: Topology, facts: Facts) -> Facts:
    """A formation cut after the slots were given out."""
    if phase := next_phase(topology, facts, Wishes()):
        facts = settle(topology, apply(topology, facts, phase.steps, Wishes()))
    return facts


two_clusters = all_of(
    node_with(
        "redis-1",
        peers=(
            PeerView(id="one", address="127.0.0.1", port=7001, flags=("myself", "master"), slots=(SlotRange(0, 9),)),
        ),
        id="one",
    ),
    node_with(
        "redis-2",
        peers=(
            PeerView(id="two", address="127.0.0.1", port=7002, flags=("myself", "master"), slots=(SlotRange(9, 20),)),
        ),
        id="two",
    ),
)
shard_died = all_of(gone("redis-1"), gone("redis-4"), blank("redis-1"))
"""redis-1 runs again without its data, redis-4 does not run."""

REFUSED: tuple[tuple[str, Facts, Edit, tuple[str, ...]], ...] = (
    (
        "data outside",
        BLANK,
        node_with("redis-2", keys=5),
        ("redis-2 already holds data", "127.0.0.1:7002", "5 keys", "FLUSHALL"),
    ),
    (
        "member of a foreign cluster",
        BLANK,
        also_listing("redis-5", STRANGER),
        ("redis-5 belongs to a cluster with members that are not declared", "10.9.9.9:7001", "leave this node out"),
    ),
    (
        "more members than declared",
        FORMED,
        all_of(with_keys, also_listing("redis-1", STRANGER)),
        ("redis-1 belongs to a cluster", "1 node that", "10.9.9.9:7001 (ffffffff)"),
    ),
    (
        "two clusters",
        BLANK,
        two_clusters,
        ("redis-1 and redis-2 belong to different clusters", "0-9 / 9-20", "127.0.0.1:7001 and 127.0.0.1:7002"),
    ),
    (
        "slots without an owner beside data",
        FORMED,
        all_of(with_keys, every_line_with("redis-3", slots=(SlotRange(10922, 16000),))),
        ("slots have no owner in a cluster that holds data", "slots 16001-16383", "60 keys", "ADDSLOTSRANGE"),
    ),
    (
        "a shard is gone",
        FORMED,
        all_of(with_keys, shard_died),
        ("the data of a shard is gone", "slots 0-5460", "bring its data folder back", "--accept-data-loss redis-1"),
    ),
    (
        "a shard is gone, and its address with it",
        FORMED,
        all_of(
            with_keys, shard_died, every_line_with("redis-1", address="", port=0, flags=("master", "fail", "noaddr"))
        ),
        ("the data of a shard is gone", "slots 0-5460", "--accept-data-loss redis-1"),
    ),
)


@pytest.mark.parametrize(("facts", "edit", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_refusal_says_what_was_found(facts: Facts, edit: Edit, words: tuple[str, ...]) -> None:
    with pytest.raises(RefusedError) as refusal:
        refuse_if_unsafe(TOPOLOGY, edit(TOPOLOGY, facts))
    assert all(word in str(refusal.value) for word in words), refusal.value
    assert refusal.value.next_step


@pytest.mark.parametrize(("facts", "edit", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_nothing_is_planned_where_something_is_refused(facts: Facts, edit: Edit, words: tuple[str, ...]) -> None:
    """For init-cluster, which starts nothing itself, the refusal comes before any step."""
    unsafe = replace(edit(TOPOLOGY, facts), units={})
    with pytest.raises(RefusedError):
        next_phase(TOPOLOGY, unsafe, Wishes())


master_of_the_past = all_of(
    every_line_with("redis-4", flags=("master",), master_id="", slots=(SlotRange(0, 5460),), config_epoch=9),
    line_with("redis-4", flags=("myself", "master")),
    every_line_with("redis-1", slots=()),
    line_with("redis-1", flags=("myself", "master"), slots=(SlotRange(0, 5460),)),
)
"""redis-1 has just come back, and has not heard that redis-4 took over."""
HARMLESS: tuple[tuple[str, Facts, Edit], ...] = (
    ("blank nodes", BLANK, unchanged),
    ("nothing runs", nothing_runs(TOPOLOGY), unchanged),
    ("a whole cluster", FORMED, with_keys),
    ("half a formation", BLANK, half_done),
    ("somebody is being introduced", FORMED, also_listing("redis-1", replace(STRANGER, flags=("handshake",)))),
    (
        "a dead identity without address",
        FORMED,
        also_listing("redis-1", replace(STRANGER, address="", port=0, flags=("master", "noaddr"))),
    ),
    ("a master of the past came back", FORMED, all_of(with_keys, master_of_the_past)),
    ("a master is down", FORMED, all_of(with_keys, gone("redis-1"))),
    ("a shard is down", FORMED, all_of(with_keys, gone("redis-1"), gone("redis-4"))),
    ("a master is blank, its replica lives", FORMED, all_of(with_keys, gone("redis-1"), blank("redis-1"))),
    (
        "after a failover, while one node lags behind",
        FORMED,
        all_of(
            with_keys,
            every_line_with("redis-4", flags=("master",), master_id="", slots=(SlotRange(0, 5460),)),
            line_with("redis-4", flags=("myself", "master")),
            every_line_with("redis-1", flags=("slave",), slots=()),
            line_with("redis-1", flags=("myself", "slave")),
            line_with("redis-3", "redis-1", flags=("master",), slots=(SlotRange(0, 5460),)),
            line_with("redis-3", "redis-4", flags=("slave",), slots=()),
        ),
    ),
)


@pytest.mark.parametrize(("facts", "edit"), [case[1:] for case in HARMLESS], ids=[case[0] for case in HARMLESS])
def test_what_is_harmless_is_not_refused(facts: Facts, edit: Edit) -> None:
    changed = edit(TOPOLOGY, facts)
    refuse_if_unsafe(TOPOLOGY, changed)
    assert lost_identities(TOPOLOGY, changed) == ()


@pytest.mark.parametrize(("shards", "replicas"), [(6, 0), (4, 1), (5, 0)])
def test_another_size_is_no_bringing_up(shards: int, replicas: int) -> None:
    """Also with data, and before a single Unit of the further shards is started."""
    declared = make_topology(shards, replicas)
    nodes = {**nothing_runs(declared).nodes, **FORMED.nodes}
    facts = with_keys(declared, replace(FORMED, nodes={n.name: nodes[n.name] for n in declared.nodes}))
    with pytest.raises(RefusedError) as refusal:
        next_phase(declared, facts, wishes_for(declared))
    assert f"has 3 masters with slots, {shards} shards are declared" in str(refusal.value)
    assert refusal.value.next_step == f"`redisforge scale --shards {shards}` moves the slots; or declare shards: 3"


def test_more_replicas_are_no_other_size() -> None:
    declared = make_topology(3, 2)
    facts = replace(FORMED, nodes={**nothing_runs(declared).nodes, **FORMED.nodes})
    phase = next_phase(declared, facts, wishes_for(declared))
    assert phase
    assert [str(step) for step in phase.steps] == ["start redis-7", "start redis-8", "start redis-9"]


def test_accepted_losses_are_not_refused() -> None:
    facts = all_of(with_keys, shard_died)(TOPOLOGY, FORMED)
    (lost,) = lost_identities(TOPOLOGY, facts)
    assert [node.name for node in places_of(TOPOLOGY, lost)] == ["redis-1"]
    refuse_if_unsafe(TOPOLOGY, facts, frozenset({"redis-1"}))
    with pytest.raises(RefusedError, match="the data of a shard is gone"):
        refuse_if_unsafe(TOPOLOGY, facts, frozenset({"redis-2", "redis-4"}))


def test_without_an_address_the_slots_tell_the_place() -> None:
    lost = PeerView(id="x", address="", port=0, flags=("master", "noaddr"), slots=(SlotRange(5461, 10000),))
    assert [node.name for node in places_of(TOPOLOGY, lost)] == ["redis-2", "redis-5"]
    across = replace(lost, slots=(SlotRange(0, 16383),))
    assert places_of(TOPOLOGY, across) == ()


def test_a_shard_of_replicas_alone_cannot_be_given_slots() -> None:
    """A formation in which both nodes of shard 1 are replicas of a node that is gone."""
    foreign = PeerView(id="old", address="127.0.0.1", port=7002, flags=("master", "fail"))
    facts = BLANK
    for name in ("redis-1", "redis-4"):
        facts = all_of(line_with(name, flags=("myself", "slave"), master_id="old"), also_listing(name, foreign))(
            TOPOLOGY, facts
        )
    with pytest.raises(RefusedError) as refusal:
        next_phase(TOPOLOGY, facts, Wishes())
    assert "shard 1 has no node that could own its slots" in str(refusal.value)
    assert "redis-1 (master), redis-4 (replica)" in str(refusal.value)


def test_a_held_node_without_a_replica_is_refused_by_name() -> None:
    reason = "its data is missing from /srv/data"
    facts = all_of(with_keys, gone("redis-4", UnitState.HELD, "no data"), gone("redis-1", UnitState.HELD, reason))(
        TOPOLOGY, FORMED
    )
    with pytest.raises(RefusedError) as refusal:
        next_phase(TOPOLOGY, facts, wishes_for(TOPOLOGY))
    assert "redis-1 has lost its data, and no replica of it can be reached" in str(refusal.value)
    assert reason in str(refusal.value)
    assert "--accept-data-loss redis-1" in str(refusal.value)
