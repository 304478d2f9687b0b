"""Hosts are drained, removed and replaced, cut anywhere and repeated, alive or lost: nobody notices, nothing is lost.

What must never be done on the way is checked by the ChangingWorld for every phase and after every step.
"""

from __future__ import annotations

import pytest
from changing import ChangingWorld, assert_in_order, changing_world, disturb, is_electable, topologies
from edits import unit_with
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import hosts_in_zones, make_topology

from redisforge.errors import NotFoundError, RefusedError, UsageError
from redisforge.model.facts import UnitState
from redisforge.model.slots import count
from redisforge.model.topology import Host, Topology
from redisforge.plan.diagnose import diagnose
from redisforge.plan.relocate import Machine
from redisforge.plan.resting import envoys_on, left_out_words, nodes_on
from redisforge.plan.view import newest_owners, replicas_of
from redisforge.runbooks.change import Verb
from redisforge.runbooks.host_change import Leaving, drain_verb, enter_verb, exit_verb, remove_verb, replace_verb

many = settings(max_examples=100, deadline=None, phases=(Phase.generate,), suppress_health_check=[HealthCheck.too_slow])
NEW = Host("new", "10.9.0.9", "zone-1")


def how(topology: Topology, *, force: bool = True) -> Leaving:
    return Leaving(envoy_count=len(topology.envoys), force=force)


def lose(world: ChangingWorld, host: str) -> None:
    """The host goes down with all on it; Redis lets replicas take over, and nobody can ask its Units."""
    names = [*nodes_on(world.topology, {host}), *envoys_on(world.topology, {host})]
    for name in names:
        seen = world.facts.nodes.get(name)
        world.kill(name)
        if seen and seen.slots:
            heirs = [n.name for n in world.facts.reachable_nodes() if n.master_id == seen.id and n.name not in names]
            if heirs and is_electable(world.facts, heirs[0]):
                world.fail_over(heirs[0])
    world.settle()
    unknown = {n: replace(world.facts.units[n], state=UnitState.UNKNOWN, reason="no route") for n in names}
    world.facts = replace(world.facts, units={**world.facts.units, **unknown})


def is_lost_with(world: ChangingWorld, host: str) -> bool:
    """Whether a shard has all its copies on the host."""
    here = nodes_on(world.topology, {host})
    return any(
        {owner.name, *(replica.name for replica in replicas_of(world.facts, owner.id))} <= here
        for owner in newest_owners(world.facts)
    )


def carried_out(world: ChangingWorld, verb: Verb, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(0, 3), label="cuts")):
        world.run_cut(verb, data)
    world.run(verb)


def assert_every_shard_is_complete(world: ChangingWorld) -> None:
    topology = world.topology
    assert len(topology.nodes) == topology.shards * (topology.replicas + 1)
    for owner in newest_owners(world.facts):
        assert len(replicas_of(world.facts, owner.id)) == topology.replicas


def several_hosts(topology: Topology) -> None:
    if len(topology.hosts) < 2:
        reject()


@many
@given(topologies(), st.data())
def test_a_host_is_drained(topology: Topology, data: st.DataObject) -> None:
    several_hosts(topology)
    world = changing_world(topology)
    disturb(world, data, [node.name for node in topology.nodes])
    host = data.draw(st.sampled_from(topology.hosts), label="host").name
    before = {
        node.name: node.id for node in world.facts.reachable_nodes() if world.topology.node(node.name).host != host
    }
    verb = drain_verb(host, how(topology))
    carried_out(world, verb, data)
    assert_in_order(world)
    assert_every_shard_is_complete(world)
    assert not nodes_on(world.topology, {host})
    assert world.topology.maintenance == (host,)
    assert envoys_on(world.topology, {host}) == envoys_on(topology, {host}), "Envoys stay"
    now = {node.name: node.id for node in world.facts.reachable_nodes()}
    assert before.items() <= now.items(), "who stands elsewhere stays"
    assert world.ask(world.begin(verb)) is None
    world.run(exit_verb(host))
    assert_in_order(world)


