"""A host in maintenance: its masters hand over, and no verb makes one of its nodes a master again until it ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from changing import ChangingWorld, assert_in_order, changing_world, disturb, topologies
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_restart_phases import restart
from topologies import hosts_in_zones, make_topology

from redisforge.errors import NotFoundError, RefusedError
from redisforge.model.facts import UnitState
from redisforge.model.topology import Host, Topology
from redisforge.plan.diagnose import diagnose
from redisforge.plan.resize import grow, keep_places
from redisforge.plan.resting import nodes_on
from redisforge.plan.view import newest_owners
from redisforge.runbooks.change import Verb
from redisforge.runbooks.failover import roles_verb
from redisforge.runbooks.host_change import enter_verb, exit_verb
from redisforge.runbooks.status import report

many = settings(max_examples=100, deadline=None, phases=(Phase.generate,), suppress_health_check=[HealthCheck.too_slow])


def three_hosts() -> Topology:
    """Three shards of two copies on a host in each of three zones."""
    return make_topology(3, 1, hosts_in_zones(1, 1, 1))


def masters_at(world: ChangingWorld, host: str) -> set[str]:
    here = nodes_on(world.topology, {host})
    return {node.name for node in newest_owners(world.facts) if node.name in here}


@many
@given(topologies(least_replicas=1), st.data())
def test_masters_leave_the_host_and_stay_away(topology: Topology, data: st.DataObject) -> None:
    """Cut anywhere and repeated; then neither `rebalance --roles` nor a rolling restart brings one back."""
    world = changing_world(topology)
    disturb(world, data, [node.name for node in topology.nodes])
    host = data.draw(st.sampled_from(topology.hosts), label="host").name
    verb = enter_verb(host)
    try:
        for _ in range(data.draw(st.integers(0, 2), label="cuts")):
            world.run_cut(verb, data)
        world.run(verb)
    except RefusedError as refusal:
        if "cannot hand over" not in str(refusal) or not has_a_shard_of_its_own(world, host):
            raise
        return
    assert world.topology.maintenance == (host,)
    assert not masters_at(world, host)
    assert_in_order(world)
    assert world.ask(world.begin(verb)) is None
    everything = frozenset(node.name for node in world.topology.nodes)
    for other in (roles_verb(), restart(everything, world.facts.observed_at_s + 0.5)):
        world.run(other)
        assert masters_at(world, host) <= forced_back(world, nodes_on(world.topology, {host}))
    world.run(exit_verb(host))
    assert world.topology.maintenance == ()
    assert_in_order(world)


def has_a_shard_of_its_own(world: ChangingWorld, host: str) -> bool:
    """Some shard has all its copies on the host."""
    here = nodes_on(world.topology, {host})
    nodes = world.facts.reachable_nodes()
    shards = [{n.name for n in nodes if owner.id in (n.id, n.master_id)} for owner in newest_owners(world.facts)]
    return any(shard <= here for shard in shards)


def forced_back(world: ChangingWorld, resting: frozenset[str]) -> set[str]:
    """Masters on the host whose shard has no more than one node elsewhere: a restart of that one leaves no choice."""
    nodes = world.facts.reachable_nodes()
    found: set[str] = set()
    for owner in newest_owners(world.facts):
        elsewhere = [n for n in nodes if owner.id in (n.id, n.master_id) and n.name not in resting]
        if owner.name in resting and len(elsewhere) == 1:
            found.add(owner.name)
    return found


def test_roles_come_back_only_after_exit() -> None:
    world = changing_world(three_hosts())
    host = world.topology.hosts[0].name
    world.run(enter_verb(host))
    before = len(world.phases)
    world.run(roles_verb())
    assert len(world.phases) == before, "there is nothing that could be more even"
    world.run(exit_verb(host))
    world.run(roles_verb())
    assert len(masters_at(world, host)) == 1


def test_a_shard_without_a_replica_elsewhere_is_refused_unless_forced() -> None:
    topology = make_topology(3, 0, hosts_in_zones(1, 1, 1))
    world = changing_world(topology)
    host = topology.hosts[0].name
    with pytest.raises(RefusedError, match="cannot hand over"):
        world.run(enter_verb(host))
    assert world.topology.maintenance == (), "nothing was recorded"
    verb = enter_verb(host, force=True)
    world.run(verb)
    assert masters_at(world, host)
    assert any("stay masters" in notice for notice in verb.notices)


def test_a_second_host_in_maintenance_takes_no_masters_of_the_first() -> None:
    world = changing_world(make_topology(3, 2, hosts_in_zones(1, 1, 1)))
    first, second, third = (host.name for host in world.topology.hosts)
    world.run(enter_verb(first))
    world.run(enter_verb(second))
    assert len(masters_at(world, third)) == 3
    with pytest.raises(RefusedError, match="cannot hand over"):
        world.run(enter_verb(third))
    assert world.topology.maintenance == (first, second)


@pytest.mark.parametrize("make", [enter_verb, exit_verb])
def test_an_unknown_host_is_named_with_those_that_there_are(make: Callable[[str], Verb]) -> None:
    world = changing_world(three_hosts())
    with pytest.raises(NotFoundError, match="no host called 'elsewhere'") as caught:
        world.run(make("elsewhere"))
    assert world.topology.hosts[0].name in caught.value.why


def test_the_operator_is_told_what_is_left() -> None:
    world = changing_world(three_hosts())
    host = world.topology.hosts[0].name
    verb = enter_verb(host)
    world.run(verb)
    assert any("hand over" in notice for notice in verb.notices)
    assert f"while {host} is down, 2 shards have one copy each" in verb.notices
    assert any("clients of envoy-1" in notice for notice in verb.notices)


def test_the_mark_outlives_another_up_and_keeps_new_nodes_away() -> None:
    declared = three_hosts()
    world = changing_world(declared)
    world.run(enter_verb(declared.hosts[0].name))
    recorded = world.topology
    kept = keep_places(declared, recorded)
    assert kept.maintenance == recorded.maintenance
    grown = grow(kept, 5, 1, {node.name: node.shard for node in kept.nodes})
    new = [node for node in grown.nodes if node not in kept.nodes]
    assert len(new) == 4
    assert not [node for node in new if node.host in kept.maintenance]
    gone = keep_places(make_topology(3, 1, (Host("other", "10.7.7.7", "z"),)), recorded)
    assert gone.maintenance == (), "a host that is not declared any more is in no maintenance"


def test_status_shows_it_and_does_not_cry_for_what_was_to_be_expected() -> None:
    world = changing_world(three_hosts())
    host = world.topology.hosts[0].name
    world.run(enter_verb(host))
    for name in nodes_on(world.topology, {host}):
        world.kill(name)
    told = report(world.topology, world.facts)
    assert told.cluster.maintenance == (host,)
    down = [problem for problem in diagnose(world.topology, world.facts) if problem.what == "does not run"]
    assert down
    assert {problem.severity for problem in down} == {"warning"}
    assert all(f"host maintenance exit {host}" in problem.next_step for problem in down)
    assert all(world.facts.units[problem.where].state is UnitState.STOPPED for problem in down)
