"""`redisforge host …` on three hosts over SSH: before there is a cluster, while it runs, with a host gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ssh_fleet import Fleet

pytestmark = pytest.mark.integration

UNHEALTHY = 13
NOT_FOUND = 14
HOSTS = ("h1", "h2", "h3")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.close()


def checked(fleet: Fleet, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The checks by host and name."""
    report = fleet.cluster.run("host", "check", "--json", *arguments).json()
    return {(check["host"], check["name"]): check for check in report["checks"]}


def folders(fleet: Fleet) -> list[Path]:
    return [path for name in HOSTS for path in fleet.folder_of(name).rglob("*")]


def test_hosts_are_checked_before_and_while_the_cluster_runs(fleet: Fleet) -> None:
    listed = fleet.cluster.run("host", "list", "--json").json()
    assert [host["name"] for host in listed["hosts"]] == list(HOSTS)
    assert all(host["way"].startswith("ssh ") and host["folder"] for host in listed["hosts"])

    before = checked(fleet)
    for name in HOSTS:
        assert before[name, "reachable by the others"]["verdict"] == "Pass", before
        assert before[name, "round trip"]["verdict"] != "Fail", "a busy machine may be slow"
        assert "the farthest" in before[name, "round trip"]["what"]
        assert before[name, "ports"]["what"].endswith("free")
        assert before[name, "python3"]["verdict"] == "Pass"
        assert before[name, "clock"]["verdict"] == "Pass"
        assert before[name, "machine"]["verdict"] == "Warn", "they are one machine, and that is seen"
    assert folders(fleet) == [], "nothing is left of looking"

    fleet.cluster.up()
    during = checked(fleet)
    for name in HOSTS:
        assert during[name, "reachable by the others"]["verdict"] == "Pass", during
        assert "used by this cluster itself" in during[name, "ports"]["what"]
    assert fleet.cluster.is_healthy(), "it was only looked at"

    fleet.servers["h2"].stop()
    result = fleet.cluster.run("host", "check")
    fleet.servers["h2"].start()
    assert result.status == UNHEALTHY
    gone = [line for line in result.stdout.splitlines() if line.startswith("  Fail")]
    assert len(gone) == 1
    assert gone[0].split()[:2] == ["Fail", "reachable"]
    assert "h1\n  Pass  system" in result.stdout
    assert "h3\n  Pass  system" in result.stdout


def test_a_port_that_a_stranger_has_is_found_on_its_host(fleet: Fleet) -> None:
    port = fleet.cluster.ports.first
    with socket.create_server(("127.0.0.12", port)):
        result = fleet.cluster.run("host", "check", "h2", "h3")
    assert result.status == UNHEALTHY, str(result)
    assert "in use by process" in result.stdout
    assert "h1\n" not in result.stdout
    unknown = fleet.cluster.run("host", "check", "h4")
    assert unknown.status == NOT_FOUND
    assert "h1, h2, h3" in unknown.stderr


def test_preparing_shows_what_it_would_change(fleet: Fleet) -> None:
    settings = Path("/etc/sysctl.d/60-redisforge.conf")
    was_there = settings.exists()
    result = fleet.cluster.run("host", "prepare", "h1", "--dry-run")
    assert result.status == 0, str(result)
    assert ("+vm.overcommit_memory = 1" in result.stdout) != was_there
    assert (f"# sysctl -p {settings}" in result.stdout) != was_there
    assert settings.exists() == was_there