@many
@given(topologies(), st.data())
def test_a_host_is_removed(topology: Topology, data: st.DataObject) -> None:
    several_hosts(topology)
    world = changing_world(topology)
    disturb(world, data, [node.name for node in topology.nodes])
    host = data.draw(st.sampled_from(topology.hosts), label="host").name
    if data.draw(st.booleans(), label="lost"):
        if is_lost_with(world, host):
            reject()
        lose(world, host)
    verb = remove_verb(host, how(topology))
    carried_out(world, verb, data)
    world.killed = False
    assert_gone(world, host, topology)
    again = remove_verb(host, how(topology), removed_before=lambda: True)
    assert world.ask(world.begin(again)) is None
    with pytest.raises(NotFoundError):
        world.begin(verb)


def assert_gone(world: ChangingWorld, host: str, before: Topology) -> None:
    assert_in_order(world)
    assert_every_shard_is_complete(world)
    assert host not in {h.name for h in world.topology.hosts}
    assert host not in {unit.host for unit in (*world.topology.nodes, *world.topology.envoys)}
    assert world.topology.maintenance == ()
    assert len(world.topology.envoys) == len(before.envoys)
    for endpoint in world.topology.endpoints:
        assert {door.envoy for door in endpoint.listeners} == {envoy.name for envoy in world.topology.envoys}
        addresses = {envoy.name: envoy.address for envoy in world.topology.envoys}
        assert all(door.address == addresses[door.envoy] for door in endpoint.listeners)
    doors = [(door.address, door.port) for e in world.topology.endpoints for door in e.listeners]
    assert len(set(doors)) == len(doors)


@many
@given(topologies(), st.data())
def test_a_host_is_replaced(topology: Topology, data: st.DataObject) -> None:
    several_hosts(topology)
    world = changing_world(topology)
    disturb(world, data, [node.name for node in topology.nodes])
    old = data.draw(st.sampled_from(topology.hosts), label="host")
    new = replace(NEW, zone=old.zone)
    carried = len(nodes_on(topology, {old.name}))
    if data.draw(st.booleans(), label="lost"):
        if is_lost_with(world, old.name):
            reject()
        lose(world, old.name)
    verb = replace_verb(old.name, "new", how(topology), declared=(*topology.hosts, new))
    carried_out(world, verb, data)
    world.killed = False
    assert_gone(world, old.name, topology)
    assert len(nodes_on(world.topology, {"new"})) == carried
    assert len(envoys_on(world.topology, {"new"})) == len(envoys_on(topology, {old.name}))
    share = -(-topology.shards // len(topology.hosts))
    if len({host.zone for host in topology.hosts}) == 1 and topology.replicas + 1 >= len(topology.hosts):
        assert sum(o.name in nodes_on(world.topology, {"new"}) for o in newest_owners(world.facts)) <= share


@many
@given(topologies(least_replicas=1), st.data())
def test_nodes_crash_meanwhile(topology: Topology, data: st.DataObject) -> None:
    several_hosts(topology)
    world = changing_world(topology)
    host = data.draw(st.sampled_from(topology.hosts), label="host").name
    verb = drain_verb(host, how(topology))
    world.run_hurt(verb, data)
    world.run(verb)
    assert_in_order(world)
    assert_every_shard_is_complete(world)
    assert not nodes_on(world.topology, {host})


@many
@given(topologies(), st.data())
def test_up_runs_between_a_drain_that_was_cut_off_and_its_repetition(topology: Topology, data: st.DataObject) -> None:
    several_hosts(topology)
    world = changing_world(topology)
    disturb(world, data, [node.name for node in topology.nodes])
    host = data.draw(st.sampled_from(topology.hosts), label="host").name
    verb = drain_verb(host, how(topology))
    for _ in range(data.draw(st.integers(1, 2), label="cuts")):
        world.run_cut(verb, data)
        world.converge()
    world.run(verb)
    assert_in_order(world)
    assert_every_shard_is_complete(world)
    assert not nodes_on(world.topology, {host})


@pytest.mark.parametrize("failovers", [(), ("redis-4", "redis-5")])
def test_up_lets_a_node_copy_the_shard_that_a_drain_has_started_it_for(failovers: tuple[str, ...]) -> None:
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1, 1)))
    for name in failovers:
        world.fail_over(name)
    verb = drain_verb("host-1-1", how(world.topology))
    planner = world.begin(verb)
    while phase := world.ask(planner):
        world.carry_out(phase.steps)
        world.wait_for(phase)
        if phase.title == "start the nodes":
            break
    started = {node.name for node in world.topology.nodes}
    world.converge()
    world.run(verb)
    assert_in_order(world)
    assert_every_shard_is_complete(world)
    assert {node.name for node in world.topology.nodes} <= started


