"""Roles: masters spread evenly by the fewest failovers, and what status says of a placement that has drifted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import product

import pytest
from edits import Edit, all_of, every_line_with, gone, node_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import formed, hosts_in_zones, make_topology, wishes_for

from redisforge.model.facts import Facts
from redisforge.model.steps import Promote
from redisforge.model.topology import Host, Role, Topology
from redisforge.plan.predict import apply, settle
from redisforge.plan.roles import HANDOVER_LAG_BYTES, crowded, even_roles
from redisforge.plan.spread import Machine, spread

many = settings(max_examples=1000, deadline=None)
formed_ones = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
machines = st.builds(Machine, st.sampled_from("abc"), st.sampled_from(("10.0.0.1", "10.0.0.2")))
topologies = st.builds(
    make_topology,
    st.integers(3, 6),
    st.integers(1, 2),
    st.lists(st.integers(1, 3), min_size=1, max_size=3).map(lambda counts: hosts_in_zones(*counts)),
)


def fail_over(topology: Topology, facts: Facts, *replicas: str) -> Facts:
    """The facts after planned failovers to these replicas; one that is a master already stays it."""
    for name in replicas:
        if facts.nodes[name].role is Role.REPLICA:
            step = Promote(node=name, mode="handover", why="a test")
            facts = settle(topology, apply(topology, facts, (step,), wishes_for(topology)))
    return facts


def masters(topology: Topology, facts: Facts) -> list[str]:
    return [node.name for node in topology.nodes if facts.nodes[node.name].role is Role.MASTER]


def unevenness(places: Sequence[Machine]) -> tuple[int, int]:
    by_zone, by_machine = Counter(place.zone for place in places), Counter(places)
    return sum(load**2 for load in by_zone.values()), sum(load**2 for load in by_machine.values())


def places_of(topology: Topology, names: Sequence[str]) -> list[Machine]:
    return [Machine(topology.node(name).zone, topology.node(name).address) for name in names]


@many
@given(st.lists(st.tuples(machines, st.frozensets(machines, max_size=3)), max_size=5))
def test_a_spread_is_the_best_that_there_is(things: list[tuple[Machine, frozenset[Machine]]]) -> None:
    """Compared with every placement that is possible: as even, and with as few moves."""
    places, choices = [place for place, _ in things], [possible for _, possible in things]
    found = spread(places, choices)
    assert all(there in {here, *possible} for here, there, possible in zip(places, found, choices, strict=True))

    def cost(wanted: Sequence[Machine]) -> tuple[int, int, int]:
        return *unevenness(wanted), sum(here != there for here, there in zip(places, wanted, strict=True))

    possible_ones = product(*({here, *possible} for here, possible in things))
    assert cost(found) == min(map(cost, possible_ones))


def test_a_spread_goes_through_others_where_it_must() -> None:
    """a can only relieve itself through b: two move, one step each."""
    a, b, c = (Machine(zone, f"10.0.0.{zone}") for zone in "abc")
    places = [a, a, a, b, b, c]
    nowhere = frozenset[Machine]()
    assert spread(places, [frozenset({b}), nowhere, nowhere, frozenset({c}), nowhere, nowhere]) == (b, a, a, c, b, c)


def test_three_hundred_masters_on_one_of_three_hosts() -> None:
    hosts = [Machine(zone, f"10.0.0.{zone}") for zone in "abc"]
    found = spread([hosts[0]] * 300, [frozenset(hosts)] * 300)
    assert Counter(found) == dict.fromkeys(hosts, 100)


@formed_ones
@given(topologies)
def test_a_new_cluster_is_not_crowded(topology: Topology) -> None:
    """Formation and roles agree on what is even."""
    facts = formed(topology)
    assert crowded(topology, facts) == ()
    assert even_roles(topology, facts) == ()


@formed_ones
@given(topologies, st.data())
def test_after_any_failovers_roles_become_even_again_and_stay_so(topology: Topology, data: st.DataObject) -> None:
    """One failover at a time, each planned anew, as the runbook does it."""
    names = data.draw(st.lists(st.sampled_from([node.name for node in topology.nodes]), max_size=6))
    facts = fail_over(topology, formed(topology), *names)
    plan = even_roles(topology, facts)
    before = unevenness(places_of(topology, masters(topology, facts)))
    if plan:
        fewer = len(plan)
        assert len({promotion.master for promotion in plan}) == fewer, "a shard changes once"
        while promotions := even_roles(topology, facts):
            assert len(promotions) == fewer, "what is left is what was not done"
            promotion = data.draw(st.sampled_from(promotions))
            assert facts.nodes[promotion.replica].master_id == facts.nodes[promotion.master].id
            assert promotion.why
            facts = fail_over(topology, facts, promotion.replica)
            fewer -= 1
        assert fewer == 0
        assert unevenness(places_of(topology, masters(topology, facts))) < before
    assert not any("masters" in problem.what for problem in crowded(topology, facts))


@formed_ones
@given(topologies, st.data())
def test_zones_are_as_even_as_their_shards_allow(topology: Topology, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from([node.name for node in topology.nodes]), max_size=6))
    facts = fail_over(topology, formed(topology), *names)
    facts = fail_over(topology, facts, *(promotion.replica for promotion in even_roles(topology, facts)))
    now = places_of(topology, masters(topology, facts))
    choices = [
        {
            Machine(topology.node(node.name).zone, topology.node(node.name).address)
            for node in facts.nodes.values()
            if facts.nodes[name].id in (node.id, node.master_id)
        }
        for name in masters(topology, facts)
    ]
    assert unevenness(now) == min(map(unevenness, product(*choices)))


# --- which replicas may take over ------------------------------------------------------------------------------

TOPOLOGY = make_topology(hosts=hosts_in_zones(1, 1, 1))
FORMED = formed(TOPOLOGY)
MASTERS = {node.zone: node.name for node in TOPOLOGY.nodes if FORMED.nodes[node.name].role is Role.MASTER}
REPLICAS = {
    node.name: FORMED.nodes[node.name].master_id for node in TOPOLOGY.nodes if node.name not in MASTERS.values()
}
DRIFTED = fail_over(TOPOLOGY, FORMED, next(iter(REPLICAS)))
"""One host carries two masters, and one none."""
(BACK,) = even_roles(TOPOLOGY, DRIFTED)


def test_one_failover_is_undone_by_one() -> None:
    back = fail_over(TOPOLOGY, DRIFTED, BACK.replica)
    by_zone = Counter(TOPOLOGY.node(name).zone for name in masters(TOPOLOGY, back))
    assert set(by_zone.values()) == {1}
    assert "2→1" in BACK.why
    assert "0→1" in BACK.why


@pytest.mark.parametrize(
    "edit",
    [
        node_with(BACK.replica, master_link_up=False),
        node_with(BACK.replica, sync_in_progress=True),
        node_with(BACK.replica, loading=True),
        node_with(BACK.replica, replication_offset=0),
        node_with(
            BACK.master, replication_offset=DRIFTED.nodes[BACK.replica].replication_offset + 1 + HANDOVER_LAG_BYTES
        ),
        gone(BACK.replica),
        gone(BACK.master),
    ],
    ids=["no link", "first copy", "loading", "has received nothing", "far behind", "replica gone", "master gone"],
)
def test_only_a_replica_in_sync_takes_over(edit: Edit) -> None:
    names = [promotion.replica for promotion in even_roles(TOPOLOGY, edit(TOPOLOGY, DRIFTED))]
    assert BACK.replica not in names


def test_a_replica_a_little_behind_may_take_over() -> None:
    offset = DRIFTED.nodes[BACK.replica].replication_offset + HANDOVER_LAG_BYTES
    facts = node_with(BACK.master, replication_offset=offset)(TOPOLOGY, DRIFTED)
    assert even_roles(TOPOLOGY, facts) == (BACK,)


def test_on_one_host_roles_do_not_matter() -> None:
    alone = make_topology()
    facts = fail_over(alone, formed(alone), alone.nodes[-1].name)
    assert even_roles(alone, facts) == ()
    assert crowded(alone, facts) == ()


# --- what status says ------------------------------------------------------------------------------------------


def test_a_crowded_host_is_named_with_the_command() -> None:
    (problem,) = crowded(TOPOLOGY, DRIFTED)
    assert problem.where.startswith("host host-")
    assert problem.what == "carries 2 of 3 masters; 1 would be even"
    assert "`redisforge rebalance --roles`" in problem.next_step
    assert problem.severity == "warning"


def test_a_crowded_zone_is_named_where_no_host_is() -> None:
    """Two zones of two hosts: all four masters in one zone, two on each of its hosts, which is a host's share."""
    topology = make_topology(4, 1, hosts_in_zones(2, 2))
    facts = formed(topology)
    facts = fail_over(topology, facts, *(node.name for node in topology.nodes if node.zone == "zone-1"))
    loads = Counter(topology.node(name).zone for name in masters(topology, facts))
    assert loads == {"zone-1": 4}
    problems = crowded(topology, facts)
    assert {problem.where for problem in problems} <= {"zone zone-1", "host host-1-1", "host host-1-2"}
    assert any("carries" in problem.what for problem in problems)


