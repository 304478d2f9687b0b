"""The verbs that change a cluster, on three hosts over SSH and under load: nothing is noticed, whatever is where."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_tool import Cluster, kill, processes_of
from ssh_fleet import Fleet
from verbs import assert_whole, by_host, done, even, ids_of, loaded, planned, raise_commented

from waiting import until

pytestmark = pytest.mark.integration

UNREACHABLE_HOST = 16
VERB_LIMIT_S = 240.0
"""For a verb that starts every node anew, each over SSH."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("ssh-verbs"))
    try:
        raise_commented(made.cluster)
        made.cluster.write_keys(2000)
        yield made
    finally:
        made.close()


def units_on(fleet: Fleet) -> dict[str, set[str]]:
    """The Units that have a folder, by host."""
    found: dict[str, set[str]] = {}
    for name in fleet.servers:
        units = fleet.folder_of(name) / "clusters" / "main" / "units"
        found[name] = {path.name for path in units.iterdir()}
    return found


def start_times(cluster: Cluster) -> dict[str, int]:
    """The process id of every node, as it says itself."""
    found: dict[str, int] = {}
    for name in cluster.nodes():
        with cluster.node_client(name) as client:
            found[name] = client.info("server")["process_id"]
    return found


def test_shards_come_and_go_over_the_hosts(fleet: Fleet) -> None:
    cluster, before = fleet.cluster, units_on(fleet)
    with loaded(cluster):
        grown = done(cluster, "scale", "--shards", "4", "--probe")
        assert even(cluster.masters())
        assert sum(by_host(cluster).values()) == 8
        assert max(by_host(cluster).values()) == 3, "the new nodes are on different hosts"
        done(cluster, "scale", "--shards", "3", "--yes")
    assert (grown["probe"]["errors"], grown["probe"]["lost"]) == (0, 0)
    assert even(assert_whole(cluster, 3))
    assert units_on(fleet) == before, "nothing is left on the hosts of those that went"


def test_replicas_come_and_go_over_the_hosts(fleet: Fleet) -> None:
    cluster, before, ids = fleet.cluster, units_on(fleet), ids_of(fleet.cluster)
    with loaded(cluster):
        done(cluster, "scale", "--replicas", "2")
        shards = {node["shard"] for node in cluster.nodes().values()}
        for shard in shards:
            hosts = [node["host"] for node in cluster.nodes().values() if node["shard"] == shard]
            assert sorted(hosts) == sorted(fleet.servers), "a shard has a copy on every host"
        done(cluster, "scale", "--replicas", "1", "--yes")
    assert_whole(cluster, 3)
    assert (units_on(fleet), ids_of(cluster)) == (before, ids)


def test_masters_hand_over_and_a_shard_restarts(fleet: Fleet) -> None:
    cluster, pids = fleet.cluster, start_times(fleet.cluster)
    master, replica = cluster.pair()
    with loaded(cluster):
        done(cluster, "failover", master)
        assert replica in cluster.masters()
        assert master not in cluster.masters()
        done(cluster, "restart", master, replica)  # all of them: with the settings, below
        done(cluster, "rebalance", "--roles")
    after = start_times(cluster)
    assert {name for name in after if after[name] != pids[name]} == {master, replica}
    assert_whole(cluster, 3)


def test_slots_are_moved_by_weight_and_back(fleet: Fleet) -> None:
    cluster = fleet.cluster
    heavy = sorted(cluster.masters())[0]
    assert planned(cluster, "rebalance", "--weight", f"{heavy}=2")
    with loaded(cluster):
        done(cluster, "rebalance", "--weight", f"{heavy}=2")
        counts = {name: node["slot_count"] for name, node in cluster.masters().items()}
        assert counts[heavy] == 8192
        done(cluster, "rebalance")
    assert even(assert_whole(cluster, 3))


