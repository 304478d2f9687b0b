"""failover and rebalance --roles: slots are never lost, and asked again there is nothing to do."""

from __future__ import annotations

from collections import Counter

import pytest
from changing import ChangingWorld, assert_in_order, changing_world, disturb, topologies
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from topologies import hosts_in_zones, make_topology

from redisforge.errors import RefusedError
from redisforge.model.topology import Role, Topology
from redisforge.plan.failover import Mode
from redisforge.plan.view import replicas_of
from redisforge.runbooks.failover import failover_verb, roles_verb

many = settings(
    max_examples=120,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow],
)


def masters(world: ChangingWorld) -> list[str]:
    """Who owns slots."""
    return [node.name for node in world.facts.reachable_nodes() if node.role is Role.MASTER and node.slots]


@many
@given(topologies(least_replicas=1), st.data())
def test_a_node_gives_its_slots_away_once(topology: Topology, data: st.DataObject) -> None:
    world = changing_world(topology)
    names = [node.name for node in topology.nodes]
    disturb(world, data, names)
    name = data.draw(st.sampled_from(names), label="failover")
    verb = failover_verb(name)
    for _ in range(data.draw(st.integers(0, 2), label="cuts")):
        world.run_cut(verb, data)
    world.run(verb)
    assert name not in masters(world)
    assert len(masters(world)) == topology.shards
    assert_in_order(world)
    assert world.ask(world.begin(verb)) is None


@many
@given(topologies(least_replicas=1), st.data())
def test_the_named_heir_takes_over(topology: Topology, data: st.DataObject) -> None:
    world = changing_world(topology)
    disturb(world, data, [node.name for node in topology.nodes])
    name = data.draw(st.sampled_from(masters(world)), label="failover")
    own_id = world.facts.nodes[name].id
    heirs = [node.name for node in world.facts.reachable_nodes() if node.master_id == own_id]
    other = [node.name for node in topology.nodes if node.name not in (*heirs, name)]
    with pytest.raises(RefusedError, match="cannot take over"):
        world.run(failover_verb(name, heir=data.draw(st.sampled_from(other), label="a stranger")))
    heir = data.draw(st.sampled_from(heirs), label="heir")
    world.run(failover_verb(name, heir=heir))
    assert heir in masters(world)
    assert_in_order(world)


@many
@given(topologies(least_replicas=1), st.sampled_from(("force", "takeover")), st.data())
def test_a_dead_master_is_replaced(topology: Topology, mode: Mode, data: st.DataObject) -> None:
    world = changing_world(topology)
    name = data.draw(st.sampled_from(masters(world)), label="dies")
    world.kill(name)
    with pytest.raises(RefusedError, match="does not answer"):
        world.run(failover_verb(name))
    world.run(failover_verb(name, mode=mode))
    assert len(masters(world)) == topology.shards
    world.converge()
    world.killed = False
    assert_in_order(world)


@many
@given(topologies(), st.data())
def test_roles_even_out(topology: Topology, data: st.DataObject) -> None:
    """After any failovers; no zone then has two masters more than it had when the cluster was formed."""
    world = changing_world(topology)
    names = [node.name for node in topology.nodes]
    zone_of = {node.name: node.zone for node in topology.nodes}
    formed = max(Counter(zone_of[name] for name in masters(world)).values())
    for _ in range(2):
        disturb(world, data, names)
    for _ in range(data.draw(st.integers(0, 2), label="cuts")):
        world.run_cut(roles_verb(), data)
        disturb(world, data, names)
    world.run(roles_verb())
    assert_in_order(world)
    assert max(Counter(zone_of[name] for name in masters(world)).values()) <= formed
    assert world.ask(world.begin(roles_verb())) is None


def test_a_master_without_replicas_cannot_give_its_slots_away() -> None:
    world = changing_world(make_topology(3, 0))
    modes: tuple[Mode, ...] = ("handover", "force", "takeover")
    for mode in modes:
        with pytest.raises(RefusedError, match="no node can take over from redis-1"):
            world.run(failover_verb("redis-1", mode=mode))
    assert_in_order(world)


@pytest.mark.parametrize(
    ("heir", "mode", "what", "why"),
    [
        ("redis-2", "handover", "redis-2 cannot take over from redis-1", "it is no replica of redis-1"),
        ("redis-2", "force", "redis-2 cannot take over from redis-1", "it is no replica of redis-1"),
        ("redis-1", "handover", "redis-1 cannot take over from itself", "its slots are to go to one of its replicas"),
    ],
)
def test_a_stranger_is_refused_with_the_names_of_those_who_could(heir: str, mode: Mode, what: str, why: str) -> None:
    world = changing_world(make_topology(3, 2))
    own_id = world.facts.nodes["redis-1"].id
    able = [node.name for node in world.facts.reachable_nodes() if node.master_id == own_id]
    with pytest.raises(RefusedError) as raised:
        world.run(failover_verb("redis-1", heir=heir, mode=mode))
    assert (raised.value.what, raised.value.why) == (what, why)
    assert sorted(raised.value.next_step.removeprefix("--to ").partition(";")[0].split(" or ")) == sorted(able)


def test_of_a_lost_master_it_is_said_who_has_taken_over_already() -> None:
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1)))
    (replica,) = replicas_of(world.facts, world.facts.nodes["redis-2"].id)
    world.kill("redis-2")
    verb = failover_verb("redis-2", mode="force")
    assert world.ask(world.begin(verb)) is not None
    assert verb.notices == []
    world.fail_over(replica.name)
    assert world.ask(world.begin(verb)) is None
    assert verb.notices == [f"redis-2 does not answer; its slots are served by {replica.name} already"]
    world.converge()
    world.kill("redis-2")
    assert world.ask(world.begin(verb)) is None
    assert verb.notices == ["redis-2 is a replica already"]


def test_of_a_replica_it_is_said_that_it_is_one() -> None:
    world = changing_world(make_topology(3, 1))
    replica = next(node.name for node in world.facts.reachable_nodes() if node.role is Role.REPLICA)
    verb = failover_verb(replica)
    assert world.ask(world.begin(verb)) is None
    assert verb.notices == [f"{replica} is a replica already"]
    verb = failover_verb("redis-1")
    world.begin(verb)
    assert verb.notices == []
