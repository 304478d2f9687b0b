"""Upgrades of nodes that somebody else runs: the order of every upgrade, and an end where restarts bring nothing."""

from __future__ import annotations

import pytest
from edits import node_with, unit_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import make_topology, run_by_others, served_by_others

from redisforge.errors import GateError, RefusedError
from redisforge.model.facts import Facts
from redisforge.model.steps import Promote, RestartUnit
from redisforge.model.topology import Role, Topology
from redisforge.plan.predict import apply, predict, settle
from redisforge.plan.starting import Wishes
from redisforge.plan.upgrade import Upgrade, is_upgraded, refuse_older
from redisforge.plan.upgrade_external import upgrade_external_phase
from redisforge.plan.view import ALL_SLOTS, owned_slots

OLD, NEW = "8.0.6", "8.6.3"
TOPOLOGY = run_by_others(make_topology())
WANTED = Upgrade(version="8.6", config_hashes={node.name: "new" for node in TOPOLOGY.nodes}, accepted=frozenset({NEW}))


def running(topology: Topology = TOPOLOGY, *new: str) -> Facts:
    facts = served_by_others(topology)
    for node in topology.nodes:
        facts = node_with(node.name, version=NEW if node.name in new else OLD)(topology, facts)
    return facts


def pids(facts: Facts) -> dict[str, int]:
    return {name: unit.pid for name, unit in facts.units.items()}


def changes(topology: Topology, facts: Facts) -> list[RestartUnit | Promote]:
    wishes = Wishes(WANTED.config_hashes)
    plan = predict(topology, facts, wishes, lambda seen: upgrade_external_phase(topology, seen, WANTED, pids(facts)))
    return [step for step in plan.steps() if isinstance(step, RestartUnit | Promote)]


def restarted(topology: Topology, facts: Facts, name: str, version: str) -> Facts:
    """The node's process is another one now, and reports `version`."""
    facts = unit_with(name, pid=facts.units[name].pid + 1000)(topology, facts)
    return node_with(name, version=version)(topology, facts)


def test_replicas_go_first_masters_hand_over_and_no_file_is_touched() -> None:
    found = changes(TOPOLOGY, running())
    roles = {node.name: node.intended_role for node in TOPOLOGY.nodes}
    restarts = [step for step in found if isinstance(step, RestartUnit)]
    assert [roles[step.unit] for step in restarts] == [Role.REPLICA] * 3 + [Role.MASTER] * 3
    assert [type(step) for step in found[3:]] == [Promote, RestartUnit] * 3
    assert not any(step.keep_identity for step in restarts)


def test_nodes_that_run_it_are_passed_over() -> None:
    done = ("redis-4", "redis-5", "redis-6", "redis-1")
    left = {step.unit for step in changes(TOPOLOGY, running(TOPOLOGY, *done)) if isinstance(step, RestartUnit)}
    assert left == {"redis-2", "redis-3"}
    everybody = [node.name for node in TOPOLOGY.nodes]
    assert changes(TOPOLOGY, running(TOPOLOGY, *everybody)) == []


def test_a_node_that_comes_back_with_the_old_version_ends_it() -> None:
    before = running()
    facts = restarted(TOPOLOGY, before, "redis-4", OLD)
    with pytest.raises(GateError) as caught:
        upgrade_external_phase(TOPOLOGY, facts, WANTED, pids(before))
    assert caught.value.what == f"redis-4 was restarted and still runs redis {OLD}, not 8.6"
    assert "systemd:redis-4" in caught.value.where
    assert "0 of its 6 nodes" in caught.value.why
    assert "redis-1 (systemd:redis-1)" in caught.value.next_step
    # The next run begins anew: the owner may have installed it since.
    phase = upgrade_external_phase(TOPOLOGY, facts, WANTED, pids(facts))
    assert phase
    assert isinstance(phase.steps[0], RestartUnit)