def test_up_starts_nothing_blank_where_a_drain_has_deleted_it() -> None:
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1, 1)))
    here = nodes_on(world.topology, {"host-1-1"})
    verb = drain_verb("host-1-1", how(world.topology))
    planner = world.begin(verb)
    while phase := world.ask(planner):  # all is done, and the record still has the nodes
        world.carry_out(phase.steps)
        world.wait_for(phase)
    assert {world.facts.units[name].state for name in here} == {UnitState.ABSENT}
    world.reconfigure(["redis-2", *here])
    world.converge()
    assert {world.facts.units[name].state for name in here} == {UnitState.ABSENT}
    assert world.facts.units["redis-2"].config_hash == "changed", "the others are brought up"
    problems = [problem for problem in diagnose(world.topology, world.facts) if problem.where in here]
    assert {problem.severity for problem in problems} == {"warning"}
    assert all("host drain host-1-1" in problem.next_step for problem in problems)
    (words,) = left_out_words(world.topology, world.facts)
    assert words.startswith(f"{', '.join(sorted(here))}: not started, for host-1-1 is in maintenance")
    world.run(exit_verb("host-1-1"))
    assert left_out_words(world.topology, world.facts) == ()
    world.converge()
    assert {world.facts.units[name].state for name in here} == {UnitState.RUNNING}


def test_up_starts_what_is_known_on_a_host_in_maintenance() -> None:
    """Its data is still there, or the others expect it back."""
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1)))
    world.run(enter_verb("host-1-1"))
    for name in nodes_on(world.topology, {"host-1-1"}):
        world.lose_disk(name)
        world.facts = unit_with(name, state=UnitState.ABSENT)(world.topology, world.facts)
    assert left_out_words(world.topology, world.facts) == ()
    world.converge()
    assert len(world.facts.reachable_nodes()) == 6


def test_masters_hand_over_before_anything_starts() -> None:
    world = changing_world(make_topology(3, 1, hosts_in_zones(2, 1, 1)))
    formed = len(world.phases)
    world.run(drain_verb("host-2-1", how(world.topology)))
    titles = [phase.title for phase in world.phases[formed:]]
    assert titles[0].startswith("hand over")
    assert titles[1] == "start the nodes"


def refused(world: ChangingWorld, verb: Verb, words: str) -> RefusedError:
    """The verb is refused, and nothing has been done or recorded."""
    before, phases = world.topology, len(world.phases)
    with pytest.raises(RefusedError, match=words) as caught:
        world.run(verb)
    assert (world.topology, len(world.phases)) == (before, phases)
    return caught.value


def plain(topology: Topology) -> Leaving:
    return how(topology, force=False)


def test_no_other_host() -> None:
    world = changing_world(make_topology(3, 1))
    refused(world, drain_verb("local", plain(world.topology)), "there is no other host")


def test_two_copies_of_a_shard_on_one_host() -> None:
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1)))
    error = refused(world, drain_verb("host-1-1", plain(world.topology)), "would hold two copies of a shard")
    assert "host maintenance enter" in error.next_step


@pytest.mark.parametrize(
    ("total", "available", "what"),
    [
        (2**29, 2**29, "3 nodes may take 768 MB of 512 MB; 1 new ones hold 100 MB, 512 MB are free"),
        (2**40, 2**20, "3 nodes may take 768 MB of 1048576 MB; 1 new ones hold 100 MB, 1 MB are free"),
    ],
)
def test_too_little_memory(total: int, available: int, what: str) -> None:
    """The limits of all nodes there (256 MB each) fit into the machine, and the data of the new ones is free there."""
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1)))
    nodes = {n.name: replace(n, used_memory_bytes=100 * 2**20) for n in world.facts.reachable_nodes()}
    world.facts = replace(world.facts, nodes=nodes)
    names = [host.name for host in world.topology.hosts]
    verb = drain_verb(names[0], Leaving(machines={name: Machine(name, total, available) for name in names}))
    error = refused(world, verb, "too little memory")
    assert error.why == what
    together = {name: Machine("one machine", 2**30, 2**30) for name in names}
    error = refused(world, drain_verb(names[0], Leaving(machines=together)), "too little memory")
    assert "8 nodes may take 2048 MB of 1024 MB; 2 new ones hold 200 MB" in error.why
    enough = {name: Machine(name, 3 * 2**28, 2**27) for name in names}
    world.run(drain_verb(names[0], Leaving(machines=enough, force=True)))


