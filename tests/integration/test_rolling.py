"""`rebalance --roles` under load, and all verbs on an engine without atomic slot migration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from chain import finished
from cluster_tool import Cluster, masters_in
from verbs import assert_removed, assert_whole, done, even, ids_of, loaded, planned, raise_commented

from conftest import MakeCluster

pytestmark = pytest.mark.integration


def masters_by(cluster: Cluster, field: str) -> list[int]:
    """How many masters each zone (or host) has, the most first."""
    return sorted(Counter(node[field] for node in cluster.masters().values()).values(), reverse=True)


@pytest.fixture(scope="module")
def zoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three hosts, each in a zone of its own."""
    hosts = [{"name": f"host-{zone}", "address": f"127.0.0.1{n}", "zone": zone} for n, zone in enumerate("abc", 1)]
    made = Cluster(tmp_path_factory.mktemp("zoned"), hosts=hosts)
    try:
        raise_commented(made)
        yield made
    finally:
        made.close()


def crowd(cluster: Cluster) -> None:
    """Hand a master's role over to a zone that has a master."""
    assert masters_by(cluster, "zone") == [1, 1, 1]
    nodes = cluster.nodes()
    crowded = next(node["zone"] for node in nodes.values() if node["role"] == "replica")
    master = next(
        name
        for name, node in masters_in(nodes).items()
        if any(other["shard"] == node["shard"] and other["zone"] == crowded for n, other in nodes.items() if n != name)
    )
    done(cluster, "failover", master)
    assert masters_by(cluster, "zone") == [2, 1]


def test_crowded_masters_are_spread_over_zones_again(zoned: Cluster) -> None:
    cluster = zoned
    crowd(cluster)
    assert any("masters" in problem for problem in cluster.problems()), cluster.problems()

    plan = planned(cluster, "rebalance", "--roles")
    assert {step["step"] for phase in plan for step in phase["steps"]} == {"promote"}
    with loaded(cluster):
        done(cluster, "rebalance", "--roles")

    assert masters_by(cluster, "zone") == masters_by(cluster, "host") == [1, 1, 1]
    assert_whole(cluster, 3)
    assert done(cluster, "rebalance", "--roles")["phases"] == []


def test_spreading_them_is_finished_after_any_kill(zoned: Cluster) -> None:
    crowd(zoned)
    with loaded(zoned):
        finished(zoned, "rebalance", "--roles", least_cuts=1)
    assert_whole(zoned, 3)
    assert masters_by(zoned, "zone") == [1, 1, 1]
    assert zoned.up() == []


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
    assert cluster.up() == []
