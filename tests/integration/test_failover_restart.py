"""Failovers and restarts under load: no client sees an error, through the primary and the reader endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Generator, Iterator
from typing import Literal

import pytest
from cluster_tool import ADDRESS, COMMAND_LIMIT_S, SLOT_COUNT, Cluster, is_healthy, is_taken, kill, raised
from load import Load
from verbs import killed, loaded, schema_valid

from redisforge.model.steps import Promote
from redisforge.runbooks.cluster import open_cluster
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.work import Worker
from waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for tests after which it is whole."""
    with raised(tmp_path_factory.mktemp("rolling")) as made:
        yield made


def ended(cluster: Cluster, *arguments: str, status: int = 0) -> str:
    """Run a verb to the end that is expected; returns what it printed."""
    result = cluster.run(*arguments)
    assert result.status == status, str(result)
    return result.stdout + result.stderr


def assert_whole(cluster: Cluster) -> None:
    """Nothing is wrong, and `up` finds nothing to do."""
    report = cluster.status()
    assert is_healthy(report), report["problems"]
    assert cluster.finds_nothing_to_do()


def test_a_failover_is_not_noticed_and_asked_again_does_nothing(cluster: Cluster) -> None:
    master, replica = cluster.pair()

    with loaded(cluster):
        said = ended(cluster, "failover", master, "--probe")
        nodes = cluster.nodes()
        again = ended(cluster, "failover", master)

    assert f"hand over from {master} to {replica}" in said
    assert "0 errors, 0 acknowledged writes lost" in said
    assert (nodes[replica]["role"], nodes[master]["role"]) == ("master", "replica")
    assert "nothing to do" in again
    assert replica in cluster.masters()
    assert_whole(cluster)


def test_who_was_elected_while_it_was_asked_has_taken_over(cluster: Cluster) -> None:
    """An election or a keeper may be faster than the command: the node then refuses it, and all is as it was
    wanted. (That another refusal fails is in tests/unit/runbooks/test_worker.py.)"""
    master, replica = cluster.pair()
    opened = open_cluster(cluster.home, cluster.name)

    async def promote(*modes: Literal["handover", "force", "takeover"]) -> None:
        async with Observer(opened) as observer:
            for mode in modes:
                step = Promote(node=replica, mode=mode, why="a test")
                await Worker(opened, observer.asker, {}).do(step, await observer.look())

    with cluster.node_client(replica) as client:
        client.execute_command("CLUSTER FAILOVER")
        until(lambda: client.execute_command("ROLE")[0] == "master", "the replica took over")
    asyncio.run(promote("handover", "force", "takeover"))

    assert replica in cluster.masters()
    assert master not in cluster.masters()
    cluster.await_health()
    assert_whole(cluster)


def test_failovers_there_and_back_wait_for_their_elections(cluster: Cluster) -> None:
    """Redis holds no proper election for a replica that was elected a moment ago; clients must not pay for that."""
    master, replica = cluster.pair()
    with loaded(cluster):
        for name in (master, replica, master, replica):
            ended(cluster, "failover", name)
    assert master in cluster.masters()
    assert_whole(cluster)


def test_every_node_restarts_and_nobody_notices(cluster: Cluster) -> None:
    keys, before = cluster.write_keys(prefix="restart"), cluster.pids()

    with loaded(cluster):
        said = ended(cluster, "restart", "--probe")

    assert "0 errors" in said
    after = cluster.pids()
    assert [name for name in after if name.startswith("redis") and after[name][0] == before[name][0]] == []
    assert after["envoy-1"] == before["envoy-1"]
    assert cluster.read_keys(keys) == keys
    assert_whole(cluster)


