"""A cluster in containers on six hosts in three zones, each with its own Docker, over SSH: raised from nothing, changed
under load by every verb, taken down without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bed_cluster import BedCluster
from verbs import assert_whole, done, even, ids_of, loaded, planned, raise_commented

from testbed.hosts import Bed

pytestmark = pytest.mark.integration

LOCKED = 8


@pytest.fixture(scope="module")
def docked(docker_hosts: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BedCluster]:
    made = BedCluster(docker_hosts, tmp_path_factory.mktemp("bed-docker"))
    try:
        made.trust()
        raise_commented(made.cluster)
        made.cluster.write_keys(1000)
        yield made
    finally:
        made.close()


def zones_of(docked: BedCluster, shard: int) -> list[str]:
    """Where the copies of a shard stand."""
    nodes = docked.cluster.nodes().values()
    return [docked.host(node["host"]).zone for node in nodes if node["shard"] == shard]


def assert_apart(docked: BedCluster) -> None:
    """No two copies of a shard stand in one zone, and no zone has all masters."""
    for shard in {node["shard"] for node in docked.cluster.nodes().values()}:
        zones = zones_of(docked, shard)
        assert len(set(zones)) == len(zones), f"shard {shard} in {zones}"
    masters = {docked.host(node["host"]).zone for node in docked.cluster.masters().values()}
    assert len(masters) == 3


def test_a_cluster_stands_on_all_hosts_and_up_has_nothing_to_do(docked: BedCluster) -> None:
    seen = docked.running()
    assert set(seen) == {*(f"redis-{number}" for number in range(1, 7)), "envoy-1"}
    assert len({seen[name].host for name in seen if name != "envoy-1"}) == 6
    assert_apart(docked)
    assert_whole(docked.cluster, 3)
    assert docked.running() == seen


def test_a_host_has_the_keys_of_its_own_units_alone(docked: BedCluster) -> None:
    units = docked.running()
    for host in docked.bed.hosts:
        keys = host.run("find", docked.folder, "-name", "*.key", "-printf", "%f %m\n").splitlines()
        here = sorted(f"{name}.key 600" for name, seen in units.items() if seen.host == host.name)
        assert sorted(keys) == here


def test_shards_come_and_go(docked: BedCluster) -> None:
    cluster, before = docked.cluster, set(docked.containers())
    assert planned_titles(docked, "scale", "--shards", "4")
    with loaded(cluster):
        done(cluster, "scale", "--shards", "4")
        assert even(cluster.masters())
        assert len(docked.running()) == 9
        assert_apart(docked)
        done(cluster, "scale", "--shards", "3", "--yes")
    assert even(assert_whole(cluster, 3))
    assert set(docked.containers()) == before, "nothing is left of those that went"


def test_replicas_come_and_go(docked: BedCluster) -> None:
    cluster, before, ids = docked.cluster, set(docked.containers()), ids_of(docked.cluster)
    with loaded(cluster):
        done(cluster, "scale", "--replicas", "2")
        assert_apart(docked)
        done(cluster, "scale", "--replicas", "1", "--yes")
    assert_whole(cluster, 3)
    assert (set(docked.containers()), ids_of(cluster)) == (before, ids)


def test_masters_hand_over_and_a_shard_restarts(docked: BedCluster) -> None:
    cluster, before = docked.cluster, docked.running()
    master, replica = cluster.pair()
    with loaded(cluster):
        done(cluster, "failover", master)
        assert replica in cluster.masters()
        done(cluster, "restart", master, replica)  # all of them: with the settings, below
        done(cluster, "rebalance", "--roles")
    after = docked.running()
    assert {name for name in after if after[name].began != before[name].began} == {master, replica}
    assert_whole(cluster, 3)
    assert_apart(docked)


def test_slots_are_moved_by_weight_and_back(docked: BedCluster) -> None:
    cluster, before = docked.cluster, docked.running()
    heavy = sorted(cluster.masters())[0]
    with loaded(cluster):
        done(cluster, "rebalance", "--weight", f"{heavy}=2")
        assert cluster.masters()[heavy]["slot_count"] == 8192
        done(cluster, "rebalance")
    assert even(assert_whole(cluster, 3))
    assert docked.running() == before


def test_settings_are_applied_without_and_with_a_restart(docked: BedCluster) -> None:
    cluster, before = docked.cluster, docked.running()
    file = cluster.folder / "redisforge.yaml"
    declared = file.read_text()
    with loaded(cluster):
        file.write_text(declared + "redis_conf:\n  hz: 20\n")
        done(cluster, "apply-config")
        assert docked.running() == before, "CONFIG SET was enough"
        assert setting(docked, "hz") == {"20"}
        file.write_text(declared + "io_threads: 2\nredis_conf:\n  hz: 20\n")
        done(cluster, "apply-config")
    assert setting(docked, "io-threads") == {"2"}
    after = docked.running()
    assert all(after[name].began != before[name].began for name in cluster.nodes())
    assert_whole(cluster, 3)


def test_of_two_operators_at_once_one_works_and_the_other_is_told(docked: BedCluster, tmp_path: Path) -> None:
    first = docked.cluster
    second = first.second_operator(tmp_path / "second")
    try:
        assert first.run("access", "export", str(second.folder / "access.json")).status == 0
        assert second.run("access", "import", str(second.folder / "access.json")).status == 0
        node = docked.replica_elsewhere()
        verbs = [operator.start("restart", node) for operator in (first, second)]
        told = [verb.communicate(timeout=120)[1] for verb in verbs]
        statuses = [verb.returncode for verb in verbs]
        assert sorted(statuses) == [0, LOCKED], told
        late = statuses.index(LOCKED)
        assert f"process {verbs[1 - late].pid}" in told[late]
        with loaded(first):
            done((first, second)[late], "restart", node)
        assert second.is_healthy()
    finally:
        second.ports.close()
    assert_whole(first, 3)


def test_down_stops_everything_up_finds_its_data_and_a_purge_leaves_nothing(docked: BedCluster) -> None:
    cluster, keys = docked.cluster, docked.cluster.write_keys(500, "kept")
    ids = ids_of(cluster)
    down = cluster.run("down")
    assert down.status == 0, str(down)
    assert docked.running() == {}
    cluster.up()
    assert (ids_of(cluster), cluster.read_keys(keys)) == (ids, keys)
    assert_whole(cluster, 3)
    purged = cluster.run("down", "--purge", "--yes")
    assert purged.status == 0, str(purged)
    assert [docked.left_on(host) for host in docked.bed.hosts] == [[]] * 6


def setting(docked: BedCluster, name: str) -> set[str]:
    """What the nodes go by."""
    found: set[str] = set()
    for node in docked.cluster.nodes():
        with docked.cluster.node_client(node) as client:
            found.add(client.config_get(name)[name])
    return found


def planned_titles(docked: BedCluster, *arguments: str) -> list[str]:
    """What a dry run shows; it changes nothing."""
    before = docked.running()
    titles = [phase["title"] for phase in planned(docked.cluster, *arguments)]
    assert docked.running() == before
    return titles
