"""`redisforge down`: everything ends, the data stays; with --purge nothing stays, after a question."""

from __future__ import annotations

import json
import os
import pty
import subprocess

import pytest
from cluster_tool import COMMAND, Cluster, environment, is_taken, kill

pytestmark = pytest.mark.integration


def test_down_keeps_the_data_and_up_brings_the_same_cluster_back(fresh: Cluster) -> None:
    keys, nodes = fresh.write_keys(), fresh.nodes()

    down = fresh.run("down")

    assert down.status == 0, str(down)
    assert "the data is kept in" in down.stdout
    assert not fresh.processes()
    assert fresh.status()["cluster"]["state"] == "stopped"
    again = fresh.run("down")
    assert again.status == 0, str(again)
    assert "nothing was running" in again.stdout
    fresh.up()
    assert {name: node["id"] for name, node in fresh.nodes().items()} == {n: node["id"] for n, node in nodes.items()}
    assert set(fresh.masters()) == {name for name, node in nodes.items() if node["role"] == "master"}
    assert fresh.read_keys(keys) == keys
    assert fresh.is_healthy()


def test_down_stops_envoys_then_replicas_then_masters(fresh: Cluster) -> None:
    masters = set(fresh.masters())
    planned = fresh.run("down", "--dry-run", "--json").json()
    assert fresh.is_healthy()

    result = fresh.run("down", "--json")

    assert result.status == 0, str(result)
    stopped = result.json()["stopped"]
    assert stopped == [step["unit"] for phase in planned["phases"] for step in phase["steps"]]
    assert stopped[0] == "envoy-1"
    assert set(stopped[-3:]) == masters
    assert not fresh.processes()
    assert not any(is_taken(port) for port in range(fresh.ports.first, fresh.ports.first + 120))
    events = [json.loads(line) for line in (fresh.path / "journal.jsonl").read_text().splitlines()]
    phases = [event["result"] for event in events if (event["verb"], event["event"]) == ("down", "phase")]
    assert phases == ["ok"] * 3


def test_at_a_terminal_it_asks_and_a_no_stops_nothing(fresh: Cluster) -> None:
    pids = fresh.pids()
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"n\n")
        refused = subprocess.run(
            (*COMMAND, "down"), cwd=fresh.folder, env=environment(fresh.home), stdin=theirs, capture_output=True,
            text=True, check=False, timeout=60,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert refused.returncode not in (0, 1), refused
    assert "Stop cluster 'main', 7 units, for all clients?" in refused.stdout
    assert fresh.pids() == pids
    assert fresh.is_healthy()


def test_purge_asks_and_a_no_deletes_nothing(fresh: Cluster) -> None:
    keys, pids = fresh.write_keys(30), fresh.pids()

    for answer in ("n\n", ""):  # no, and nobody there to answer
        refused = fresh.run("down", "--purge", answer=answer)
        assert refused.status not in (0, 1), str(refused)
        assert "Delete all data of cluster 'main'" in refused.stdout + refused.stderr

    assert fresh.pids() == pids
    assert fresh.read_keys(keys) == keys
    agreed = fresh.run("down", "--purge", answer="y\n")
    assert agreed.status == 0, str(agreed)
    assert not fresh.processes()
    assert not fresh.path.exists()


def test_purge_with_yes_deletes_everything_without_asking(fresh: Cluster) -> None:
    result = fresh.run("down", "--purge", "--yes")

    assert result.status == 0, str(result)
    assert "stopped and deleted" in result.stdout
    assert not fresh.processes()
    assert not fresh.path.exists()
    assert [path for path in fresh.home.rglob("*") if path.is_file()] == []
    gone = fresh.run("down")
    assert gone.status == 14
    assert "no cluster called" in gone.stderr


def test_down_ends_orphans_and_what_its_keepers_hold_back(fresh: Cluster) -> None:
    kill(fresh.keeper_pid("redis-1"), fresh.keeper_pid("envoy-1"))
    kill(fresh.pid("redis-2"), fresh.keeper_pid("redis-2"))

    result = fresh.run("down")

    assert result.status == 0, str(result)
    assert not fresh.processes()