def test_a_named_master_hands_over_before_it_restarts(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    before = cluster.pids()

    with loaded(cluster):
        said = ended(cluster, "restart", master)

    assert f"hand over from {master} to {replica}" in said
    assert [name for name, pids in cluster.pids().items() if pids[0] != before[name][0]] == [master]
    assert replica in cluster.masters()
    assert_whole(cluster)


def test_a_restart_that_was_killed_is_finished_by_the_next(cluster: Cluster) -> None:
    """In the middle of it; after each of its first steps: test_verbs_chained.py."""
    journal = cluster.path / "journal.jsonl"
    with Load(cluster.url("primary"), reader_url=cluster.url("reader")) as load:
        began = journal.read_bytes().count(b"\n")
        with cluster.start("restart") as process:
            until(
                lambda: process.poll() is not None or journal.read_bytes().count(b"\n") >= began + 10,
                "some steps of the restart",
                60,
            )
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        result = cluster.run("restart")
        assert result.status == 0, str(result)
        report = load.stop()
    report.check_nothing_lost()
    assert sum(node["slot_count"] for node in cluster.masters().values()) == SLOT_COUNT
    assert_whole(cluster)


def test_status_names_a_replica_that_a_killed_restart_left_unread(cluster: Cluster) -> None:
    _, replica = cluster.pair()
    reader = next(
        endpoint["user"] for endpoint in json.loads(cluster.record())["endpoints"] if endpoint["name"] == "reader"
    )
    before = cluster.pid(replica)

    with cluster.node_client(replica) as client:
        killed(
            cluster, "restart", replica, when=lambda _: client.execute_command("ACL", "DRYRUN", reader, "PING") != "OK"
        )
    told = cluster.status()

    assert cluster.pid(replica) == before, "it was killed before it could restart the replica"
    (unread,) = (problem for problem in told["problems"] if problem["where"] == replica)
    assert "gets no reads from the reader endpoints" in unread["what"]
    assert f"`redisforge up -c {cluster.name}` gives the reads back" in unread["next_step"]
    assert not is_healthy(told)
    cluster.up()
    assert_whole(cluster)


def test_ctrl_c_ends_at_a_safe_point(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    journal = cluster.path / "journal.jsonl"
    with Load(cluster.url("primary"), reader_url=cluster.url("reader")) as load:
        began = journal.read_bytes().count(b"\n")
        with cluster.start("restart", master, replica) as process:
            until(lambda: journal.read_bytes().count(b"\n") >= began + 3, "a step of the restart", 60)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        report = load.stop()
    assert process.returncode == 130, errors
    assert "stopping at the next safe point" in errors
    report.check()
    ended(cluster, "restart", master, replica)
    assert_whole(cluster)


def test_a_budget_that_cannot_be_kept_stops_at_a_safe_point(cluster: Cluster) -> None:
    with loaded(cluster):
        ended(cluster, "restart", "--abort-over", "1", status=15)
    assert_whole(cluster)  # a replica that was about to restart is read again


@contextlib.contextmanager
def hanging(cluster: Cluster, name: str) -> Generator[None]:
    """The node's process is there and answers nobody."""
    pid = cluster.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("verb", ["restart", "up"])
def test_who_waits_for_a_node_that_hangs_hears_of_it_once(cluster: Cluster, verb: str) -> None:
    """And goes on when it answers."""
    master, replica = cluster.pair()
    other = cluster.pair_of(next(name for name in cluster.masters() if name != master))
    with hanging(cluster, replica):
        process = cluster.start(*((verb, other) if verb == "restart" else (verb,)), "--json")
        assert process.stderr
        line = next((line for line in process.stderr if "still waiting" in line), "")
    report, rest = process.communicate(timeout=COMMAND_LIMIT_S)

    assert re.match(r"  wait until [a-z ]+: still waiting, for at most \d+ s more: ", line), line
    assert f"{replica} (127.0.0.1:{cluster.declared(replica)['port']}): no answer within 2 s" in line
    assert process.returncode == 0, rest
    assert "still waiting" not in rest
    assert json.loads(report)["phases"]
    cluster.await_health()
    assert_whole(cluster)


def test_a_dry_run_names_the_node_that_would_be_waited_for(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    reason = f"{replica} (127.0.0.1:{cluster.declared(replica)['port']}): no answer within 2 s"
    with hanging(cluster, replica):
        for words in (("restart", master), ("failover", master), ("restart",)):
            planned = ended(cluster, *words, "--dry-run").splitlines()
            assert planned == [
                "1. wait until the cluster is in order  [then: settled, within 60 s]",
                f"     waits for: {reason}",
                "What comes next depends on that; if it does not hold in time, the run ends with exit status 10.",
            ]
        (phase,) = schema_valid(cluster.run("restart", "--dry-run", "--json").json(), "plan.schema.json")["phases"]
    assert phase["waits_for"] == [reason]
    cluster.await_health()
    assert_whole(cluster)


def test_a_dry_run_is_refused_as_the_run_is_where_a_dead_nodes_port_is_taken(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    other = cluster.pair_of(next(name for name in cluster.masters() if name != master))
    port = cluster.declared(replica)["port"]
    kill(cluster.keeper_pid(replica), cluster.pid(replica))
    try:
        until(lambda: not is_taken(port), f"port {port} free")  # a child that writes to disk may still hold it
        with socket.create_server((ADDRESS, port)):
            planned, run = cluster.run("restart", other, "--dry-run"), cluster.run("restart", other)
    finally:
        cluster.up()
    assert_whole(cluster)

    assert run.status == 7, str(run)
    assert f"{replica} needs {ADDRESS}:{port}: in use by" in run.stderr
    assert (planned.status, planned.stderr) == (run.status, run.stderr)


def test_a_dry_run_says_what_would_happen_and_does_nothing(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    before = cluster.pids()

    restart = cluster.run("restart", "--dry-run")
    failover = cluster.run("failover", master, "--dry-run", "--json").json()

    assert f"restart {master}" in restart.stdout
    assert [step["node"] for phase in failover["phases"] for step in phase["steps"]] == [replica]
    assert cluster.pids() == before
    assert master in cluster.masters()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("failover", "redis-9"), 14, "no node called 'redis-9'"),
        (("failover", "redis-"), 2, "means several nodes"),
        (("restart", "nobody"), 14, "no node called 'nobody'"),
        (("failover", "redis-1", "--to", "redis-1"), 9, "redis-1 cannot take over from itself"),
        (("rebalance", "--weight", "redis-1"), 2, "not a weight"),
        (("rebalance", "--weight", "nobody=2"), 14, "no node called 'nobody'"),
        (("rebalance", "--max-rate", "fast"), 2, "not a size"),
        (("scale", "--shards", "2", "--yes"), 2, "cannot fail over"),
        (("scale", "remove", "nobody", "--yes"), 14, "no node called 'nobody'"),
        (("scale", "add", "127.0.0.1"), 2, "not a node"),
        (("scale", "add", "127.0.0.1:1"), 12, "the new node cannot be used"),
        (("scale", "add", "127.0.0.1:1", "--role", "master", "--replica-of", "redis-1"), 2, "a master is no replica"),
        (("simulate", "--lose", "host", "nowhere"), 14, "nowhere"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_changes(
    cluster: Cluster, arguments: tuple[str, ...], status: int, says: str
) -> None:
    if arguments[:2] == ("failover", "redis-1") and "redis-1" not in cluster.masters():
        assert cluster.run("failover", cluster.pair_of("redis-1")).status == 0
    record, declared, pids = cluster.record(), cluster.declaration(), cluster.pids()

    result = cluster.run(*arguments)

    assert result.status == status, str(result)
    assert says in result.stderr, str(result)
    assert "next:" in result.stderr
    assert (cluster.record(), cluster.declaration(), cluster.pids()) == (record, declared, pids)


def test_the_last_replica_and_the_third_master_may_not_leave(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    record, pids = cluster.record(), cluster.pids()

    few = cluster.run("scale", "remove", master, "--yes")
    last = cluster.run("scale", "remove", replica, "--yes")

    assert few.status == 9
    assert f"without {master} the cluster would have 2 masters" in few.stderr
    assert last.status == 9
    assert f"{replica} is the last replica of {master}" in last.stderr
    assert (cluster.record(), cluster.pids()) == (record, pids)
    assert cluster.up() == []
