"""Two operators, each with a REDISFORGE_HOME of its own, on one cluster over three hosts."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_tool import Cluster
from ssh_fleet import Fleet
from verbs import done, journal_of, schema_valid

from ssh_server import SshServer
from waiting import until

pytestmark = pytest.mark.integration

LOCKED = 8
REFUSED = 9
INTERRUPTED = 130
UNREACHABLE = 16
VERB_LIMIT_S = 240.0
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
    made = fleet.cluster.second_operator(fleet.folder / "second")
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
    with at_work(fleet.cluster, "restart", "redis-4", "redis-5") as verb:
        assert all(f'"pid":{verb.pid}' in text for text in lock_files(fleet))
        assert all('"verb":"restart"' in text for text in lock_files(fleet))
        _, errors = verb.communicate(timeout=VERB_LIMIT_S)
        assert verb.returncode == 0, errors
    assert lock_files(fleet) == ["", "", ""]


def test_a_second_operator_is_told_who_operates(fleet: Fleet, second: Cluster) -> None:
    with at_work(fleet.cluster, "restart", "redis-4", "redis-5") as verb:
        verb.send_signal(signal.SIGSTOP)  # it is not done before the other one has asked
        try:
            for arguments in (("up",), ("up", "--json")):
                result = second.run(*arguments)
                assert result.status == LOCKED, str(result)
                assert "`redisforge restart redis-4 redis-5` of" in result.stderr
                assert f"process {verb.pid}" in result.stderr
                assert "held on h1" in result.stderr, "everybody asks the same host first"
        finally:
            verb.send_signal(signal.SIGCONT)
        assert not (second.path / "tls").exists()
        assert not (second.path / "secrets.env").exists()
        _, errors = verb.communicate(timeout=VERB_LIMIT_S)
        assert verb.returncode == 0, errors


def test_a_holder_elsewhere_is_shown_and_asked_to_stop_through_the_hosts(fleet: Fleet, second: Cluster) -> None:
    assert not lock_of(second)["held"]
    with at_work(fleet.cluster, "restart") as verb:  # of all: it is not done before it is asked
        seen = lock_of(second)
        assert (seen["held"], seen["verb"], seen["pid"]) == (True, "restart", verb.pid)
        assert sorted(seen["held_on"]) == list(HOSTS)
        released = second.run("lock", "release", "--yes")
        assert released.status == 0, str(released)
        assert "was asked to stop" in released.stderr
        _, errors = verb.communicate(timeout=VERB_LIMIT_S)
    assert verb.returncode == INTERRUPTED, errors
    assert "stopping at the next safe point" in errors
    assert not lock_of(second)["held"]

    with at_work(fleet.cluster, "restart") as verb:  # of all: it is not done before it is asked
        forced = second.run("lock", "release", "--yes", "--force")
        assert forced.status == 0, str(forced)
        _, errors = verb.communicate(timeout=VERB_LIMIT_S)
    assert verb.returncode == LOCKED, errors
    assert "the cluster's lock was lost" in errors
    fleet.cluster.up()
    done(fleet.cluster, "rebalance", "--roles")  # a master may have handed over before the verb was stopped


def test_a_killed_operator_leaves_no_lock(fleet: Fleet) -> None:
    with at_work(fleet.cluster, "restart", "redis-4", "redis-5") as verb:
        verb.send_signal(signal.SIGKILL)
        verb.wait(10)
    fleet.cluster.up()
    assert fleet.cluster.is_healthy(), fleet.cluster.problems()


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


def test_a_host_with_a_full_disk_locks_and_one_that_cannot_has_no_voice(fleet: Fleet) -> None:
    lock = fleet.folder_of("h1") / "locks" / "main"
    kept = lock.parent.with_name("kept")
    lock.unlink()
    lock.symlink_to("/dev/full")  # what is written there finds no space
    try:
        result = fleet.cluster.run("restart", "redis-4")
    finally:
        lock.unlink()
    assert result.status == 0, str(result)
    assert "is held without" not in result.stderr

    lock.parent.rename(kept)
    lock.parent.write_text("in the way")
    try:
        result = fleet.cluster.run("restart", "redis-4")
    finally:
        lock.parent.unlink()
        kept.rename(lock.parent)
    assert result.status == 0, str(result)
    assert "lock is held without h1 (the host cannot keep the cluster's lock: " in result.stderr


def listens(server: SshServer) -> bool:
    return server._listens()  # pyright: ignore[reportPrivateUsage]


def test_a_lock_that_is_lost_on_the_way_stops_the_verb(fleet: Fleet) -> None:
    with at_work(fleet.cluster, "restart", "redis-4", "redis-5") as verb:
        for text in lock_files(fleet)[:2]:
            os.kill(int(text.splitlines()[0]), signal.SIGKILL)
        _, errors = verb.communicate(timeout=VERB_LIMIT_S)
    assert verb.returncode == LOCKED, errors
    assert "the cluster's lock was lost" in errors
    fleet.cluster.up()
    assert fleet.cluster.is_healthy(), fleet.cluster.problems()


def files_of(cluster: Cluster) -> dict[str, bytes]:
    """Certificates, keys and passwords that a machine has."""
    paths = [cluster.path / "secrets.env", *sorted((cluster.path / "tls").glob("*"))]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def assert_a_dry_run_names_the_holder(first: Cluster, second: Cluster) -> None:
    """A plan that the second operator makes while the first one's verb works says so."""
    with at_work(first, "restart", "redis-4", "redis-5") as verb:
        verb.send_signal(signal.SIGSTOP)  # it is not done before the other one has looked
        try:
            planned = second.run("restart", "--dry-run")
        finally:
            verb.send_signal(signal.SIGCONT)
        assert f"(process {verb.pid}) holds the cluster's lock" in planned.stderr
        _, errors = verb.communicate(timeout=VERB_LIMIT_S)
        assert verb.returncode == 0, errors


