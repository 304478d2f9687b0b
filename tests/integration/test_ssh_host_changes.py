"""Hosts come and go over SSH: one is lost with all on it, another takes its place, a third is drained under load."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
import yaml
from cluster_tool import kill, processes_of
from ssh_fleet import Fleet
from verbs import assert_declared, by_host, done, ids_of, loaded, raise_commented, strays

from waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("ssh-hosts"), spare=("h4",))
    try:
        raise_commented(made.cluster)
        yield made
    finally:
        made.close()


UNREACHABLE = 16


def units_of(fleet: Fleet, host: str) -> set[str]:
    """The Units that have a folder on a host."""
    units = fleet.folder_of(host) / "clusters" / "main" / "units"
    return {path.name for path in units.iterdir()} if units.is_dir() else set()


def lose(fleet: Fleet, host: str) -> None:
    """The machine is gone: sshd, keepers and nodes."""
    fleet.servers[host].close()
    folder = fleet.folder_of(host)

    def is_silent() -> bool:
        found = processes_of(folder)
        kill(*(pid for pid, command in found.items() if "keeper.py" in command))
        kill(*found)
        return not found

    until(lambda: is_silent() and is_silent(), f"the end of {host}")


def test_maintenance_is_known_to_everybody_who_has_the_record(fleet: Fleet) -> None:
    cluster = fleet.cluster
    with loaded(cluster):
        assert ": done in" in cluster.run("host", "maintenance", "enter", "h2").stdout
    assert "nothing to do" in cluster.run("host", "maintenance", "enter", "h2").stdout
    assert "h2" not in {node["host"] for node in cluster.masters().values()}
    assert cluster.status()["cluster"]["maintenance"] == ["h2"]
    record = fleet.folder_of("h3") / "clusters" / "main" / "topology.json"
    if record.exists():
        assert json.loads(record.read_text())["maintenance"] == ["h2"]
    done(cluster, "host", "maintenance", "exit", "h2")
    done(cluster, "rebalance", "--roles")
    assert cluster.up() == []


def test_a_lost_host_is_replaced_by_one_that_has_never_seen_the_cluster(fleet: Fleet) -> None:
    cluster = fleet.cluster
    keys, ids = cluster.write_keys(1000), ids_of(cluster)
    cluster.await_copies()
    lost = {name for name, node in cluster.nodes().items() if node["host"] == "h3"}
    lose(fleet, "h3")
    file = cluster.folder / "redisforge.yaml"
    entry = yaml.safe_dump([fleet.entries["h4"]], sort_keys=False)
    file.write_text(cluster.declaration().replace("hosts:\n", f"hosts:\n{entry}"))

    record = (cluster.path / "topology.json").read_text()
    fleet.servers["h4"].stop()
    refused = cluster.run("host", "replace", "h3", "h4", "--yes")
    assert refused.status == UNREACHABLE, str(refused)
    assert "h4 cannot be reached" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert (cluster.path / "topology.json").read_text() == record
    fleet.servers["h4"].start()

    report = done(cluster, "host", "replace", "h3", "h4", "--yes")

    assert any("h3 cannot be reached" in notice for notice in report["notices"])
    assert by_host(fleet.cluster) == {"h1": 2, "h2": 2, "h4": 2}
    assert {name: node_id for name, node_id in ids_of(cluster).items() if name in ids} == {
        name: node_id for name, node_id in ids.items() if name not in lost
    }
    assert units_of(fleet, "h4") == {name for name, node in cluster.nodes().items() if node["host"] == "h4"}
    assert "h3" not in {host["name"] for host in yaml.safe_load(cluster.declaration())["hosts"]}
    assert Counter(node["host"] for node in cluster.masters().values()) == {"h1": 1, "h2": 1, "h4": 1}
    assert_declared(cluster, 3)
    assert cluster.is_healthy()
    assert cluster.read_keys(keys) == keys
    assert cluster.up() == []


def test_a_host_is_drained_under_load(fleet: Fleet) -> None:
    cluster = fleet.cluster
    refused = cluster.run("host", "drain", "h2", "--yes")
    assert refused.status != 0
    assert "half of the masters" in refused.stderr
    with loaded(cluster):
        report = done(cluster, "host", "drain", "h2", "--yes", "--force", "--probe")
    assert (report["probe"]["errors"], report["probe"]["lost"]) == (0, 0)
    assert by_host(fleet.cluster) == {"h1": 3, "h4": 3}
    assert units_of(fleet, "h2") == set()
    keys = {path.stem for path in (fleet.folder_of("h2") / "clusters" / "main" / "tls").glob("*.key")}
    assert not [name for name in keys if name.startswith("redis-")], "keys go with their nodes"
    shards = {node["shard"] for node in cluster.nodes().values()}
    for shard in shards:
        assert {node["host"] for node in cluster.nodes().values() if node["shard"] == shard} == {"h1", "h4"}
    assert cluster.up() == []


def test_a_host_that_was_taken_out_keeps_nothing_of_the_cluster(fleet: Fleet) -> None:
    cluster, folder = fleet.cluster, fleet.folder_of("h2") / "clusters" / "main"
    assert (folder / "record.json").exists()

    report = done(cluster, "host", "remove", "h2", "--yes", "--force")

    assert not folder.exists()
    assert not any("could not be deleted" in notice for notice in report["notices"])
    assert (cluster.path / "tls" / "ca.key").exists()
    assert by_host(cluster) == {"h1": 3, "h4": 3}
    assert cluster.is_healthy(), cluster.problems()
    assert cluster.up() == []


def test_what_a_lost_host_has_brought_back_is_named_once_the_cluster_has_the_host_again(fleet: Fleet) -> None:
    cluster, folder = fleet.cluster, fleet.folder_of("h3") / "clusters" / "main"
    brought = units_of(fleet, "h3")
    fleet.servers["h3"].start()
    keeper = ("python3", "-I", str(folder / "keeper.py"))
    subprocess.run([*keeper, "start", *(str(folder / "units" / name) for name in brought)], check=True, timeout=30)
    assert strays(cluster) == {}, "nobody looks at a host that has left"
    entry = yaml.safe_dump([fleet.entries["h3"]], sort_keys=False)
    (cluster.folder / "redisforge.yaml").write_text(cluster.declaration().replace("hosts:\n", f"hosts:\n{entry}"))

    raised = cluster.run("up")

    assert raised.status == 0, str(raised)
    told = strays(cluster)
    assert told.keys() == brought
    for name, command in told.items():
        assert f"{name} runs on h3, and the cluster does not have it there" in raised.stderr, str(raised)
        assert command == (*keeper, "stop", str(folder / "units" / name))
        subprocess.run(command, check=True, timeout=60)
    assert strays(cluster) == {}
    assert units_of(fleet, "h3") == brought, "their data is left alone"
    assert not {command for command in processes_of(folder).values() if "keeper.py" in command}
    assert cluster.up() == []
