"""Upgrades: replicas first, masters after a handover, and the next run goes on wherever one was cut off."""

from __future__ import annotations

import pytest
from edits import node_with, unit_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from topologies import formed, hosts_in_zones, make_topology

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts
from redisforge.model.steps import Promote, RestartUnit
from redisforge.model.topology import Role, Topology
from redisforge.plan.predict import apply, predict, settle
from redisforge.plan.starting import Wishes
from redisforge.plan.upgrade import Upgrade, is_upgraded, refuse_older, upgrade_phase
from redisforge.plan.view import ALL_SLOTS, owned_slots

slow_enough = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def running(topology: Topology, version: str = "8.0.6") -> Facts:
    facts = formed(topology)
    for node in topology.nodes:
        facts = node_with(node.name, version=version)(topology, facts)
    return facts


def to(topology: Topology, version: str = "8.6.3", *, force: bool = False) -> tuple[Upgrade, Wishes]:
    hashes = {node.name: f"{node.name} with {version}" for node in topology.nodes}
    return Upgrade(version=version, config_hashes=hashes, force=force), Wishes(hashes)


def steps_of(topology: Topology, facts: Facts) -> list[str]:
    wanted, wishes = to(topology)
    return [
        str(step) for step in predict(topology, facts, wishes, lambda f: upgrade_phase(topology, f, wanted)).steps()
    ]


def test_replicas_go_first_and_masters_hand_over_before_they_stop() -> None:
    topology = make_topology(3, 1)
    wanted, wishes = to(topology)
    plan = predict(topology, running(topology), wishes, lambda facts: upgrade_phase(topology, facts, wanted))

    changes = [step for step in plan.steps() if isinstance(step, RestartUnit | Promote)]
    roles = {node.name: node.intended_role for node in topology.nodes}
    assert [roles[step.unit] for step in changes[:3] if isinstance(step, RestartUnit)] == [Role.REPLICA] * 3
    for promote, restart in zip(changes[3::2], changes[4::2], strict=True):
        assert isinstance(promote, Promote)
        assert isinstance(restart, RestartUnit)
        assert topology.node(promote.node).shard == topology.node(restart.unit).shard
        assert roles[restart.unit] is Role.MASTER
    assert len(changes) == 9
    assert all(step.keep_identity for step in changes if isinstance(step, RestartUnit))


def test_nothing_is_left_to_do_when_all_run_the_version() -> None:
    topology = make_topology()
    assert steps_of(topology, running(topology, "8.6.3")) == []


def test_a_node_that_was_started_with_the_program_counts_whatever_it_reports() -> None:
    topology = make_topology()
    facts = unit_with("redis-4", config_hash="redis-4 with 8.6.3")(topology, running(topology))
    wanted, _ = to(topology)
    assert is_upgraded(facts, wanted, "redis-4")
    assert not is_upgraded(facts, wanted, "redis-5")


def test_a_master_without_a_replica_is_refused_unless_forced() -> None:
    topology = make_topology(3, 0)
    facts, (wanted, _) = running(topology), to(topology)
    with pytest.raises(RefusedError, match="no replica that could take over"):
        upgrade_phase(topology, facts, wanted)
    forced, _ = to(topology, force=True)
    phase = upgrade_phase(topology, facts, forced)
    assert phase
    assert any(isinstance(step, RestartUnit) for step in phase.steps)


@slow_enough
@given(st.integers(3, 5), st.integers(1, 2), st.data())
def test_cut_anywhere_it_converges_and_no_old_node_needs_a_snapshot_of_a_new_one(
    shards: int, replicas: int, data: st.DataObject
) -> None:
    """After each phase, and within phases, the tool dies; the next run plans from what it finds.

    What must hold: all slots have an owner at every moment; a node with the old version never restarts, and no other
    old node stays, under a new master.
    """
    topology = make_topology(shards, replicas, hosts_in_zones(1, 2))
    wanted, wishes = to(topology)
    facts = running(topology)
    cuts = data.draw(st.lists(st.integers(0, 2), max_size=12))
    for _ in range(40 * shards * (replicas + 1)):
        phase = upgrade_phase(topology, facts, wanted)
        if phase is None:
            break
        for step in phase.steps:
            if isinstance(step, Promote):
                heir = facts.nodes[step.node]
                old = [n for n in facts.nodes.values() if n.master_id == heir.master_id]
                assert all(is_upgraded(facts, wanted, node.name) for node in old), "an old replica under a new master"
        cut = min(cuts.pop(), len(phase.steps)) if cuts else len(phase.steps)
        facts = settle(topology, apply(topology, facts, phase.steps[:cut], wishes))
        assert owned_slots(facts) == ALL_SLOTS
    assert upgrade_phase(topology, facts, wanted) is None
    assert all(is_upgraded(facts, wanted, node.name) for node in topology.nodes)


@pytest.mark.parametrize(("running_version", "asked"), [("8.6.3", "8.4.1"), ("8.0.6", "7.2.9"), ("7.0.15", "6.2.0")])
def test_an_older_series_is_refused(running_version: str, asked: str) -> None:
    topology = make_topology()
    facts = node_with("redis-5", version=running_version)(topology, running(topology, asked))
    with pytest.raises(RefusedError, match="redis-5 runs redis"):
        refuse_older(topology, facts, asked)


@pytest.mark.parametrize(("running_version", "asked"), [("8.6.3", "8.6.1"), ("8.6.3", "8.6.3"), ("8.6.3", "8.10.0")])
def test_the_same_and_newer_series_are_not(running_version: str, asked: str) -> None:
    topology = make_topology()
    refuse_older(topology, running(topology, running_version), asked)