def test_a_second_operator_makes_no_secrets_of_its_own_and_operates_once_it_was_let_in(
    fleet: Fleet, second: Cluster
) -> None:
    first = fleet.cluster
    keys, before = first.write_keys(300), files_of(first)
    for name in HOSTS:
        shown = (fleet.folder_of(name) / "clusters" / "main" / "record.json").read_text()
        assert not [password for password in first.passwords().values() if password in shown]
        assert "PRIVATE" not in shown

    refused = second.run("up")
    assert refused.status == REFUSED, str(refused)
    assert "redisforge access export FILE" in refused.stderr
    assert "must not make another CA" in refused.stderr
    assert not (second.path / "tls").exists()
    assert not (second.path / "secrets.env").exists()
    assert first.is_healthy(), first.problems()

    file = second.folder / "access.json"
    assert first.run("access", "export", str(file)).status == 0
    assert file.stat().st_mode & 0o777 == 0o600
    taken = second.run("access", "import", str(file))
    assert taken.status == 0, str(taken)
    assert files_of(second) == before
    assert second.is_healthy()
    assert second.up() == [], "nothing has to change for who has caught up"
    assert_a_dry_run_names_the_holder(first, second)
    assert second.read_keys(keys) == keys

    result = second.run("scale", "--shards", "4", "--yes")
    assert result.status == 0, str(result)
    seen = first.status()
    assert (seen["cluster"]["state"], len(seen["nodes"]), seen["problems"]) == ("ok", 8, [])
    assert seen["cluster"]["changed_by"].startswith(f"{getpass.getuser()}@")
    assert "the next verb from here catches up first" in first.run("status").stdout
    simulated = first.run("simulate", "--lose", "node", "redis-8")
    assert simulated.status == 0, f"a node that this machine has no record of: {simulated}"
    stale = first.run("restart")
    assert stale.status == REFUSED, str(stale)
    assert "this one has caught up now" in stale.stderr
    assert len(first.nodes()) == 8
    assert first.status()["cluster"]["changed_by"] == ""
    first.declare(shards=4)
    assert first.up() == []
    result = first.run("scale", "--shards", "3", "--yes")
    assert result.status == 0, str(result)
    assert first.read_keys(keys) == keys
    assert files_of(first)["ca.crt"] == before["ca.crt"]


def test_other_passwords_or_another_ca_are_refused_before_anything_is_touched(fleet: Fleet, tmp_path: Path) -> None:
    """A home that was made up from nothing: the record on the hosts is looked at before its secrets are used."""
    stranger = fleet.cluster.second_operator(tmp_path / "stranger")
    try:
        made = stranger.run("generate-certs", str(stranger.path / "tls"))
        assert made.status == 0, str(made)
        before = files_of(stranger)
        result = stranger.run("up")
        assert result.status == REFUSED, str(result)
        assert "another CA" in result.stderr
        assert files_of(stranger) == before
        (stranger.path / "tls" / "ca.crt").write_bytes((fleet.cluster.path / "tls" / "ca.crt").read_bytes())
        result = stranger.run("up")
        assert result.status == REFUSED, str(result)
        assert "passwords are not those of the cluster" in result.stderr
        assert not (stranger.path / "secrets.env").exists()
        assert fleet.cluster.is_healthy(), fleet.cluster.problems()
        shutil.rmtree(stranger.path)
        for name in HOSTS:
            (fleet.folder_of(name) / "clusters" / "main" / "record.json").unlink()
        result = stranger.run("up")
        assert result.status == REFUSED, str(result)
        assert "this machine has no record of it" in result.stderr
        assert not (stranger.path / "tls").exists(), "what was made for it is gone again"
        fleet.cluster.up()
        assert all((fleet.folder_of(name) / "clusters" / "main" / "record.json").exists() for name in HOSTS)
    finally:
        stranger.ports.close()
