"""Readings of the facts: which shard a node serves now, and where a free node is needed most."""

from __future__ import annotations

from collections import Counter

from edits import all_of, blank, every_line_with, gone, line_with, node_with
from topologies import formed, hosts_in_zones, make_topology, nothing_runs

from redisforge.model.facts import Facts
from redisforge.model.slots import SlotRange, subtract
from redisforge.model.topology import Topology
from redisforge.plan.view import (
    ALL_SLOTS,
    actual_shards,
    declared_at,
    neediest_master,
    newcomers,
    owned_slots,
    replicas_of,
    served_slots,
    shard_owner,
    unclaimed_slots,
)

TOPOLOGY = make_topology(3, 1, hosts_in_zones(1, 1, 1))
FORMED = formed(TOPOLOGY)
OF_FIRST = replicas_of(FORMED, FORMED.nodes["redis-1"].id)[0].name
SECOND = replicas_of(FORMED, FORMED.nodes["redis-2"].id)[0].name


def failed_over(_: Topology, facts: Facts) -> Facts:
    """The replica of redis-1 is its master now."""
    second = facts.nodes[OF_FIRST].id
    return all_of(
        every_line_with(OF_FIRST, slots=(SlotRange(0, 5460),), master_id="", flags=("master",)),
        line_with(OF_FIRST, flags=("myself", "master")),
        every_line_with("redis-1", slots=(), master_id=second, flags=("slave",)),
        line_with("redis-1", flags=("myself", "slave")),
    )(TOPOLOGY, facts)


def test_slots_of_the_dead_are_claimed_and_not_owned() -> None:
    facts = gone("redis-1")(TOPOLOGY, FORMED)
    assert unclaimed_slots(facts) == ()
    assert owned_slots(facts) == served_slots(facts) == subtract(ALL_SLOTS, (SlotRange(0, 5460),))


def test_a_master_that_holds_its_cluster_to_be_down_serves_nothing() -> None:
    facts = node_with("redis-2", cluster_state="fail")(TOPOLOGY, FORMED)
    assert owned_slots(facts) == ALL_SLOTS
    assert served_slots(facts) == subtract(ALL_SLOTS, (SlotRange(5461, 10921),))


def test_a_failover_changes_the_owner_of_a_shard_and_not_its_number() -> None:
    facts = failed_over(TOPOLOGY, FORMED)
    owner = shard_owner(TOPOLOGY, facts, 0)
    assert owner
    assert owner.name == OF_FIRST
    assert (
        actual_shards(TOPOLOGY, facts) == actual_shards(TOPOLOGY, FORMED) == {n.name: n.shard for n in TOPOLOGY.nodes}
    )


def test_a_replica_that_moved_counts_for_the_shard_that_it_serves() -> None:
    facts = every_line_with(OF_FIRST, master_id=FORMED.nodes["redis-3"].id)(TOPOLOGY, FORMED)
    assert actual_shards(TOPOLOGY, facts)[OF_FIRST] == 2


def swapped(topology: Topology, facts: Facts) -> Facts:
    """The shards of redis-1 and redis-2 have exchanged their slots: their order is another one than was declared."""
    return all_of(
        every_line_with("redis-1", slots=(SlotRange(5461, 10921),)),
        every_line_with("redis-2", slots=(SlotRange(0, 5460),)),
    )(topology, facts)


def test_a_silent_replica_is_where_the_others_say() -> None:
    facts = all_of(swapped, gone(OF_FIRST))(TOPOLOGY, FORMED)
    shards = actual_shards(TOPOLOGY, facts)
    assert shards["redis-1"] == shards[OF_FIRST] == 1


def test_a_silent_master_whose_slots_nobody_has_taken_over_keeps_its_shard() -> None:
    facts = all_of(swapped, gone("redis-1"))(TOPOLOGY, FORMED)
    shards = actual_shards(TOPOLOGY, facts)
    assert (shards["redis-1"], shards[OF_FIRST], shards["redis-2"], shards["redis-3"]) == (1, 1, 0, 2)