def test_what_is_out_of_order_is_waited_for_before_anything_is_said() -> None:
    before = running()
    facts = restarted(TOPOLOGY, before, "redis-4", OLD)
    facts = node_with("redis-4", master_link_up=False)(TOPOLOGY, facts)
    phase = upgrade_external_phase(TOPOLOGY, facts, WANTED, pids(before))
    assert phase
    assert not phase.steps


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ((), "redis-4"),
        (("redis-4",), "redis-5"),
        (("redis-4", "redis-5", "redis-6"), "hand over"),
    ],
)
def test_a_container_is_left_to_its_owner_once_it_is_a_replica(new: tuple[str, ...], expected: str) -> None:
    topology = run_by_others(make_topology(), "docker:{}")
    facts = running(topology, *new)
    if expected == "hand over":
        phase = upgrade_external_phase(topology, facts, WANTED, pids(facts))
        assert phase
        (step,) = phase.steps
        assert isinstance(step, Promote)
        facts = settle(topology, apply(topology, facts, phase.steps, Wishes()))
        expected = "redis-1"
    with pytest.raises(GateError) as caught:
        upgrade_external_phase(topology, facts, WANTED, pids(facts))
    assert caught.value.what == f"{expected} runs redis {OLD}, and its container starts nothing else"
    assert "clients do not notice" in caught.value.next_step
    others = [name for name in ("redis-5", "redis-6") if name != expected]
    assert all(name in caught.value.next_step for name in others) is (expected != "redis-1")


def test_a_service_that_does_not_run_is_not_what_runs_the_node() -> None:
    facts = unit_with("redis-4", pid=0)(TOPOLOGY, running())
    with pytest.raises(GateError, match="redis-4 answers, and systemd:redis-4 does not run"):
        upgrade_external_phase(TOPOLOGY, facts, WANTED, pids(facts))


@pytest.mark.parametrize(
    ("runs", "asked", "accepted", "is_refused"),
    [
        ("8.6.3", "8.0", (), True),
        ("9.1.2", "8", (), True),
        ("8.6.3", "8", ("8.6.3",), False),  # the floor or the series takes it
        ("8.0.6", "8.6", (), False),
    ],
)
def test_an_older_series_is_refused(runs: str, asked: str, accepted: tuple[str, ...], *, is_refused: bool) -> None:
    facts = node_with("redis-5", version=runs)(TOPOLOGY, running())
    facts = replace(facts, nodes={"redis-5": facts.nodes["redis-5"]})
    if is_refused:
        with pytest.raises(RefusedError, match="is older"):
            refuse_older(TOPOLOGY, facts, asked, frozenset(accepted))
    else:
        refuse_older(TOPOLOGY, facts, asked, frozenset(accepted))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_hosts_have_it_the_cluster_stays_whole_and_no_node_restarts_twice_in_vain(data: st.DataObject) -> None:
    """Some hosts have the new program and some have not; each run ends, and the owner installs one more then."""
    topology = TOPOLOGY
    installed = set(data.draw(st.sets(st.sampled_from([node.name for node in topology.nodes]))))
    facts = running()
    for _ in range(2 * len(topology.nodes) + 1):
        before, vain = pids(facts), list[str]()
        try:
            while phase := upgrade_external_phase(topology, facts, WANTED, before):
                for step in phase.steps:
                    if isinstance(step, Promote):
                        old = [n for n in facts.nodes.values() if n.master_id == facts.nodes[step.node].master_id]
                        assert all(is_upgraded(facts, WANTED, node.name) for node in old)
                    pid = facts.units[step.unit].pid if isinstance(step, RestartUnit) else 0
                    facts = settle(topology, apply(topology, facts, (step,), Wishes()))
                    if isinstance(step, RestartUnit):
                        facts = unit_with(step.unit, pid=pid)(topology, facts)
                        facts = restarted(topology, facts, step.unit, NEW if step.unit in installed else OLD)
                        vain += [step.unit] if step.unit not in installed else []
                    assert owned_slots(facts) == ALL_SLOTS
                if not phase.steps:  # it waits for time to pass
                    facts = replace(facts, observed_at_s=facts.observed_at_s + 60)
        except GateError:
            assert len(vain) == 1
            installed |= set(vain)
        else:
            break
    assert all(is_upgraded(facts, WANTED, node.name) for node in topology.nodes)
