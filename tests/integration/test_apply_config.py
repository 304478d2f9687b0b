"""`apply-config` under load: what can be set is set, the rest goes by a rolling restart, and clients notice nothing."""

from __future__ import annotations

import pytest
from cluster_tool import NODE_NAMES, Cluster
from load import Load

pytestmark = pytest.mark.integration


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


def test_what_can_be_set_is_set_without_a_restart_and_stays_after_one(fresh: Cluster) -> None:
    before = redis_pids(fresh)
    fresh.declare(memory={"max": "96mb"}, redis_conf={"hz": 20, "notify-keyspace-events": "KEx"})
    planned = fresh.run("apply-config", "--dry-run")
    with Load(fresh.url("primary"), reader_url=fresh.url("reader")) as load:
        report = apply(fresh)
    load.stop().check()

    assert "redis-1: CONFIG SET" in planned.stdout
    assert "restart redis-" not in planned.stdout
    assert "maxmemory: set on the running nodes" in str(report["notices"])
    assert set(running(fresh, "maxmemory").values()) == {str(96 << 20)}
    assert set(running(fresh, "hz").values()) == {"20"}
    assert redis_pids(fresh) == before
    assert fresh.up() == []
    assert apply(fresh)["phases"] == []
    assert fresh.run("restart", "redis-4").status == 0
    assert running(fresh, "hz")["redis-4"] == "20"
    assert fresh.up() == []

    fresh.declare(redis_conf=None)  # what is no longer written falls back to the engine's default
    after = redis_pids(fresh)
    apply(fresh)
    assert set(running(fresh, "hz").values()) == {"10"}
    assert set(running(fresh, "notify-keyspace-events").values()) == {""}
    assert redis_pids(fresh) == after
    assert fresh.up() == []


def test_what_only_a_start_brings_restarts_one_node_after_the_other(fresh: Cluster) -> None:
    before = redis_pids(fresh)
    fresh.declare(tcp_backlog=256, memory={"max": "80mb"})
    with Load(fresh.url("primary"), reader_url=fresh.url("reader")) as load:
        report = apply(fresh)
    load.stop().check()

    assert "tcp-backlog: by a restart" in str(report["notices"])
    assert "maxmemory: comes with the restart" in str(report["notices"])
    assert not {name for name, pid in redis_pids(fresh).items() if pid == before[name]}
    assert set(running(fresh, "tcp-backlog").values()) == {"256"}
    assert set(running(fresh, "maxmemory").values()) == {str(80 << 20)}
    assert fresh.up() == []


def test_a_setting_that_somebody_changed_by_hand_is_put_right(fresh: Cluster) -> None:
    with fresh.node_client("redis-2") as client:
        client.config_set("slowlog-max-len", 7)
    report = apply(fresh)
    assert [title for title, _ in report["phases"]] == ["tell redis-2 its settings"]  # type: ignore[attr-defined]
    assert running(fresh, "slowlog-max-len")["redis-2"] == "1024"


def test_a_value_that_the_engine_does_not_accept_changes_nothing(fresh: Cluster) -> None:
    fresh.declare(redis_conf={"hz": "often"}, memory={"max": "96mb"})
    result = fresh.run("apply-config")
    assert result.status == 3, str(result)
    assert set(running(fresh, "maxmemory").values()) == {str(64 << 20)}


def test_other_changes_of_the_file_are_left_to_their_verbs(fresh: Cluster) -> None:
    fresh.declare(shards=4, memory={"max": "96mb"})
    report = apply(fresh)
    assert "shards differs too and is left as it is: `redisforge scale`" in str(report["notices"])
    assert len(fresh.masters()) == 3
    assert set(running(fresh, "maxmemory").values()) == {str(96 << 20)}


def test_no_secret_is_shown(fresh: Cluster) -> None:
    fresh.declare(memory={"max": "96mb"})
    shown = fresh.run("apply-config", "--dry-run", "--json").shown + fresh.run("apply-config").shown
    assert not [name for name, password in fresh.passwords().items() if password in shown]
