"""`rebalance --roles` under load, and all verbs on an engine without atomic slot migration."""

from __future__ import annotations

from collections import Counter

import pytest
from cluster_tool import Cluster
from verbs import assert_removed, assert_whole, done, even, ids_of, loaded, planned, raise_commented

from conftest import MakeCluster

pytestmark = pytest.mark.integration


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