def test_settings_are_applied_without_and_with_a_restart(fleet: Fleet) -> None:
    cluster, pids = fleet.cluster, start_times(fleet.cluster)
    file = cluster.folder / "redisforge.yaml"
    declared = file.read_text()
    with loaded(cluster):
        file.write_text(declared + "redis_conf:\n  hz: 20\n")
        done(cluster, "apply-config")
        assert start_times(cluster) == pids, "CONFIG SET was enough"
        assert setting(cluster, "hz") == {"20"}
        file.write_text(declared + "io_threads: 2\nredis_conf:\n  hz: 20\n")
        done(cluster, "apply-config")
    assert setting(cluster, "io-threads") == {"2"}
    assert not set(start_times(cluster).values()) & set(pids.values())
    assert_whole(cluster, 3)
    placed = [
        path.read_text() for name in fleet.servers for path in fleet.folder_of(name).rglob("units/redis-*/redis.conf")
    ]
    assert len(placed) == 6
    assert all("io-threads 2" in text for text in placed)


def setting(cluster: Cluster, name: str) -> set[Any]:
    found: set[Any] = set()
    for node in cluster.nodes():
        with cluster.node_client(node) as client:
            found.add(client.config_get(name)[name])
    return found


def versions(cluster: Cluster) -> set[str]:
    found: set[str] = set()
    for name in cluster.nodes():
        with cluster.node_client(name) as client:
            found.add(".".join(client.info("server")["redis_version"].split(".")[:2]))
    return found


def test_an_upgrade_tries_the_data_where_it_lies_and_goes_host_by_host(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    cluster = fleet.cluster
    try:
        cluster.declare(engine={"version": "8.0"})
        cluster.up()
        keys = cluster.write_keys(500)
        with loaded(cluster), cluster.start("upgrade", "--redis", "8.6", "--yes", "--json") as verb:
            answer, errors = verb.communicate(timeout=VERB_LIMIT_S)
        assert verb.returncode == 0, errors
        report = json.loads(answer)
        assert re.search(r"8\.6\S* read a copy of redis-\d's data: [1-9]\d* keys", str(report["notices"])), report
        assert versions(cluster) == {"8.6"}
        assert cluster.read_keys(keys) == keys
        assert cluster.up() == []
        left = [path for name in fleet.servers for path in fleet.folder_of(name).rglob("upgrade-check")]
        assert left == [], "the copy that was tried is gone"
    finally:
        fleet.close()


def test_with_a_host_lost_the_others_are_looked_after_and_up_heals_when_it_is_back(fleet: Fleet) -> None:
    """The host's sshd is gone and so are its processes: what can be done is done, and who is missing is named."""
    cluster, lost = fleet.cluster, "h3"
    keys = cluster.write_keys(300, "lost")
    cluster.await_copies()
    gone = sorted(name for name, node in cluster.nodes().items() if node["host"] == lost)
    fleet.servers[lost].stop()
    folder = str(fleet.folder_of(lost))
    kill(*(pid for pid, line in processes_of(fleet.folder_of(lost)).items() if "keeper.py" in line))
    kill(*processes_of(fleet.folder_of(lost)))
    until(lambda: not processes_of(fleet.folder_of(lost)), f"nothing of {folder} runs")

    until(
        lambda: len(cluster.masters()) == 3 and not set(cluster.masters()) & set(gone), "the replicas have taken over"
    )
    refused = cluster.run("restart")
    assert refused.status not in (0, 1), str(refused)
    assert any(name in refused.stderr for name in (*gone, lost)), str(refused)
    declared = (cluster.folder / "redisforge.yaml").read_text()
    refused = cluster.run("scale", "--shards", "5")
    assert refused.status == UNREACHABLE_HOST, str(refused)
    assert lost in refused.stderr
    assert (cluster.folder / "redisforge.yaml").read_text() == declared
    other = next(path for path in (fleet.folder_of("h1") / "clusters" / "main" / "units").glob("redis-*"))
    victim = int(json.loads((other / "state.json").read_text())["pid"])
    kill(victim)
    healed = cluster.run("up")
    assert healed.status == UNREACHABLE_HOST, str(healed)
    assert lost in healed.stderr
    until(lambda: int(json.loads((other / "state.json").read_text())["pid"]) not in (0, victim), "h1 is looked after")

    fleet.servers[lost].start()
    cluster.up()
    assert {node["state"] for node in cluster.nodes().values()} == {"ok"}
    done(cluster, "rebalance", "--roles")  # two masters share a host since the failover, and status says so
    assert cluster.is_healthy(), cluster.problems()
    assert cluster.read_keys(keys) == keys