def test_a_silent_master_that_was_replaced_is_where_its_replica_is() -> None:
    """The others list it as a master of nothing."""
    facts = all_of(
        swapped,
        every_line_with(OF_FIRST, slots=(SlotRange(5461, 10921),), master_id="", flags=("master",)),
        line_with(OF_FIRST, flags=("myself", "master")),
        every_line_with("redis-1", slots=(), flags=("master", "fail")),
        gone("redis-1"),
    )(TOPOLOGY, FORMED)
    shards = actual_shards(TOPOLOGY, facts)
    assert shards["redis-1"] == shards[OF_FIRST] == 1
    assert sorted(shards.values()) == [0, 0, 1, 1, 2, 2]


def test_a_silent_master_that_was_replaced_is_not_where_all_are() -> None:
    """Those that it was declared with have got another replica meanwhile; the shard that lacks one is its own."""
    facts = all_of(
        every_line_with(SECOND, master_id=FORMED.nodes["redis-1"].id),
        every_line_with(OF_FIRST, slots=(), master_id="", flags=("master", "fail")),
        gone(OF_FIRST),
    )(TOPOLOGY, FORMED)
    shards = actual_shards(TOPOLOGY, facts)
    assert (shards[OF_FIRST], shards[SECOND]) == (1, 0)


def test_a_shard_without_slots_has_no_owner() -> None:
    assert shard_owner(TOPOLOGY, nothing_runs(TOPOLOGY), 0) is None
    alone = all_of(gone(OF_FIRST), blank("redis-1"))(TOPOLOGY, FORMED)
    assert shard_owner(TOPOLOGY, alone, 0) is None


def test_the_most_advanced_replica_comes_first() -> None:
    topology = make_topology(3, 3)
    facts = formed(topology)
    copies = [node.name for node in replicas_of(facts, facts.nodes["redis-1"].id)]
    assert len(copies) == 3
    for offset, name in enumerate(copies):
        facts = node_with(name, replication_offset=10 * offset)(topology, facts)
    assert [node.name for node in replicas_of(facts, facts.nodes["redis-1"].id)] == copies[::-1]


def test_a_free_node_goes_where_a_replica_is_missing_and_the_zone_is_another() -> None:
    """Nobody has a replica yet: then not to the master on its own host; else to the one that lacks one."""
    here = TOPOLOGY.node("redis-4")
    chosen = neediest_master(TOPOLOGY, FORMED, here, Counter())
    assert chosen
    assert TOPOLOGY.node(chosen.name).zone != here.zone
    ids = {name: FORMED.nodes[name].id for name in ("redis-1", "redis-2", "redis-3")}
    same = next(name for name in ids if TOPOLOGY.node(name).zone == here.zone)
    load = Counter({node_id: 1 for name, node_id in ids.items() if name != same})
    needy = neediest_master(TOPOLOGY, FORMED, here, load)
    assert needy
    assert needy.name == same, "better on the same host than not at all"


def test_nobody_needs_a_node_where_nobody_has_slots() -> None:
    assert neediest_master(TOPOLOGY, nothing_runs(TOPOLOGY), TOPOLOGY.nodes[3], Counter()) is None


def test_newcomers_were_silent_and_know_nobody() -> None:
    silent = gone("redis-4")(TOPOLOGY, FORMED)
    assert newcomers(silent, blank("redis-4")(TOPOLOGY, FORMED)) == ("redis-4",)
    assert newcomers(silent, FORMED) == (), "it came back with what it knows"
    assert newcomers(FORMED, blank("redis-4")(TOPOLOGY, FORMED)) == (), "it was there before"


def test_nodes_by_address() -> None:
    node = TOPOLOGY.nodes[4]
    assert declared_at(TOPOLOGY, node.address, node.port) is node
    assert declared_at(TOPOLOGY, node.address, 1) is None
    assert declared_at(TOPOLOGY, "10.9.9.9", node.port) is None
