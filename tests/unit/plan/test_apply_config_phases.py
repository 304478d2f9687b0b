"""Changed settings: told where that is possible, a restart where not, and done once."""

from __future__ import annotations

import pytest
from edits import node_with, unit_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import formed, make_topology

from redisforge.model.facts import Facts
from redisforge.model.steps import NoteApplied, RefreshUnit, RestartUnit, SetSettings
from redisforge.model.topology import Topology
from redisforge.plan.apply_config import ApplyConfig, Declared, apply_phase, left_alone, need_of
from redisforge.plan.predict import apply, predict, settle
from redisforge.plan.starting import Wishes

CONF = {"maxmemory": "96mb", "hz": "10", "tcp-backlog": "511"}
RUNNING = {"maxmemory": "100663296", "hz": "10", "tcp-backlog": "511"}
SETTABLE = frozenset({"maxmemory", "hz"})


def running(topology: Topology, config_hash: str = "base.old", placed: str = "old", **values: str) -> Facts:
    facts = replace(formed(topology), observed_at_s=100.0)
    for node in topology.nodes:
        facts = node_with(node.name, settings={**RUNNING, **values})(topology, facts)
        facts = unit_with(node.name, config_hash=config_hash, placed_hash=placed)(topology, facts)
    return facts


def wanted(topology: Topology, *restart_for: str) -> tuple[ApplyConfig, Wishes]:
    nodes = {node.name: Declared(CONF, "base.new", "new", restart_for) for node in topology.nodes}
    asked = ApplyConfig(nodes=nodes, settable=SETTABLE, since_s=50.0)
    return asked, Wishes(dict.fromkeys(nodes, "base.new"), placed_hashes=dict.fromkeys(nodes, "new"))


def plan(topology: Topology, facts: Facts, *restart_for: str) -> list[str]:
    asked, wishes = wanted(topology, *restart_for)
    return [str(step) for step in predict(topology, facts, wishes, lambda f: apply_phase(topology, f, asked)).steps()]


def test_everything_that_differs_is_set_at_once_and_then_recorded_and_placed() -> None:
    topology = make_topology()
    found = plan(topology, running(topology, maxmemory="1", hz="20"))
    assert found[:3] == [
        "redis-1: CONFIG SET maxmemory 96mb hz 10",
        "record that redis-1 has its settings",
        "place the files of redis-1",
    ]
    assert len(found) == 18
    assert not any("restart" in step for step in found)


def test_only_the_file_differs() -> None:
    topology = make_topology()
    assert plan(topology, running(topology))[:2] == [
        "record that redis-1 has its settings",
        "place the files of redis-1",
    ]


@pytest.mark.parametrize("node_values", [{"tcp-backlog": "100"}, {"tcp-backlog": "100", "maxmemory": "1"}])
def test_what_only_a_start_brings_restarts_all_one_by_one(node_values: dict[str, str]) -> None:
    topology = make_topology()
    found = plan(topology, running(topology, **node_values))
    assert sum(step.startswith("restart redis-") for step in found) == 6
    assert sum("CLUSTER FAILOVER" in step for step in found) == 3
    assert not any("CONFIG SET" in step for step in found)


def test_a_directive_that_is_gone_and_has_no_known_default_needs_a_restart() -> None:
    topology = make_topology()
    assert any(step.startswith("restart") for step in plan(topology, running(topology), "loadmodule"))


@pytest.mark.parametrize(("config_hash", "placed"), [("other.new", "old"), ("base.old", "new")])
def test_what_no_node_can_be_told_of_needs_a_restart(config_hash: str, placed: str) -> None:
    """Another command line or users; or a file that was replaced under the running process."""
    topology = make_topology()
    asked, _ = wanted(topology)
    assert need_of(running(topology, config_hash, placed), asked, "redis-1").restart_for


def test_a_run_that_is_always_killed_after_one_step_gets_on() -> None:
    """Each step of a node once: what it was told, what was recorded and what was placed is seen by the next run."""
    topology = make_topology()
    asked, wishes = wanted(topology)
    facts, done = running(topology, maxmemory="1"), list[str]()
    while phase := apply_phase(topology, facts, asked):
        done.append(str(phase.steps[0]))
        assert len(done) <= 18, done
        facts = settle(topology, apply(topology, facts, phase.steps[:1], wishes))
        asked = replace(asked, since_s=facts.observed_at_s + 1)  # the next run begins later
    assert len(done) == len(set(done)) == 18


def test_a_node_as_declared_needs_nothing() -> None:
    topology = make_topology()
    asked, _ = wanted(topology)
    assert need_of(running(topology, "base.new", "new"), asked, "redis-1").is_none


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_cut_anywhere_it_converges_and_nobody_is_left_out(data: st.DataObject) -> None:
    topology = make_topology()
    asked, wishes = wanted(topology)
    facts = running(topology)
    for node in topology.nodes:
        values = {
            "maxmemory": data.draw(st.sampled_from(["1", RUNNING["maxmemory"]])),
            "tcp-backlog": data.draw(st.sampled_from(["100", "511", "511"])),
        }
        facts = node_with(node.name, settings={**RUNNING, **values})(topology, facts)
    restarted: set[str] = set()
    told: set[str] = set()
    needed = {name for name in asked.nodes if need_of(facts, asked, name).restart_for}
    cuts = data.draw(st.lists(st.integers(0, 2), max_size=12))
    for _ in range(200):
        phase = apply_phase(topology, facts, asked)
        if phase is None:
            break
        cut = min(cuts.pop(), len(phase.steps)) if cuts else len(phase.steps)
        restarted |= {step.unit for step in phase.steps[:cut] if isinstance(step, RestartUnit)}
        told |= {step.unit for step in phase.steps[:cut] if isinstance(step, NoteApplied)}
        done = [type(step) for step in phase.steps[:cut]]
        planned = [type(step) for step in phase.steps]
        assert RefreshUnit not in done or NoteApplied in done or NoteApplied not in planned
        assert (
            NoteApplied not in done or SetSettings in done or not any(isinstance(s, SetSettings) for s in phase.steps)
        )
        facts = settle(topology, apply(topology, facts, phase.steps[:cut], wishes))
    assert apply_phase(topology, facts, asked) is None
    assert needed <= restarted
    assert restarted | told == set(asked.nodes)
    assert {facts.units[name].config_hash for name in asked.nodes} == {"base.new"}
    assert {facts.units[name].placed_hash for name in asked.nodes} == {"new"}


def test_other_changes_are_named_with_their_verbs() -> None:
    topology = make_topology()
    other = replace(topology, shards=9, engine=replace(topology.engine, version="7.0"))
    notices = left_alone(topology, other)
    assert any("shards" in notice and "scale" in notice for notice in notices)
    assert any("engine" in notice and "upgrade" in notice for notice in notices)
    assert left_alone(topology, topology) == ()
