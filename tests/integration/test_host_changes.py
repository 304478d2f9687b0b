"""Hosts come and go under load: maintenance, drain, remove, replace. Hosts are loopback addresses of this machine.

The tests of this module share a cluster of three shards with one replica each on four hosts in three zones; the order
of the tests is that in which an operator could do all this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from chain import chained
from cluster_tool import Cluster, kill
from verbs import (
    after_lines,
    assert_declared,
    assert_forgotten,
    assert_removed,
    assert_whole,
    done,
    ids_of,
    killed,
    loaded,
    planned,
    raise_commented,
)

from waiting import until

pytestmark = pytest.mark.integration

HOSTS = tuple(
    {"name": f"h{number}", "address": f"127.0.0.{20 + number}", "zone": f"zone-{min(number, 3)}"}
    for number in range(1, 5)
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("hosts"), hosts=list(HOSTS), envoy={"instances": 2})
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


def declared_hosts(cluster: Cluster) -> list[str]:
    return [host["name"] for host in yaml.safe_load(cluster.declaration())["hosts"]]


def declare_host(cluster: Cluster, name: str, number: int, zone: str) -> None:
    """The operator adds a host to redisforge.yaml by hand."""
    file = cluster.folder / "redisforge.yaml"
    entry = f"hosts:\n- name: {name}\n  address: 127.0.0.{number}\n  zone: {zone}\n"
    file.write_text(cluster.declaration().replace("hosts:\n", entry))


def envoys(cluster: Cluster) -> dict[str, str]:
    """The address of each Envoy that serves."""
    return {door["envoy"]: door["host"] for door in cluster.status()["endpoints"]}


def assert_unnoticed(report: dict[str, Any]) -> None:
    assert (report["probe"]["errors"], report["probe"]["lost"]) == (0, 0)


def test_what_cannot_be_is_refused_before_anything_is_begun(cluster: Cluster) -> None:
    before = cluster.record()
    for words, reason in {
        ("drain", "h9"): "no host called 'h9'",
        ("remove", "h9"): "no host called 'h9'",
        ("replace", "h1", "h9"): "no host called 'h9' is declared",
        ("replace", "h1", "h1"): "cannot replace itself",
        ("maintenance", "enter", "h9"): "hosts of this cluster: h1, h2, h3, h4",
        ("maintenance", "exit", "h9"): "no host called 'h9'",
        ("remove", "h2"): "one zone would have half of the masters",
    }.items():
        result = cluster.run("host", *words, *(() if words[0] == "maintenance" else ("--yes",)))
        assert result.status != 0
        assert reason in result.stderr
    assert cluster.run("host", "drain", "h4", answer="n\n").status != 0
    assert cluster.record() == before
    assert cluster.up() == []


def test_a_host_is_drained_and_then_removed(cluster: Cluster) -> None:
    leaving, ids = sorted(on(cluster, "h4")), ids_of(cluster)
    assert leaving
    plan = planned(cluster, "host", "drain", "h4")
    with loaded(cluster):
        report = done(cluster, "host", "drain", "h4", "--yes", "--probe")

    assert_unnoticed(report)
    assert {"start_unit", "replicate", "forget", "reset", "remove_unit"} <= {
        step["step"] for phase in plan for step in phase["steps"]
    }
    assert on(cluster, "h4") == {}
    assert_removed(cluster, *leaving)
    assert_whole(cluster, 3)
    assert cluster.status()["cluster"]["maintenance"] == ["h4"]
    assert "h4" in declared_hosts(cluster)
    assert done(cluster, "host", "drain", "h4", "--yes")["phases"] == []

    planned_removal = cluster.run("host", "remove", "h4", "--dry-run")
    assert "Nothing to do on the nodes: only what is on record" in planned_removal.stdout
    report = done(cluster, "host", "remove", "h4", "--yes")
    assert declared_hosts(cluster) == ["h1", "h2", "h3"]
    assert any("does not declare the host h4 any more" in notice for notice in report["notices"])
    assert cluster.status()["cluster"]["maintenance"] == []
    assert_whole(cluster, 3)
    assert_forgotten(cluster, [ids[name] for name in leaving])
    again = done(cluster, "host", "remove", "h4", "--yes")
    assert (again["phases"], "already gone" in again["notices"][0]) == ([], True)


def test_a_lost_host_is_replaced(cluster: Cluster) -> None:
    """All of it is dead: nodes, Envoy, keepers. Every step of the way is cut once."""
    lost, ids = on(cluster, "h2"), ids_of(cluster)
    old_envoy = next(name for name, address in envoys(cluster).items() if address == "127.0.0.22")
    declare_host(cluster, "h5", 25, "zone-2")
    keys = cluster.write_keys(500, "before")
    cluster.await_copies()
    for name in (*lost, old_envoy):
        kill(cluster.keeper_pid(name), cluster.pid(name))
    until(lambda: len(cluster.masters()) == 3 and not lost.keys() & cluster.masters().keys(), "a takeover")
    cuts = chained(cluster, "host", "replace", "h2", "h5", "--yes")

    assert len(cuts) > 8, cuts
    assert not on(cluster, "h2")
    assert len(on(cluster, "h5")) == len(lost)
    assert declared_hosts(cluster) == ["h5", "h1", "h3"]
    assert old_envoy not in envoys(cluster)
    assert "127.0.0.25" in envoys(cluster).values()
    assert len(masters_on(cluster, "h5")) == 1, "roles return"
    assert_removed(cluster, *lost, old_envoy)
    assert_whole(cluster, 3)
    assert_forgotten(cluster, [ids[name] for name in lost])
    assert cluster.read_keys(keys) == keys


def test_a_living_host_is_replaced_and_one_is_removed_with_all_on_it(cluster: Cluster) -> None:
    declare_host(cluster, "h6", 26, "zone-2")
    leaving = on(cluster, "h5")
    with loaded(cluster):
        assert_unnoticed(done(cluster, "host", "replace", "h5", "h6", "--yes", "--probe"))
    assert not on(cluster, "h5")
    assert len(on(cluster, "h6")) == len(leaving)
    assert_whole(cluster, 3)
    assert_declared(cluster, 3)

    with loaded(cluster):
        for lines in (2, 6):
            killed(cluster, "host", "remove", "h6", "--yes", "--force", when=after_lines(cluster, lines))
        done(cluster, "host", "remove", "h6", "--yes", "--force")
    assert declared_hosts(cluster) == ["h1", "h3"]
    assert len(cluster.nodes()) == 6
    assert set(envoys(cluster).values()) == {"127.0.0.21", "127.0.0.23"}
    assert [problem for problem in cluster.problems() if "share" not in problem] == []
    assert cluster.up() == []
