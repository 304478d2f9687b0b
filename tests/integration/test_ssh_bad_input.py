"""What can be wrong with hosts over SSH: which host, what, the cure; and the others are left alone or looked after."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_fleet import Fleet

pytestmark = pytest.mark.integration

CONFIG = 3
HOST = 7
UNREACHABLE = 16
HOST_KEY = 17


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.close()


def left_on(fleet: Fleet, *names: str) -> list[str]:
    """What is on the hosts, but for programs."""
    folders = [fleet.folder_of(name) / "clusters" for name in names]
    return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_ports_that_strangers_have_on_other_hosts_are_all_named_before_anything_starts(fleet: Fleet) -> None:
    port = fleet.cluster.ports.first
    with socket.create_server(("127.0.0.12", port)), socket.create_server(("127.0.0.13", port + 50)):
        results = [fleet.cluster.run("up", "--dry-run"), fleet.cluster.run("up")]
    for result in results:
        assert result.status == HOST, str(result)
        assert f"127.0.0.12:{port}: in use by process" in result.stderr
        assert f"127.0.0.13:{port + 50}: in use by process" in result.stderr
        assert "where: h2, h3" in result.stderr
    assert left_on(fleet, "h1", "h2", "h3") == []
    fleet.cluster.up()
