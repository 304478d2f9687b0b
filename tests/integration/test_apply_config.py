"""`apply-config` under load: what can be set is set, the rest goes by a rolling restart, and clients notice nothing.

The tests share a cluster, and each leaves it as its file then declares it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster_tool import NODE_NAMES, Cluster, raised
from load import Load

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with raised(tmp_path_factory.mktemp("apply")) as made:
        yield made


def redis_pids(cluster: Cluster) -> dict[str, int]:
    return {name: cluster.pid(name) for name in NODE_NAMES}


def running(cluster: Cluster, directive: str) -> dict[str, str]:
    """The value of a directive on every node."""
    found: dict[str, str] = {}
    for name in NODE_NAMES:
        with cluster.node_client(name) as client:
            found[name] = client.config_get(directive)[directive]
    return found


def apply(cluster: Cluster, *arguments: str) -> dict[str, object]:
    result = cluster.run("apply-config", "--json", *arguments)
    assert result.status == 0, str(result)
    return result.json()


def test_a_setting_that_somebody_changed_by_hand_is_put_right(cluster: Cluster) -> None:
    with cluster.node_client("redis-2") as client:
        client.config_set("slowlog-max-len", 7)
    report = apply(cluster)
    assert [title for title, _ in report["phases"]] == ["tell redis-2 its settings"]  # type: ignore[attr-defined]
    assert running(cluster, "slowlog-max-len")["redis-2"] == "1024"


def test_a_value_that_the_engine_does_not_accept_changes_nothing(cluster: Cluster) -> None:
    memory, before = cluster.options["memory"], running(cluster, "maxmemory")
    cluster.declare(redis_conf={"hz": "often"}, memory={"max": "104mb"})
    result = cluster.run("apply-config")
    assert result.status == 3, str(result)
    assert running(cluster, "maxmemory") == before
    assert str(104 << 20) not in before.values()
    cluster.declare(redis_conf=None, memory=memory)
    assert cluster.finds_nothing_to_do()


def test_other_changes_of_the_file_are_left_to_their_verbs(cluster: Cluster) -> None:
    cluster.declare(shards=4, memory={"max": "88mb"})
    report = apply(cluster)
    assert "shards differs too and is left as it is: `redisforge scale`" in str(report["notices"])
    assert len(cluster.masters()) == 3
    assert set(running(cluster, "maxmemory").values()) == {str(88 << 20)}
    cluster.declare(shards=3)
    assert cluster.finds_nothing_to_do()


def test_no_secret_is_shown(cluster: Cluster) -> None:
    cluster.declare(memory={"max": "72mb"})
    shown = cluster.run("apply-config", "--dry-run", "--json").shown + cluster.run("apply-config").shown
    assert not [name for name, password in cluster.passwords().items() if password in shown]


def test_what_can_be_set_is_set_without_a_restart_and_stays_after_one(cluster: Cluster) -> None:
    before = redis_pids(cluster)
    cluster.declare(memory={"max": "96mb"}, redis_conf={"hz": 20, "notify-keyspace-events": "KEx"})
    planned = cluster.run("apply-config", "--dry-run")
    with Load(cluster.url("primary"), reader_url=cluster.url("reader")) as load:
        report = apply(cluster)
    load.stop().check()

    assert "redis-1: CONFIG SET" in planned.stdout
    assert "restart redis-" not in planned.stdout
    assert "maxmemory: set on the running nodes" in str(report["notices"])
    assert set(running(cluster, "maxmemory").values()) == {str(96 << 20)}
    assert set(running(cluster, "hz").values()) == {"20"}
    assert redis_pids(cluster) == before
    assert cluster.finds_nothing_to_do()
    assert apply(cluster)["phases"] == []
    assert cluster.run("restart", "redis-4").status == 0
    assert running(cluster, "hz")["redis-4"] == "20"
    assert cluster.finds_nothing_to_do()

    cluster.declare(redis_conf=None)  # what is no longer written falls back to the engine's default
    after = redis_pids(cluster)
    apply(cluster)
    assert set(running(cluster, "hz").values()) == {"10"}
    assert set(running(cluster, "notify-keyspace-events").values()) == {""}
    assert redis_pids(cluster) == after
    assert cluster.finds_nothing_to_do()


def test_what_only_a_start_brings_restarts_one_node_after_the_other(cluster: Cluster) -> None:
    before = redis_pids(cluster)
    cluster.declare(tcp_backlog=256, memory={"max": "80mb"})
    with Load(cluster.url("primary"), reader_url=cluster.url("reader")) as load:
        report = apply(cluster)
    load.stop().check()

    assert "tcp-backlog: by a restart" in str(report["notices"])
    assert "maxmemory: comes with the restart" in str(report["notices"])
    assert not {name for name, pid in redis_pids(cluster).items() if pid == before[name]}
    assert set(running(cluster, "tcp-backlog").values()) == {"256"}
    assert set(running(cluster, "maxmemory").values()) == {str(80 << 20)}
    assert cluster.up() == []
