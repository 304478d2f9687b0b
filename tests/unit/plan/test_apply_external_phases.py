"""Declared settings on nodes of somebody else: told and saved one by one, and the rest said."""

from __future__ import annotations

import pytest
from edits import node_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import make_topology, run_by_others, served_by_others

from redisforge.model.facts import Facts
from redisforge.model.steps import RestartUnit, SaveSettings, SetSettings
from redisforge.model.topology import Role, Topology
from redisforge.plan.apply_external import (
    ApplyExternal,
    apply_external_phase,
    external_need,
    not_saved,
    words,
)
from redisforge.plan.predict import apply, predict, settle
from redisforge.plan.starting import Wishes

TOPOLOGY = run_by_others(make_topology())
DECLARED = {"maxmemory": "96mb", "tcp-backlog": "511"}
RUNNING = {"maxmemory": "100663296", "tcp-backlog": "511", "save": "900 1"}
ASKED = ApplyExternal(settings=DECLARED, kind="redis")
NAMES = [node.name for node in TOPOLOGY.nodes]


def running(*names: str, topology: Topology = TOPOLOGY, file: str = "/etc/redis.conf", **values: str) -> Facts:
    """A cluster that is as declared, but for `values` at the nodes `names` (all, if none is named)."""
    facts = served_by_others(topology)
    for node in topology.nodes:
        given = {name.replace("_", "-"): value for name, value in values.items()}
        differing = given if node.name in (names or NAMES) else {}
        edit = node_with(node.name, version="8.6.3", config_file=file, settings=RUNNING | differing)
        facts = edit(topology, facts)
    return facts


def steps(facts: Facts, asked: ApplyExternal = ASKED, topology: Topology = TOPOLOGY) -> list[str]:
    plan = predict(topology, facts, Wishes(), lambda seen: apply_external_phase(topology, seen, asked))
    return [str(step) for step in plan.steps()]


def test_nodes_as_declared_are_left_alone() -> None:
    assert steps(running()) == []
    assert words(TOPOLOGY, running(), ASKED) == ()


def test_every_node_is_told_and_saves_replicas_first() -> None:
    found = steps(running(maxmemory="1"))
    roles = {node.name: node.intended_role for node in TOPOLOGY.nodes}
    assert found[0::2] == [step.replace("REWRITE", "SET maxmemory 96mb") for step in found[1::2]]
    told = [step.partition(":")[0] for step in found[0::2]]
    assert sorted(told) == sorted(NAMES)
    assert [roles[name] for name in told] == [Role.REPLICA] * 3 + [Role.MASTER] * 3


def test_a_node_without_a_file_is_told_and_that_it_forgets_is_said() -> None:
    facts = running("redis-2", file="", maxmemory="1")
    assert steps(facts) == ["redis-2: CONFIG SET maxmemory 96mb"]
    said = words(TOPOLOGY, facts, ASKED)
    assert said[0] == "maxmemory: set on redis-2"
    assert said[1].startswith("redis-2: started without a configuration file")


def test_a_run_that_was_cut_off_between_the_two_commands_is_made_good() -> None:
    again = replace(ASKED, save_again=True)
    assert steps(running(), again) == [f"{name}: CONFIG REWRITE" for name in (*NAMES[3:], *NAMES[:3])]
    assert steps(running(file=""), again) == []


def test_a_refused_rewrite_is_said_and_not_tried_twice() -> None:
    facts = node_with("redis-1", was_told=True, saved="ERR Rewriting config file: Read-only file system")(
        TOPOLOGY, running("redis-1", maxmemory="1")
    )
    assert apply_external_phase(TOPOLOGY, facts, ASKED) is None
    (said,) = not_saved(facts)
    assert "Read-only file system" in said
    assert "/etc/redis.conf" in said
    assert not_saved(running()) == ()


