"""Nodes whose host has another address: known by their ids, restarted one at a time, replicas first."""

from __future__ import annotations

import pytest
from edits import unit_with
from msgspec.structs import replace
from topologies import formed, hosts_in_zones, make_topology, silent, wishes_for

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, UnitState
from redisforge.model.steps import RestartUnit
from redisforge.model.topology import Role, Topology
from redisforge.plan.bring_up import next_phase
from redisforge.plan.readdress import readdress
from redisforge.plan.resting import nodes_on

NEW_ADDRESS = "10.7.7.7"


def moved(replicas: int = 1) -> tuple[Topology, Facts, list[str]]:
    """A cluster in order, seen after the operator has given the first host another address."""
    before = make_topology(3, replicas, hosts_in_zones(1, 1, 1))
    facts = formed(before)
    names = sorted(nodes_on(before, {"host-1-1"}))
    hosts = tuple(replace(h, address=NEW_ADDRESS) if h.name == "host-1-1" else h for h in before.hosts)
    nodes = tuple(replace(n, address=NEW_ADDRESS) if n.name in names else n for n in before.nodes)
    topology = replace(before, hosts=hosts, nodes=nodes)
    for name in names:
        node_id = facts.nodes[name].id
        facts = replace(facts, nodes={**facts.nodes, name: silent(topology.node(name))})
        facts = unit_with(name, config_hash="older", node_id=node_id)(topology, facts)
    return topology, facts, names


def role_of(facts: Facts, name: str) -> Role:
    node_id = facts.units[name].node_id
    return next(p.role for n in facts.reachable_nodes() for p in n.peers if p.id == node_id)


def test_one_at_a_time_replicas_first() -> None:
    topology, facts, names = moved()
    phase = next_phase(topology, facts, wishes_for(topology))
    assert phase
    (step,) = phase.steps
    assert isinstance(step, RestartUnit)
    assert {role_of(facts, name) for name in names} == {Role.MASTER, Role.REPLICA}
    assert role_of(facts, step.unit) is Role.REPLICA
    assert NEW_ADDRESS in step.why
    assert "10.1.0.1" in step.why
    assert phase.gate.without == tuple(sorted(set(names) - {step.unit}))
    assert phase.gate.name == "nodes_answer", "a master that has not moved yet owns slots"


def test_the_last_one_leaves_the_cluster_in_order() -> None:
    topology, facts, names = moved()
    master = next(name for name in names if role_of(facts, name) is Role.MASTER)
    for name in set(names) - {master}:
        facts = unit_with(name, config_hash="declared")(topology, facts)  # it has been restarted, and loads
    phase = readdress(topology, facts, wishes_for(topology))
    assert phase
    assert [step.unit for step in phase.steps if isinstance(step, RestartUnit)] == [master]
    assert (phase.gate.name, phase.gate.without) == ("settled", ())


@pytest.mark.parametrize(
    "changes",
    [
        {"config_hash": "declared"},
        {"config_hash": ""},
        {"node_id": ""},
        {"node_id": "of nobody"},
        {"state": UnitState.STOPPED},
        {"state": UnitState.BACKOFF},
        {"state": UnitState.UNKNOWN},
    ],
    ids=str,
)
def test_others_are_left_alone(changes: dict[str, object]) -> None:
    """Who hangs, has stopped, cannot be asked, or is nobody's acquaintance has not moved."""
    topology, facts, names = moved()
    for name in names:
        facts = unit_with(name, **changes)(topology, facts)
    assert readdress(topology, facts, wishes_for(topology)) is None


def test_who_answers_or_is_known_where_it_is_declared_has_not_moved() -> None:
    topology = make_topology(3, 1, hosts_in_zones(1, 1, 1))
    facts = formed(topology)
    name = topology.nodes[0].name
    facts = unit_with(name, config_hash="older", node_id=facts.nodes[name].id)(topology, facts)
    assert readdress(topology, facts, wishes_for(topology)) is None
    facts = replace(facts, nodes={**facts.nodes, name: silent(topology.nodes[0])})
    assert readdress(topology, facts, wishes_for(topology)) is None


def test_without_its_id_a_member_at_another_address_is_a_stranger() -> None:
    """Nothing is captured on a guess."""
    topology, facts, names = moved()
    for name in names:
        facts = unit_with(name, node_id="")(topology, facts)
    with pytest.raises(RefusedError, match="members that are not declared"):
        next_phase(topology, facts, wishes_for(topology))