def test_crowding_that_no_failover_can_mend_is_not_a_problem() -> None:
    """The only host of a zone carries the zone's half of the masters, and there are no replicas to relieve it."""
    topology = make_topology(6, 0, hosts_in_zones(3, 1))
    facts = formed(topology)
    loads = Counter(topology.node(name).host for name in masters(topology, facts))
    assert max(loads.values()) > math.ceil(6 / 4), "more than a host's share"
    assert crowded(topology, facts) == ()


def moved_to(host: Host, name: str) -> Topology:
    """The topology with one node on another host."""
    nodes = (
        replace(node, host=host.name, address=host.address, zone=host.zone) if node.name == name else node
        for node in TOPOLOGY.nodes
    )
    return replace(TOPOLOGY, nodes=tuple(nodes))


def test_a_shard_on_one_host_is_named() -> None:
    replica, master_id = next(iter(REPLICAS.items()))
    master = next(node for node in TOPOLOGY.nodes if FORMED.nodes[node.name].id == master_id)
    here = next(host for host in TOPOLOGY.hosts if host.name == master.host)
    shared = [problem for problem in crowded(moved_to(here, replica), FORMED) if "share" in problem.what]
    assert [problem.what for problem in shared] == [f"{master.name}, {replica} share the host {here.address}"]
    assert "lose the shard" in shared[0].next_step


