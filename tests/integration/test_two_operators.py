"""Two operators, each with a REDISFORGE_HOME of its own, on one cluster over three hosts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from cluster_tool import Cluster, until
from ssh_fleet import Fleet
from verbs import journal_of, schema_valid

from ssh_server import SshServer

pytestmark = pytest.mark.integration

LOCKED = 8
UNREACHABLE = 16
HOSTS = ("h1", "h2", "h3")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("two-operators"))
    try:
        made.cluster.up()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def second(fleet: Fleet) -> Iterator[Cluster]:
    made = fleet.second_operator()
    yield made
    made.ports.close()


def lock_of(cluster: Cluster) -> dict[str, Any]:
    result = cluster.run("lock", "status", "--json")
    assert result.status == 0, str(result)
    return schema_valid(result.json(), "lock.schema.json")


def lock_files(fleet: Fleet) -> list[str]:
    """The texts of the lock on the hosts."""
    return [(fleet.folder_of(name) / "locks" / "main").read_text() for name in HOSTS]


@contextlib.contextmanager
def at_work(cluster: Cluster, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """A verb that holds the lock and has begun."""
    with cluster.start(*arguments) as verb:
        until(lambda: len(journal_of(cluster, verb.pid)) > 1 or verb.poll() is not None, "its first step")
        try:
            yield verb
        finally:
            verb.kill()


def test_the_lock_is_on_the_hosts_while_a_verb_works_and_free_afterwards(fleet: Fleet) -> None:
    with at_work(fleet.cluster, "restart") as verb:
        assert all(f'"pid":{verb.pid}' in text for text in lock_files(fleet))
        assert all('"verb":"restart"' in text for text in lock_files(fleet))
        verb.communicate(timeout=60)
        assert verb.returncode == 0
    assert lock_files(fleet) == ["", "", ""]


def test_a_second_operator_is_told_who_operates(fleet: Fleet, second: Cluster) -> None:
    with at_work(fleet.cluster, "restart") as verb:
        for arguments in (("up",), ("up", "--json")):
            result = second.run(*arguments)
            assert result.status == LOCKED, str(result)
            assert "`redisforge restart` of" in result.stderr
            assert f"process {verb.pid}" in result.stderr
            assert "held on h1" in result.stderr, "everybody asks the same host first"
        assert not (second.path / "tls").exists()
        assert not (second.path / "secrets.env").exists()
        assert verb.wait(60) == 0


def test_a_killed_operator_leaves_no_lock(fleet: Fleet) -> None:
    with at_work(fleet.cluster, "restart") as verb:
        verb.send_signal(signal.SIGKILL)
        verb.wait(10)
    fleet.cluster.up()
    assert fleet.cluster.is_healthy()


def test_a_dead_host_does_not_keep_the_lock_and_most_hosts_must_be_there(fleet: Fleet) -> None:
    cluster, name = fleet.cluster, "h1"
    fleet.servers[name].stop()
    try:
        others = [node for node, facts in cluster.nodes().items() if facts["host"] != name]
        result = cluster.run("failover", next(node for node in others if node in cluster.masters()))
        assert "lock is held without h1" in result.stderr, str(result)
        fleet.servers["h2"].stop()
        refused = cluster.run("up")
        assert refused.status == UNREACHABLE, str(refused)
        assert "2 of 3 hosts cannot be reached" in refused.stderr
        assert "REDISFORGE_LOST_HOSTS=h1,h2 redisforge up" in refused.stderr
        declared = cluster.run("up", REDISFORGE_LOST_HOSTS="h1,h2")
        assert "the cluster's lock cannot be had" not in declared.stderr, str(declared)
    finally:
        for server in fleet.servers.values():
            if not listens(server):
                server.start()
    cluster.up()


def listens(server: SshServer) -> bool:
    return server._listens()  # pyright: ignore[reportPrivateUsage]


def test_a_lock_that_is_lost_on_the_way_stops_the_verb(fleet: Fleet) -> None:
    with at_work(fleet.cluster, "restart") as verb:
        for text in lock_files(fleet)[:2]:
            os.kill(int(text.splitlines()[0]), signal.SIGKILL)
        _, errors = verb.communicate(timeout=60)
    assert verb.returncode == LOCKED, errors
    assert "the cluster's lock was lost" in errors
    fleet.cluster.up()
    assert fleet.cluster.is_healthy()
