"""`lock` and `audit` on a real cluster: who operates now, how to stop them, and what is on record afterwards."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cluster_tool import Cluster

from waiting import until

pytestmark = pytest.mark.integration

SCHEMAS = Path(__file__).parents[2] / "docs" / "reference"
INTERRUPTED = 130
KILLED = -9


def valid(document: Any, schema_name: str) -> Any:
    jsonschema.validate(document, json.loads((SCHEMAS / schema_name).read_text()))
    return document


def lock_of(cluster: Cluster) -> dict[str, Any]:
    result = cluster.run("lock", "status", "--json")
    assert result.status == 0, str(result)
    return valid(result.json(), "lock.schema.json")


def audit_of(cluster: Cluster, *arguments: str) -> list[dict[str, Any]]:
    result = cluster.run("audit", "--json", *arguments)
    assert result.status == 0, str(result)
    return valid(result.json(), "audit.schema.json")["lines"]


@contextmanager
def verb_at_work(cluster: Cluster, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """A verb that has the lock and has begun its first phase."""
    with cluster.start(*arguments) as verb:
        begun = cluster.path / "journal.jsonl"
        before = begun.read_text().count(f'"pid":{verb.pid},')
        until(lambda: begun.read_text().count(f'"pid":{verb.pid},') > before + 1, "its first step", 20)
        yield verb
        verb.kill()


def test_a_free_lock_and_the_record_of_up(shared: Cluster) -> None:
    assert lock_of(shared) | {"cluster": ""} == {
        "cluster": "", "held": False, "known": True, "user": "", "host": "", "pid": None, "verb": "", "command": "",
        "since": "", "alive": False, "seconds": None, "note": "", "held_on": [], "unreachable": [],
    }  # fmt: skip
    assert shared.run("lock", "status").stdout.strip() == "main: free"
    released = shared.run("lock", "release")
    assert (released.status, released.stdout.strip()) == (0, "main: free")

    lines = audit_of(shared, "--last", "0")
    run = [line for line in lines if line["run"] == lines[0]["run"]]
    assert run[0]["verb"] == "up"
    assert run[0]["arguments"] == ["up"]
    assert run[-1]["event"] == "end"
    assert run[-1]["result"] == "ok"
    assert all(line["seconds"] is not None for line in run[1:]), "every step has its seconds"
    assert {line["user"] for line in run} == {getpass.getuser()}


def test_the_journal_is_closed_and_holds_no_password(shared: Cluster) -> None:
    journal = shared.path / "journal.jsonl"
    assert journal.stat().st_mode & 0o777 == 0o600
    text = journal.read_text()
    assert not [name for name, password in shared.passwords().items() if password in text]


def test_audit_as_a_table(shared: Cluster) -> None:
    assert shared.run("restart", "redis-5").status == 0
    table = shared.run("audit", "--verb", "restart", "--last", "1", "--steps")
    assert table.status == 0, str(table)
    head, row, command, *steps = table.stdout.splitlines()
    assert head.split() == ["WHEN", "USER", "VERB", "WHAT", "RESULT", "SECONDS"]
    assert [getpass.getuser(), "restart", "redis-5", "ok"] == row.split()[2:6]
    assert command.strip().startswith("redisforge restart redis-5")
    assert any("restart redis-5" in step and " ok " in step for step in steps)
    assert len(shared.run("audit", "--verb", "restart", "--last", "1").stdout.splitlines()) == 2
    nothing = shared.run("audit", "--verb", "upgrade")
    assert nothing.stdout.strip() == "main: no run matches"
    assert "on record are runs of: " in nothing.stderr
    assert "restart, up" in nothing.stderr
    assert shared.run("audit", "--since", "yesterday").status == 2
    assert audit_of(shared, "--since", "1h")


def test_a_clusters_lock_and_record_are_found_by_name(shared: Cluster) -> None:
    for command in (("lock", "status"), ("lock", "release"), ("audit",)):
        result = shared.run(*command, "--cluster", "another")
        assert result.status == 14, str(result)
        assert "clusters here: main" in result.stderr


def test_a_running_verb_is_named_turns_others_away_and_stops_at_a_clean_point(fresh: Cluster) -> None:
    with verb_at_work(fresh, "restart") as verb:
        held = lock_of(fresh)
        assert (held["held"], held["alive"], held["verb"], held["pid"]) == (True, True, "restart", verb.pid)
        assert held["seconds"] >= 0
        assert f"held by `redisforge restart` of {getpass.getuser()}" in fresh.run("lock", "status").stdout
        turned_away = fresh.run("restart", "redis-1")
        assert turned_away.status == 8
        assert "redisforge lock status" in turned_away.stderr
        os.kill(verb.pid, signal.SIGSTOP)  # it holds the lock until all have looked
        try:
            planned = {dry[0]: fresh.run(*dry, "--dry-run") for dry in (("restart", "redis-1"), ("up",), ("down",))}
        finally:
            os.kill(verb.pid, signal.SIGCONT)
        for name, plan in planned.items():  # one that is refused, since a node is away just now, says so too
            assert f"holds the cluster's lock; until it has ended, `{name}` is refused" in plan.stderr, str(plan)
            assert f"note: `redisforge restart` of {getpass.getuser()}" in plan.stderr
        assert planned["down"].status == 0, str(planned["down"])
        refused = fresh.run("lock", "release", answer="n\n")
        assert refused.status == INTERRUPTED
        assert verb.poll() is None
        os.kill(verb.pid, signal.SIGSTOP)  # it cannot end before it was asked twice
        first, second = (fresh.run("lock", "release", "--yes", "--wait", "0.1") for _ in range(2))
        os.kill(verb.pid, signal.SIGCONT)
        assert (first.status, second.status) == (10, 10), f"{first}{second}"
        assert "got SIGTERM" in first.stderr
        assert "was asked to stop before" in second.stderr, "a second signal would stop it anywhere"
        assert "--force" in second.stderr
        released = fresh.run("lock", "release", "--yes")
        assert released.status == 0, str(released)
        _, errors = verb.communicate(timeout=30)
    assert verb.returncode == INTERRUPTED, errors
    assert "safe point" in errors
    assert not lock_of(fresh)["held"]
    assert "lock" not in fresh.run("restart", "redis-1", "--dry-run").stderr
    assert fresh.is_healthy()
    ended = audit_of(fresh, "--verb", "restart")
    assert any(line["event"] == "end" and line["result"] == "interrupted" for line in ended)
    assert any("SIGTERM to `redisforge restart`" in line["what"] for line in audit_of(fresh, "--verb", "lock release"))
    assert set(fresh.up()) <= {"let redis-5 serve reads again"}, "all that a stop between two phases leaves"
    assert fresh.up() == []


def test_a_verb_that_is_killed_leaves_a_free_lock_and_its_name(fresh: Cluster) -> None:
    with verb_at_work(fresh, "restart", "--probe") as verb:
        released = fresh.run("lock", "release", "--force", "--yes", "--json")
        assert released.status == 0, str(released)
        assert released.json()["released"]
        verb.communicate(timeout=30)
    assert verb.returncode == KILLED
    left = lock_of(fresh)
    assert (left["held"], left["alive"], left["verb"], left["pid"]) == (False, False, "restart", verb.pid)
    assert left["command"].startswith("redisforge restart --probe")
    assert f"`{left['command']}` goes on from there" in fresh.run("lock", "status").stdout
    said = f"`{left['command']}` of {getpass.getuser()} was cut off: run it again, it goes on from there"
    assert said in fresh.run("status").stdout
    assert "no end: killed" in fresh.run("audit", "--verb", "restart").stdout
    again = fresh.run("restart")
    assert again.status == 0, str(again)
    assert fresh.is_healthy()
    assert lock_of(fresh)["verb"] == ""
    assert "was cut off" not in fresh.run("status").stdout