def test_the_last_host_of_a_zone_majority() -> None:
    world = changing_world(make_topology(3, 1, hosts_in_zones(2, 1, 1)))
    error = refused(world, remove_verb("host-2-1", plain(world.topology)), "one zone would have half of the masters")
    assert "no majority" in error.why
    world.run(remove_verb("host-1-2", plain(world.topology)))  # its zone has another
    assert_in_order(world)


def test_the_last_copy_of_a_shard_on_a_lost_host() -> None:
    world = changing_world(make_topology(3, 0, hosts_in_zones(1, 1, 1)))
    lose(world, "host-1-1")
    for verb in (remove_verb("host-1-1", how(world.topology)), drain_verb("host-1-1", how(world.topology))):
        refused(world, verb, "does not answer and owns slots|does not serve|in the state fail")


def test_a_lost_master_is_waited_for() -> None:
    """Its replica takes over by itself, a node timeout later."""
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1, 1)))
    names = nodes_on(world.topology, {"host-1-1"})
    heirs: list[str] = []
    for name in names:
        seen = world.facts.nodes[name]
        heirs += [n.name for n in world.facts.reachable_nodes() if n.master_id == seen.id and seen.slots]
        world.kill(name)
    world.kill("envoy-1")
    planner = world.begin(remove_verb("host-1-1", how(world.topology)))
    phase = planner(world.facts)
    assert phase
    assert phase.title.startswith("wait until replicas have taken over")
    for heir in heirs:
        world.fail_over(heir)
    world.run(remove_verb("host-1-1", how(make_topology())))
    world.killed = False
    assert_in_order(world)


def test_unknown_hosts() -> None:
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1)))
    plainly = plain(world.topology)
    for verb, words in (
        (drain_verb("nobody", plainly), "no host called 'nobody'"),
        (remove_verb("nobody", plainly), "no host called 'nobody'"),
        (replace_verb("nobody", "new", plainly), "no host called 'nobody'"),
        (replace_verb("host-1-1", "new", plainly), "no host called 'new' is declared"),
    ):
        with pytest.raises(NotFoundError, match=words):
            world.run(verb)


def test_a_host_cannot_replace_itself() -> None:
    with pytest.raises(UsageError, match="itself"):
        replace_verb("h1", "h1", Leaving())


def test_a_lost_host_is_told_of_what_is_left_there() -> None:
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1, 1)))
    lose(world, "host-1-1")
    verb = remove_verb("host-1-1", how(world.topology))
    world.run(verb)
    assert any("cannot be reached" in notice and "envoy-1" in notice for notice in verb.notices)
    assert sum(count(owner.slots) for owner in newest_owners(world.facts)) == 16384


def test_without_a_majority_nobody_can_be_elected() -> None:
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1, 1)))
    masters = [owner.name for owner in newest_owners(world.facts)]
    host = world.topology.node(masters[0]).host
    for owner in newest_owners(world.facts):  # two masters on one host, and it is lost
        here = nodes_on(world.topology, {host})
        heirs = [replica.name for replica in replicas_of(world.facts, owner.id) if replica.name in here]
        if owner.name not in here and heirs:
            world.fail_over(heirs[0])
    lost = [owner.name for owner in newest_owners(world.facts) if owner.name in nodes_on(world.topology, {host})]
    assert len(lost) == 2
    for name in (*nodes_on(world.topology, {host}), *envoys_on(world.topology, {host})):
        world.kill(name)
    error = refused(world, remove_verb(host, how(world.topology)), "no majority of masters is left")
    assert all(f"redisforge failover {name} --takeover" in error.next_step for name in lost)


def test_nodes_that_somebody_else_runs_are_not_made_anew() -> None:
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1, 1)))
    here = nodes_on(world.topology, {"host-1-1"})
    nodes = tuple(replace(node, managed=node.name not in here) for node in world.topology.nodes)
    world.declare(replace(world.topology, nodes=nodes))
    error = refused(world, drain_verb("host-1-1", how(world.topology)), "RedisForge does not run redis-")
    assert "scale add" in error.next_step