def test_a_shard_in_one_zone_is_named_when_it_uses_two_hosts_of_it() -> None:
    replica, master_id = next(iter(REPLICAS.items()))
    master = next(node for node in TOPOLOGY.nodes if FORMED.nodes[node.name].id == master_id)
    beside = Host("beside", "10.9.0.1", master.zone)
    shared = [problem for problem in crowded(moved_to(beside, replica), FORMED) if "share" in problem.what]
    assert [problem.what for problem in shared] == [f"{master.name}, {replica} share the zone {master.zone}"]


def test_two_of_three_copies_on_a_host_do_not_lose_the_shard() -> None:
    """With more nodes than hosts some must share; three on one of two hosts is worse than need be."""
    topology = make_topology(3, 2, hosts_in_zones(1, 1))
    facts = formed(topology)
    assert crowded(topology, facts) == ()
    owner = facts.nodes["redis-1"].id
    here = topology.node("redis-1").address
    mine = [node for node in topology.nodes if facts.nodes[node.name].master_id == owner and node.address != here]
    other = next(
        node for node in topology.nodes if node.address == here and facts.nodes[node.name].master_id not in ("", owner)
    )
    swap: Edit = all_of(
        every_line_with(other.name, master_id=owner),
        every_line_with(mine[0].name, master_id=facts.nodes[other.name].master_id),
    )
    shared = [problem for problem in crowded(topology, swap(topology, facts)) if "share" in problem.what]
    if len(mine) == 1:
        assert len(shared) == 1
        assert "lose the shard" in shared[0].next_step
    else:
        assert shared == [], "still on both hosts"
