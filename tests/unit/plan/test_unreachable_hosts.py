"""What `up` does while a host cannot be reached: start what has data elsewhere, begin nothing anew, and say so."""

from __future__ import annotations

import pytest
from edits import all_of, gone, unit_with
from msgspec.structs import replace
from topologies import formed, hosts_in_zones, make_topology, nothing_runs, wishes_for

from redisforge.errors import HostError
from redisforge.model.facts import UnitFacts, UnitState
from redisforge.model.steps import StartUnit
from redisforge.plan import gates
from redisforge.plan.bring_up import next_phase
from redisforge.plan.diagnose import diagnose
from redisforge.plan.starting import refuse_unreachable_newcomers

TOPOLOGY = make_topology(hosts=hosts_in_zones(1, 1, 1))
FORMED = formed(TOPOLOGY)
WISHES = wishes_for(TOPOLOGY)
DEAD = TOPOLOGY.node("redis-2").host
ON_DEAD = [node.name for node in TOPOLOGY.nodes if node.host == DEAD]
lost_host = all_of(*(gone(name, UnitState.UNKNOWN, f"{DEAD}: cannot connect") for name in ON_DEAD))


def test_nodes_with_data_on_other_hosts_are_started_first() -> None:
    other = next(node.name for node in TOPOLOGY.nodes if node.host != DEAD)
    phase = next_phase(TOPOLOGY, all_of(lost_host, gone(other))(TOPOLOGY, FORMED), WISHES)
    assert phase
    assert [step.unit for step in phase.steps if isinstance(step, StartUnit)] == [other]
    assert not any(isinstance(step, StartUnit) and step.permit_blank for step in phase.steps)
    after = all_of(lost_host)(TOPOLOGY, FORMED)
    assert gates.nodes_answer(TOPOLOGY, after) == ()


def test_an_envoy_elsewhere_is_started_although_a_host_is_missing() -> None:
    facts = all_of(lost_host, unit_with("envoy-1", state=UnitState.STOPPED))(TOPOLOGY, FORMED)
    phase = next_phase(TOPOLOGY, facts, WISHES)
    assert phase
    assert [step.unit for step in phase.steps if isinstance(step, StartUnit)] == ["envoy-1"]


def test_then_the_host_is_named() -> None:
    with pytest.raises(HostError, match=f"{DEAD} cannot be reached") as raised:
        next_phase(TOPOLOGY, lost_host(TOPOLOGY, FORMED), WISHES)
    assert raised.value.where == ", ".join(ON_DEAD)
    assert raised.value.why == f"{DEAD}: cannot connect"
    assert "redisforge up" in raised.value.next_step


def test_a_new_cluster_does_not_begin_without_all_of_its_hosts() -> None:
    """Its nodes would otherwise start blank while those on the missing host may hold the slots."""
    units = {
        name: UnitFacts(name=name, state=UnitState.UNKNOWN if name in ON_DEAD else UnitState.ABSENT, reason="no way")
        for name in WISHES.config_hashes
    }
    with pytest.raises(HostError, match="cannot be reached"):
        next_phase(TOPOLOGY, replace(nothing_runs(TOPOLOGY), units=units), WISHES)


def test_a_node_that_lost_its_data_does_not_start_blank_meanwhile() -> None:
    """The only one that expects slots of it may be on the missing host."""
    other = next(node.name for node in TOPOLOGY.nodes if node.host != DEAD)
    facts = all_of(lost_host, gone(other), unit_with(other, has_cluster_config=False))(TOPOLOGY, FORMED)
    with pytest.raises(HostError, match="cannot be reached"):
        next_phase(TOPOLOGY, facts, WISHES)


def test_status_names_the_units_of_a_host_that_cannot_be_reached() -> None:
    found = {problem.where: problem.what for problem in diagnose(TOPOLOGY, lost_host(TOPOLOGY, FORMED))}
    for name in ON_DEAD:
        assert found[name] == f"its host cannot be reached: {DEAD}: cannot connect"


def test_a_newcomer_on_a_host_that_cannot_be_reached_is_refused_and_a_member_there_is_not() -> None:
    newcomer = replace(TOPOLOGY.node("redis-2"), name="redis-7", port=7007, bus_port=17007, shard=3)
    grown = replace(TOPOLOGY, nodes=(*TOPOLOGY.nodes, newcomer))
    facts = lost_host(TOPOLOGY, FORMED)
    refuse_unreachable_newcomers(grown, facts)  # nothing is known of the new ones: their hosts answered

    unknown = {"redis-7": UnitFacts(name="redis-7", state=UnitState.UNKNOWN, reason="no way")}
    with pytest.raises(HostError, match="cannot be reached") as raised:
        refuse_unreachable_newcomers(grown, replace(facts, units={**facts.units, **unknown}))
    assert raised.value.where == "redis-7"
    assert "nothing was changed" in raised.value.next_step