def test_a_value_that_a_node_shows_otherwise_is_set_once() -> None:
    facts = node_with("redis-1", was_told=True, saved="")(TOPOLOGY, running("redis-1", maxmemory="1"))
    assert apply_external_phase(TOPOLOGY, facts, ASKED) is None


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("systemd:{}", "`redisforge restart redis-1 redis-5`"),
        ("", "by what runs them, a master after `redisforge failover`"),
    ],
)
def test_what_only_a_start_takes_is_said_with_the_nodes_and_the_command(service: str, command: str) -> None:
    topology = run_by_others(make_topology(), service)
    facts = running("redis-1", "redis-5", topology=topology, tcp_backlog="128")
    assert steps(facts, topology=topology) == []
    (said,) = words(topology, facts, ASKED)
    assert said.startswith("tcp-backlog: 511 is declared, 128 runs on redis-1, redis-5, and only a start takes it")
    assert said.endswith(command)


def test_all_nodes_are_every_node() -> None:
    (said,) = words(TOPOLOGY, running(tcp_backlog="128"), ASKED)
    assert "128 runs on every node" in said
    assert said.endswith("`redisforge restart`")


def test_what_a_node_does_not_tell_is_said() -> None:
    asked = replace(ASKED, settings={"loadmodule": "/x.so"})
    assert steps(running(), asked) == []
    assert words(TOPOLOGY, running(), asked) == (
        "loadmodule: nodes do not tell what they have; see to it in their own files",
    )


def test_what_a_running_server_takes_is_a_matter_of_each_nodes_version() -> None:
    asked = replace(ASKED, settings={"io-threads": "2"}, kind="valkey")
    for version, is_told in (("8.1.1", False), ("9.1.2", True)):
        node = replace(running().nodes["redis-1"], version=version, settings={"io-threads": "1"})
        assert bool(external_need(node, asked).told) is is_told


@pytest.mark.parametrize(
    ("declared", "save", "is_set"),
    [
        ("3600 1", "900 1", False),
        ("3600 1", "", True),
        ("", "900 1", True),
        ("", "", False),
        ("3600 1", "3600 1", False),
    ],
)
def test_the_schedule_of_snapshots_is_the_owners(declared: str, save: str, *, is_set: bool) -> None:
    asked = replace(ASKED, settings={"save": declared})
    node = replace(running().nodes["redis-1"], settings={"save": save})
    assert bool(external_need(node, asked).told) is is_set


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_cut_anywhere_the_next_runs_bring_it_and_save_it_and_nothing_restarts(data: st.DataObject) -> None:
    """`durable` is what stands in each node's file: a node saves what it runs with."""
    facts, brought = running(), {"maxmemory": "1", "tcp-backlog": "511"}
    files: dict[str, str] = {}
    for name in NAMES:
        values = RUNNING | {"maxmemory": data.draw(st.sampled_from(["1", RUNNING["maxmemory"]]))}
        files[name] = values["maxmemory"]
        facts = node_with(name, settings=values)(TOPOLOGY, facts)
    cuts = data.draw(st.lists(st.integers(0, 15), max_size=4))
    for cut in (*cuts, 100):
        asked, left = replace(ASKED, save_again=brought != DECLARED), cut
        while phase := apply_external_phase(TOPOLOGY, facts, asked):
            done = phase.steps[:left]
            left -= len(done)
            assert not any(isinstance(step, RestartUnit) for step in phase.steps)
            for step in done:
                assert isinstance(step, SetSettings | SaveSettings)
                facts = settle(TOPOLOGY, apply(TOPOLOGY, facts, (step,), Wishes()))
                if isinstance(step, SaveSettings):
                    files[step.node] = (facts.nodes[step.node].settings or {})["maxmemory"]
            if len(done) < len(phase.steps):
                break
        else:
            brought = DECLARED
        for name in NAMES:  # the next run knows nothing of this one
            facts = node_with(name, was_told=False, saved=None)(TOPOLOGY, facts)
    assert brought == DECLARED
    assert set(files.values()) <= {"96mb", RUNNING["maxmemory"]}
    assert steps(facts) == []
