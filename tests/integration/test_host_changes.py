"""Hosts come and go under load: maintenance, drain, remove, replace. Hosts are loopback addresses of this machine.

The tests of this module share a cluster of three shards with one replica each on four hosts in three zones; the order
of the tests is that in which an operator could do all this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster_tool import Cluster, kill
from verbs import done, loaded, planned, raise_commented

pytestmark = pytest.mark.integration

HOSTS = tuple(
    {"name": f"h{number}", "address": f"127.0.0.{20 + number}", "zone": f"zone-{min(number, 3)}"}
    for number in range(1, 5)
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("hosts"), hosts=list(HOSTS))
    try:
        raise_commented(made)
        made.write_keys(2000)
        yield made
    finally:
        made.close()


def on(cluster: Cluster, host: str) -> dict[str, dict[str, Any]]:
    """The nodes of a host, by name."""
    return {name: node for name, node in cluster.nodes().items() if node["host"] == host}


def masters_on(cluster: Cluster, host: str) -> set[str]:
    return {name for name, node in cluster.masters().items() if node["host"] == host}


def titles(report: dict[str, Any]) -> list[str]:
    return [title for title, _ in report["phases"]]


def test_maintenance(cluster: Cluster) -> None:
    """Masters hand over, the host may be down, nothing brings a master back before `exit`."""
    host = next(node["host"] for node in cluster.masters().values() if node["host"] != "h1")  # Envoy is on h1
    moving = masters_on(cluster, host)
    plan = planned(cluster, "host", "maintenance", "enter", host)
    with loaded(cluster):
        report = done(cluster, "host", "maintenance", "enter", host, "--probe")

    handed = [title for title in titles(report) if title.startswith("hand over")]
    assert len(handed) == len([phase for phase in plan if phase["title"].startswith("hand over")]) == len(moving)
    assert (report["probe"]["errors"], report["probe"]["lost"]) == (0, 0)
    assert not masters_on(cluster, host)
    assert cluster.status()["cluster"]["maintenance"] == [host]
    assert f"host {host} is in maintenance" in cluster.run("status").stdout
    assert done(cluster, "host", "maintenance", "enter", host)["phases"] == []

    assert cluster.up() == []
    done(cluster, "rebalance", "--roles")  # the others may share the masters better among them
    assert not masters_on(cluster, host)
    assert cluster.problems() == []
    resting = sorted(on(cluster, host))
    for name in resting:
        kill(cluster.keeper_pid(name), cluster.pid(name))
    down = [problem for problem in cluster.status()["problems"] if problem["where"] in resting]
    assert down
    assert {problem["severity"] for problem in down} == {"warning"}, "it is what the maintenance is for"
    done(cluster, "host", "maintenance", "enter", host)  # it can be repeated when the host is down
    with loaded(cluster):
        cluster.up()
        assert cluster.status()["cluster"]["maintenance"] == [host], "`up` does not end it"
        assert not masters_on(cluster, host)
        assert done(cluster, "host", "maintenance", "exit", host)["phases"] == []
        done(cluster, "rebalance", "--roles")
    assert cluster.status()["cluster"]["maintenance"] == []
    assert cluster.up() == []

    audit = cluster.run("audit", "--verb", "host", "--json").json()["lines"]
    assert [line["what"] for line in audit if line["event"] == "begin"].count(f"maintenance enter {host}") == 3


def test_unknown_hosts_are_refused(cluster: Cluster) -> None:
    for words in (("maintenance", "enter"), ("maintenance", "exit")):
        result = cluster.run("host", *words, "h9")
        assert result.status != 0
        assert "no host called 'h9'" in result.stderr
        assert "h1, h2, h3, h4" in result.stderr
