"""Problems in words: nothing in a cluster that is in order, one line with a next step for each thing that is wrong."""

from __future__ import annotations

import pytest
from edits import Edit, all_of, also_listing, blank, envoy_with, every_line_with, gone, line_with, node_with, unit_with
from msgspec.structs import replace
from topologies import formed, hosts_in_zones, make_topology, nothing_runs, run_by_others

from redisforge.model.facts import CHANGED_BY_HAND, EndpointFacts, Facts, PeerView, Stray, UnitFacts, UnitState
from redisforge.model.topology import Topology
from redisforge.plan.diagnose import diagnose, outages

TOPOLOGY = make_topology(hosts=hosts_in_zones(1, 1, 1))
FORMED = formed(TOPOLOGY)
REPLICA = next(node.name for node in TOPOLOGY.nodes if FORMED.nodes[node.name].master_id == FORMED.nodes["redis-1"].id)
MIB = 1 << 20


def endpoint_refused(_: Topology, facts: Facts) -> Facts:
    """The endpoint does not answer."""
    problem = "connection refused"
    endpoint = EndpointFacts(
        name="primary",
        envoy="envoy-1",
        address="10.1.0.1",
        port=6379,
        protocol="RESP2",
        user="app_user",
        problem=problem,
    )
    return replace(facts, endpoints=(endpoint,))


CASES: tuple[tuple[str, Edit, str, str, str], ...] = (
    (
        "a master is down",
        gone("redis-1"),
        "critical",
        "main",
        "5461 slots are not served: 0-5460",
    ),
    ("a stopped node", gone("redis-1"), "critical", "redis-1", "does not run"),
    ("nothing on the host", gone("redis-1", UnitState.ABSENT), "critical", "redis-1", "does not run"),
    ("held back", gone("redis-1", UnitState.HELD, "its data is missing"), "critical", "redis-1", "its data is missing"),
    (
        "keeps dying",
        all_of(gone("redis-1"), unit_with("redis-1", state=UnitState.BACKOFF, last_exit="exit status 1")),
        "critical",
        "redis-1",
        "does not stay up (exit status 1)",
    ),
    (
        "without a keeper",
        unit_with("redis-1", state=UnitState.ORPHANED),
        "warning",
        "redis-1",
        "nothing would restart it",
    ),
    (
        "a container changed by hand",
        unit_with("redis-1", config_hash=CHANGED_BY_HAND),
        "warning",
        "redis-1",
        "its container was changed by hand",
    ),
    ("an Envoy is stopped", unit_with("envoy-1", state=UnitState.STOPPED), "critical", "envoy-1", "does not run"),
    ("silent", gone("redis-1", UnitState.RUNNING), "critical", "redis-1", "does not answer at"),
    (
        "loading",
        all_of(gone("redis-1", UnitState.RUNNING), node_with("redis-1", loading=True)),
        "warning",
        "redis-1",
        "is reading its data from disk",
    ),
    (
        "nodes disagree",
        line_with("redis-2", "redis-1", slots=()),
        "warning",
        "main",
        "the nodes do not agree: redis-2 sees no owner",
    ),
    ("a master too many", blank(REPLICA), "warning", REPLICA, "is a master without slots"),
    ("no link", node_with(REPLICA, master_link_up=False), "warning", REPLICA, "has lost its link to its master"),
    (
        "first copy",
        node_with(REPLICA, master_link_up=False, sync_in_progress=True),
        "warning",
        REPLICA,
        "is copying its master's data",
    ),
    ("cannot save", node_with("redis-2", aof_ok=False), "critical", "redis-2", "cannot write its data to disk"),
    (
        "nearly full",
        node_with("redis-2", used_memory_bytes=95, max_memory_bytes=100),
        "warning",
        "redis-2",
        "uses 95 % of its memory limit",
    ),
    (
        "a replica that refuses reads",
        node_with(REPLICA, refuses_reads=True),
        "warning",
        REPLICA,
        "gets no reads from the reader endpoints",
    ),
    (
        "it was elected since",
        node_with("redis-1", refuses_reads=True),
        "warning",
        "redis-1",
        "gets no reads from the reader endpoints",
    ),
    (
        "an open slot",
        line_with("redis-1", migrating=((0, FORMED.nodes["redis-2"].id), (7, FORMED.nodes["redis-2"].id))),
        "warning",
        "main",
        "slots are open: 0 7",
    ),
    (
        "an upgrade that was cut off",
        all_of(*(node_with(f"redis-{n}", version="8.6.3" if n == 1 else "8.0.6") for n in range(1, 7))),
        "warning",
        "main",
        "its nodes are of several versions of redis: 8.0.6 (5), 8.6.3 (1)",
    ),
    ("no replica", gone(REPLICA), "warning", "redis-1", "has 0 of 1 replicas"),
    (
        "far behind",
        all_of(node_with("redis-1", replication_offset=100 * MIB), node_with(REPLICA, replication_offset=MIB)),
        "warning",
        REPLICA,
        "is 99 MB behind redis-1",
    ),
    ("an endpoint fails", endpoint_refused, "critical", "primary at 10.1.0.1:6379", "connection refused"),
    ("a stale Envoy", envoy_with("envoy-1", hosts=()), "warning", "Envoy", "envoy-1 does not send to 10.1.0.1:"),
    ("an Envoy is silent", envoy_with("envoy-1", problem="no answer"), "warning", "Envoy", "envoy-1: no answer"),
)


