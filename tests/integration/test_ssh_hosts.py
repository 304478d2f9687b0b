"""A cluster on three hosts over SSH, processes under their keepers: each host is an sshd of its own on this machine.

The tests are one story about one cluster, in the order in which they stand here.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest
from ssh_fleet import Fleet

pytestmark = pytest.mark.integration

UNREACHABLE = 16


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("ssh-hosts"))
    try:
        made.cluster.up()
        yield made
    finally:
        made.close()


def test_a_cluster_lives_on_hosts_over_ssh(fleet: Fleet) -> None:
    cluster = fleet.cluster
    assert cluster.is_healthy()
    assert cluster.up() == []
    for name in fleet.servers:
        here = fleet.folder_of(name) / "clusters" / "main"
        keys = sorted(here.glob("tls/*.key"))
        units = {node["name"] for node in cluster.nodes().values() if node["host"] == name}
        assert {key.stem for key in keys} >= units
        assert {key.stem for key in keys} - {"envoy-1"} == units, "a host gets the keys of its own Units alone"
        assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
        assert not (here / "tls" / "ca.key").exists()
    lines = cluster.run("logs", "redis-1", "-n", "3")
    assert lines.status == 0
    assert len(lines.stdout.splitlines()) == 3


def test_a_host_that_cannot_be_reached_is_named_and_the_others_are_looked_after(fleet: Fleet) -> None:
    cluster = fleet.cluster
    fleet.servers["h2"].stop()
    said = [problem for problem in cluster.problems() if "its host cannot be reached" in problem]
    assert {line.split(":")[0] for line in said} == {n["name"] for n in cluster.nodes().values() if n["host"] == "h2"}
    again = cluster.run("up")
    assert again.status == UNREACHABLE, str(again)
    assert "h2 cannot be reached" in again.stderr
    down = cluster.run("down")
    assert down.status == UNREACHABLE, str(down)
    assert "everything else is stopped" in down.stderr
    fleet.servers["h2"].start()
    cluster.up()
    assert {node["state"] for node in cluster.nodes().values()} == {"ok"}


def test_a_purge_leaves_nothing_on_the_hosts(fleet: Fleet) -> None:
    assert all((fleet.folder_of(name) / "clusters" / "main").exists() for name in fleet.servers)
    down = fleet.cluster.run("down", "--purge", "--yes")
    assert down.status == 0, str(down)
    assert not any((fleet.folder_of(name) / "clusters" / "main").exists() for name in fleet.servers)
