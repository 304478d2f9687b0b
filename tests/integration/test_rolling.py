"""Failovers, restarts and `rebalance --roles` under load: roles change hands, and clients notice nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from cluster_tool import NODE_NAMES, Cluster, until
from verbs import assert_removed, assert_whole, done, even, ids_of, loaded, planned, raise_commented

from conftest import MakeCluster

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three shards, each with a replica."""
    made = Cluster(tmp_path_factory.mktemp("rolling"))
    try:
        raise_commented(made)
        made.write_keys(500)
        yield made
    finally:
        made.close()


def test_a_replica_takes_over_and_gives_back(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    ids, pids, shards = ids_of(cluster), cluster.pids(), {n: node["shard"] for n, node in cluster.nodes().items()}
    steps = [step for phase in planned(cluster, "failover", master) for step in phase["steps"]]
    assert [(step["step"], step["node"], step["mode"]) for step in steps] == [("promote", replica, "handover")]
    with loaded(cluster):
        done(cluster, "failover", master)
        assert replica in cluster.masters()
        assert done(cluster, "failover", master)["phases"] == [], "it is no master any more"
        done(cluster, "failover", replica, "--to", master)

    assert master in assert_whole(cluster, 3)
    assert (ids_of(cluster), cluster.pids()) == (ids, pids)
    assert {n: node["shard"] for n, node in cluster.nodes().items()} == shards


def test_all_nodes_are_restarted_one_after_the_other(cluster: Cluster) -> None:
    before, ids = cluster.pids(), ids_of(cluster)
    plan = planned(cluster, "restart")
    restarts = [step["unit"] for phase in plan for step in phase["steps"] if step["step"] == "restart_unit"]
    assert sorted(restarts) == sorted(NODE_NAMES)
    with loaded(cluster):
        done(cluster, "restart")

    after = cluster.pids()
    assert [name for name in NODE_NAMES if after[name][0] == before[name][0]] == []
    assert after["envoy-1"] == before["envoy-1"]
    assert ids_of(cluster) == ids
    assert_whole(cluster, 3)


def test_one_master_is_restarted(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    before = cluster.pids()
    with loaded(cluster):
        done(cluster, "restart", master)

    after = cluster.pids()
    assert [name for name in after if after[name][0] != before[name][0]] == [master]
    masters = assert_whole(cluster, 3)
    assert replica in masters
    assert master not in masters


def masters_by(cluster: Cluster, field: str) -> list[int]:
    """How many masters each zone (or host) has, the most first."""
    return sorted(Counter(node[field] for node in cluster.masters().values()).values(), reverse=True)


def test_crowded_masters_are_spread_over_zones_again(make_cluster: MakeCluster) -> None:
    hosts = [{"name": f"host-{zone}", "address": f"127.0.0.1{n}", "zone": zone} for n, zone in enumerate("abc", 1)]
    cluster = make_cluster(hosts=hosts)
    raise_commented(cluster)
    assert masters_by(cluster, "zone") == [1, 1, 1]
    nodes = cluster.nodes()
    crowded = next(node["zone"] for node in nodes.values() if node["role"] == "replica")
    master = next(
        name
        for name, node in cluster.masters().items()
        if any(other["shard"] == node["shard"] and other["zone"] == crowded for n, other in nodes.items() if n != name)
    )
    done(cluster, "failover", master)
    assert masters_by(cluster, "zone") == [2, 1]
    assert any("masters" in problem for problem in cluster.problems()), cluster.problems()

    plan = planned(cluster, "rebalance", "--roles")
    assert {step["step"] for phase in plan for step in phase["steps"]} == {"promote"}
    with loaded(cluster):
        done(cluster, "rebalance", "--roles")

    assert masters_by(cluster, "zone") == masters_by(cluster, "host") == [1, 1, 1]
    assert_whole(cluster, 3)
    assert done(cluster, "rebalance", "--roles")["phases"] == []


def test_the_verbs_on_an_engine_without_atomic_migration(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(engine={"version": "7.0"})
    raise_commented(cluster)
    keys, before = cluster.write_keys(2000), ids_of(cluster)
    with loaded(cluster):
        done(cluster, "scale", "--shards", "4")
        assert even(cluster.masters())
        new = set(ids_of(cluster)) - set(before)
        done(cluster, "scale", "--shards", "3", "--yes")
        master, replica = cluster.pair()
        done(cluster, "failover", master)
        assert replica in cluster.masters()
        done(cluster, "restart")

    assert_removed(cluster, *new)
    assert ids_of(cluster) == before
    assert even(assert_whole(cluster, 3))
    assert cluster.read_keys(keys) == keys
    until(lambda: not cluster.problems(), "nothing is wrong")
