"""Every verb, killed (-9) after each of its steps under load: the same command finishes it, and nobody notices.

How a chain of killed runs works is told in chain.py. What is cut in the middle of a step, interrupted, or over its
budget is in test_verbs_cut.py; `rebalance --roles`, which needs hosts, in test_rolling.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chain import chained_from_the_start, finished
from cluster_tool import NODE_NAMES, SLOT_COUNT, Cluster
from outside_node import OutsideNode
from verbs import (
    assert_forgotten,
    assert_removed,
    assert_whole,
    even,
    ids_of,
    loaded,
    raise_commented,
)

from conftest import MakeCluster

pytestmark = pytest.mark.integration

OUTSIDE = 150
"""Ports from here on in a cluster's block are for nodes that a test starts itself."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("chained"))
    try:
        raise_commented(made)
        made.write_keys(2000)
        yield made
    finally:
        made.close()


def test_a_shard_more_and_a_shard_less(cluster: Cluster) -> None:
    before = ids_of(cluster)
    with loaded(cluster):
        finished(cluster, "scale", "--shards", "4", least_cuts=6)
        new = {name: node_id for name, node_id in ids_of(cluster).items() if name not in before}
        assert len(new) == 2
        assert even(assert_whole(cluster, 4))
        finished(cluster, "scale", "--shards", "3", "--yes", least_cuts=6)
    assert ids_of(cluster) == before
    assert even(assert_whole(cluster, 3))
    assert_removed(cluster, *new)
    assert_forgotten(cluster, new.values())


def test_a_replica_more_and_a_replica_less(cluster: Cluster) -> None:
    before = ids_of(cluster)
    with loaded(cluster):
        finished(cluster, "scale", "--replicas", "2", least_cuts=4)
        new = {name: node_id for name, node_id in ids_of(cluster).items() if name not in before}
        assert len(new) == 3
        assert_whole(cluster, 3, replicas=2)
        finished(cluster, "scale", "--replicas", "1", "--yes", least_cuts=6)
    left = ids_of(cluster)
    assert len(left) == 6
    gone = {**before, **new}.items() - left.items()
    assert even(assert_whole(cluster, 3))
    assert_removed(cluster, *dict(gone))
    assert_forgotten(cluster, dict(gone).values())


def test_a_node_of_somebody_else_comes_and_goes(cluster: Cluster, tmp_path: Path) -> None:
    node = OutsideNode(cluster, tmp_path / "outside", cluster.ports.first + OUTSIDE)
    try:
        with loaded(cluster):
            finished(cluster, "scale", "add", node.name, "--role", "master", least_cuts=4)
            assert even(cluster.masters())
            node_id = ids_of(cluster)[node.name]
            cuts = finished(cluster, "scale", "remove", node.name, "--yes", least_cuts=4)
        assert cuts[-1] in ("recorded", "declared")
        assert "already gone" in cluster.run("scale", "remove", node.name, "--yes").stdout
        assert node.is_blank()
        assert even(assert_whole(cluster, 3))
        assert_forgotten(cluster, [node_id])
    finally:
        node.close()


def test_weights_and_evenness(cluster: Cluster) -> None:
    heavy = min(cluster.masters())
    with loaded(cluster):
        finished(cluster, "rebalance", "--weight", f"{heavy}=2", least_cuts=1)
        assert cluster.masters()[heavy]["slot_count"] == SLOT_COUNT // 2
        finished(cluster, "rebalance", least_cuts=1)
    assert even(assert_whole(cluster, 3))


def test_a_failover(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    with loaded(cluster):
        finished(cluster, "failover", master, "--to", replica, least_cuts=1)
    assert replica in assert_whole(cluster, 3)


def test_a_restart(cluster: Cluster) -> None:
    """It starts over with every run; so the first is killed after one step, the next after two, and so on."""
    master, replica = cluster.pair()
    before = cluster.pids()
    with loaded(cluster):
        cuts = chained_from_the_start(cluster, "restart", master, replica)
    assert len(cuts) >= 5, cuts
    after = cluster.pids()
    assert {name for name in after if after[name] != before[name]} == {master, replica}
    assert_whole(cluster, 3)


def test_changed_settings(cluster: Cluster) -> None:
    """First one that the nodes can be told, then one that needs a restart of each."""
    file, before = cluster.folder / "redisforge.yaml", cluster.pids()
    with loaded(cluster):
        file.write_text(cluster.declaration().replace("max: 64mb", "max: 96mb"))
        finished(cluster, "apply-config", least_cuts=6)
        assert cluster.pids() == before
        file.write_text(f"{cluster.declaration()}tcp_backlog: 256\n")
        finished(cluster, "apply-config", least_cuts=12)
    for name, pids in cluster.pids().items():
        assert (pids != before[name]) == name.startswith("redis-")
        if name.startswith("redis-"):
            with cluster.node_client(name) as client:
                settings = client.config_get("maxmemory", "tcp-backlog")
            assert settings == {"maxmemory": str(96 << 20), "tcp-backlog": "256"}
    assert_whole(cluster, 3)
    assert cluster.up() == []


def test_an_upgrade(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(engine={"version": "7.0"})
    raise_commented(cluster)
    keys = cluster.write_keys(2000)
    with loaded(cluster):
        finished(cluster, "upgrade", "--redis", "8.6", "--yes", least_cuts=15)
    for name in NODE_NAMES:
        with cluster.node_client(name) as client:
            assert client.info("server")["redis_version"].startswith("8.6.")
    assert cluster.read_keys(keys) == keys
    assert_whole(cluster, 3)
    assert cluster.up() == []