def test_a_cluster_in_order_has_no_problem() -> None:
    assert diagnose(TOPOLOGY, FORMED) == ()


@pytest.mark.parametrize(("edit", "severity", "where", "what"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_what_is_wrong_is_said(edit: Edit, severity: str, where: str, what: str) -> None:
    problems = diagnose(TOPOLOGY, edit(TOPOLOGY, FORMED))
    assert any((p.severity, p.where) == (severity, where) and what in p.what for p in problems), problems
    assert all(problem.next_step for problem in problems)
    severities = [problem.severity for problem in problems]
    assert severities == sorted(severities), "the critical ones come first"


@pytest.mark.parametrize(
    "edit",
    [
        node_with("redis-2", used_memory_bytes=90, max_memory_bytes=100),
        node_with("redis-2", used_memory_bytes=10**12, max_memory_bytes=0),
        all_of(node_with("redis-1", replication_offset=65 * MIB), node_with(REPLICA, replication_offset=MIB)),
        all_of(node_with("redis-1", replication_offset=0), node_with(REPLICA, replication_offset=9 * MIB)),
        node_with("redis-1", listed=()),
        node_with(REPLICA, refuses_reads=False),
        unit_with("redis-1", restart_count=7),
    ],
    ids=[
        "at the limit",
        "no limit",
        "a little behind",
        "read before its master",
        "proxies",
        "it takes reads",
        "restarts of the past",
    ],
)
def test_what_is_usual_is_no_problem(edit: Edit) -> None:
    assert diagnose(TOPOLOGY, edit(TOPOLOGY, FORMED)) == ()


def test_one_cause_is_not_told_twice() -> None:
    """A node that does not run is not called silent too, nor a disagreement while slots are missing."""
    problems = diagnose(TOPOLOGY, gone("redis-1")(TOPOLOGY, FORMED))
    assert [(problem.where, problem.severity) for problem in problems] == [
        ("main", "critical"),
        ("redis-1", "critical"),
    ]


def test_who_refuses_reads_is_named_unless_its_host_rests_or_its_link_is_down() -> None:
    facts = node_with(REPLICA, refuses_reads=True)(TOPOLOGY, FORMED)
    (problem,) = diagnose(TOPOLOGY, facts)
    assert (problem.where, problem.severity) == (REPLICA, "warning")
    assert "`redisforge up` gives the reads back" in problem.next_step
    assert diagnose(replace(TOPOLOGY, maintenance=(TOPOLOGY.node(REPLICA).host,)), facts) == ()
    (unlinked,) = diagnose(TOPOLOGY, node_with(REPLICA, refuses_reads=True, master_link_up=False)(TOPOLOGY, FORMED))
    assert "has lost its link to its master" in unlinked.what


def everything_gone(state: UnitState) -> Edit:
    """No Unit of the cluster runs."""
    envoy = unit_with("envoy-1", state=state)
    return all_of(*(gone(node.name, state) for node in TOPOLOGY.nodes), envoy, envoy_with("envoy-1", problem="down"))


@pytest.mark.parametrize("state", [UnitState.STOPPED, UnitState.ABSENT])
def test_a_stopped_cluster_is_one_problem(state: UnitState) -> None:
    (problem,) = diagnose(TOPOLOGY, everything_gone(state)(TOPOLOGY, FORMED))
    assert (problem.severity, problem.where, problem.what) == ("critical", "main", "nothing of this cluster runs")
    assert diagnose(TOPOLOGY, nothing_runs(TOPOLOGY)) == (problem,)


def on_one_host(_: Topology, facts: Facts) -> Facts:
    """After failovers redis-1's shard has its replica on redis-1's own host."""
    here = TOPOLOGY.node("redis-1").address
    other = next(n for n in TOPOLOGY.nodes if n.address == here and n.name != "redis-1").name
    swapped = facts.nodes[other].master_id
    master, theirs = facts.nodes["redis-1"].id, facts.nodes[REPLICA].name
    return all_of(every_line_with(other, master_id=master), every_line_with(theirs, master_id=swapped))(TOPOLOGY, facts)


def test_a_shard_on_one_host_is_a_warning() -> None:
    problems = diagnose(TOPOLOGY, on_one_host(TOPOLOGY, FORMED))
    assert [problem.where for problem in problems] == ["shard 1"]
    assert "share the host 10.1.0.1" in problems[0].what


def test_a_shard_on_the_only_host_is_none() -> None:
    alone = make_topology()
    assert diagnose(alone, formed(alone)) == ()


STOP = ("docker", "stop", "redisforge-main-redis-9")


def with_stray(node_id: str = "gone", *, name: str = "redis-9", was_member: bool = True) -> Edit:
    """A host runs a Unit that is not declared; its nodes.conf has this id."""
    unit = UnitFacts(name=name, state=UnitState.RUNNING, pid=9, node_id=node_id, was_member=was_member)
    stray = Stray(unit=unit, host="host-2-1", stop_command=STOP)
    return lambda _, facts: replace(facts, units={**facts.units, name: unit}, strays=(stray,))


def test_a_node_that_a_host_has_brought_back_is_named_with_what_stops_it() -> None:
    (problem,) = diagnose(TOPOLOGY, with_stray()(TOPOLOGY, FORMED))
    assert (problem.severity, problem.where) == ("warning", "redis-9")
    assert problem.what == "runs on host-2-1, and the cluster does not have it there: no node knows it"
    assert problem.next_step == "`docker stop redisforge-main-redis-9` on host-2-1 stops it and deletes nothing"


@pytest.mark.parametrize(("name", "node_id"), [("envoy-9", ""), ("redis-9", "new")])
def test_an_envoy_or_a_node_that_was_no_member_yet_may_be_added_from_elsewhere(name: str, node_id: str) -> None:
    (problem,) = diagnose(TOPOLOGY, with_stray(node_id, name=name, was_member=False)(TOPOLOGY, FORMED))
    assert (problem.severity, problem.where) == ("warning", name)
    assert "no node knows it" not in problem.what
    assert problem.next_step.startswith("unless it was added from another machine, `docker stop")


def test_a_node_that_a_member_knows_is_no_stray() -> None:
    """Another machine has added it, or is about to take it out."""
    one = PeerView(id="gone", address="10.1.0.1", port=7009, flags=("slave",))
    assert diagnose(TOPOLOGY, all_of(with_stray(), also_listing("redis-1", one))(TOPOLOGY, FORMED)) == ()


def test_while_no_node_answers_nobody_is_called_a_stray() -> None:
    facts = all_of(with_stray(), everything_gone(UnitState.STOPPED))(TOPOLOGY, FORMED)
    assert [problem.what for problem in diagnose(TOPOLOGY, facts)] == ["nothing of this cluster runs"]
    silent = all_of(with_stray(), unit_with("envoy-1", pid=5), *(gone(node.name) for node in TOPOLOGY.nodes))
    told = {problem.where for problem in diagnose(TOPOLOGY, silent(TOPOLOGY, FORMED))}
    assert "redis-1" in told
    assert "redis-9" not in told


def test_the_way_out_of_a_hang_is_the_process() -> None:
    """Nothing has to be started, so nobody is sent to `up`."""
    edit = all_of(gone("redis-1", UnitState.RUNNING), unit_with("redis-1", pid=4711))
    advice = {problem.where: problem.next_step for problem in diagnose(TOPOLOGY, edit(TOPOLOGY, FORMED))}
    assert "kill -9 4711 on its host" in advice["redis-1"]
    assert advice["main"] == "see redis-1"


def test_versions_of_one_series_may_stand_together() -> None:
    edit = all_of(*(node_with(f"redis-{n}", version="8.6.3" if n == 1 else "8.6.1") for n in range(1, 7)))
    assert diagnose(TOPOLOGY, edit(TOPOLOGY, FORMED)) == ()


def test_what_may_be_the_cause_of_a_gate_that_does_not_hold() -> None:
    topology = make_topology(3, 1, hosts_in_zones(1, 1, 1))
    facts = formed(topology)
    assert outages(topology, facts) == ()
    here = sorted(node.name for node in topology.nodes if node.host == "host-2-1")
    slots = next(node.slots[0] for node in facts.reachable_nodes() if node.name in here and node.slots)
    for name in here:
        facts = gone(name, UnitState.UNKNOWN, "no route")(topology, facts)
    assert outages(topology, facts) == (
        f"host-2-1 cannot be reached ({', '.join(here)})",
        f"{slots.slot_count} slots are not served: {slots}",
    )


def test_of_a_node_that_somebody_else_runs_the_log_is_with_what_runs_it() -> None:
    edit = all_of(
        gone("redis-1", UnitState.RUNNING), unit_with("redis-1", pid=4711), node_with(REPLICA, master_link_up=False)
    )
    for service, at_redis_1, at_replica in (
        ("systemd:{}", "`journalctl -u redis-1` on ", f"`journalctl -u {REPLICA}` on "),
        ("docker:{}", "`docker logs redis-1` on ", f"`docker logs {REPLICA}` on "),
        ("", "see the log of what runs it", "see the log of what runs it"),
    ):
        topology = run_by_others(TOPOLOGY, service)
        facts = replace(edit(topology, FORMED), envoys={}, endpoints=())
        advice = {problem.where: problem.next_step for problem in diagnose(topology, facts)}
        assert advice["redis-1"].startswith(at_redis_1)
        assert advice[REPLICA].startswith(at_replica)
        assert not any("redisforge logs" in step or "keeper" in step for step in advice.values())


def test_nobody_is_sent_to_up_to_start_what_it_does_not_run() -> None:
    topology = run_by_others(TOPOLOGY, "")
    (problem,) = diagnose(topology, replace(nothing_runs(topology), units={}))
    assert "none of its nodes answers" in problem.what
    assert "redisforge up" not in problem.next_step
