"""`scale` and `rebalance` under load: nodes join and leave, slots follow, clients notice nothing.

The tests of one module share a cluster of three shards with one replica each; each leaves it like that.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tool import SLOT_COUNT, Cluster, is_alive, kill
from outside_node import OutsideNode
from verbs import (
    assert_declared,
    assert_forgotten,
    assert_removed,
    assert_whole,
    done,
    even,
    ids_of,
    loaded,
    planned,
    raise_commented,
    reads_from,
    schema_valid,
)

from waiting import until

pytestmark = pytest.mark.integration

OUTSIDE = 150
"""Ports from here on in a cluster's block are for nodes that a test starts itself."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("scale"))
    try:
        raise_commented(made)
        made.write_keys(2000)
        yield made
    finally:
        made.close()


@pytest.fixture
def outside(cluster: Cluster, tmp_path: Path) -> Iterator[OutsideNode]:
    """A blank node of the cluster's version, with its users and a certificate of its CA."""
    node = OutsideNode(cluster, tmp_path / "outside", cluster.ports.first + OUTSIDE)
    try:
        yield node
    finally:
        node.close()


def slots_moved(phases: list[str]) -> int:
    return sum(int(match[1]) for title in phases if (match := re.fullmatch(r"move (\d+) slots", title)))


def titles(report: dict[str, object]) -> list[str]:
    return [title for title, _ in report["phases"]]  # type: ignore[attr-defined]


def test_a_shard_joins_and_leaves(cluster: Cluster) -> None:
    before = ids_of(cluster)
    plan = planned(cluster, "scale", "--shards", "4")
    with loaded(cluster):
        grown = done(cluster, "scale", "--shards", "4", "--probe")

    assert [phase["title"] for phase in plan if phase["title"].startswith("move")] == ["move 4096 slots"]
    assert slots_moved(titles(grown)) == 4096
    assert even(assert_whole(cluster, 4))
    assert {name: node_id for name, node_id in ids_of(cluster).items() if name in before} == before
    probe = grown["probe"]
    assert (probe["errors"], probe["lost"], probe["error_window_ms"]) == (0, 0, 0)
    assert min(probe["writes"], probe["reads"], probe["longest_gap_ms"], probe["seconds"]) > 0

    lines = cluster.run("audit", "--verb", "scale", "--last", "1", "--json").json()
    audit = schema_valid(lines, "audit.schema.json")["lines"]
    assert (audit[0]["event"], audit[-1]["event"], audit[-1]["result"]) == ("begin", "end", "ok")
    assert audit[0]["arguments"] == ["scale", "--shards", "4", "--probe", "--json"]
    assert {line["user"] for line in audit} == {getpass.getuser()}
    assert all(line["seconds"] is not None for line in audit[1:]), "every step has its seconds"
    assert sum("move" in line["what"] for line in audit if line["event"] == "step") == 3

    new = {name: node_id for name, node_id in ids_of(cluster).items() if name not in before}
    assert len(new) == 2
    plan = planned(cluster, "scale", "--shards", "3")
    with loaded(cluster):
        shrunk = done(cluster, "scale", "--shards", "3", "--yes")

    assert any(step["step"] == "remove_unit" for phase in plan for step in phase["steps"])
    assert slots_moved(titles(shrunk)) == 4096, "nothing moves but the slots of the one that leaves"
    assert even(assert_whole(cluster, 3))
    assert ids_of(cluster) == before
    assert_removed(cluster, *new)
    assert_forgotten(cluster, new.values())


def test_replicas_join_and_leave(cluster: Cluster) -> None:
    before = ids_of(cluster)
    with loaded(cluster):
        done(cluster, "scale", "--replicas", "2")

    assert_whole(cluster, 3, replicas=2)
    nodes = cluster.nodes()
    assert sorted(node["shard"] for node in nodes.values()) == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    new = {name: node["id"] for name, node in nodes.items() if name not in before}

    with loaded(cluster):
        done(cluster, "scale", "--replicas", "1", "--yes")

    assert_whole(cluster, 3)
    assert ids_of(cluster) == before
    assert_removed(cluster, *new)


def test_a_node_of_somebody_else_joins_as_a_replica_and_leaves_alive(cluster: Cluster, outside: OutsideNode) -> None:
    master = min(cluster.masters())
    planned(cluster, "scale", "add", outside.name, "--replica-of", master)
    assert outside.is_blank()
    with loaded(cluster):
        done(cluster, "scale", "add", outside.name, "--replica-of", master)

        node = cluster.nodes()[outside.name]
        assert (node["role"], node["shard"]) == ("replica", cluster.nodes()[master]["shard"])
        assert_whole(cluster, 3)
        planned(cluster, "scale", "remove", outside.name)
        assert done(cluster, "scale", "add", outside.name, "--replica-of", master)["phases"] == []
        done(cluster, "scale", "remove", outside.name, "--yes")

    assert is_alive(outside.process.pid)
    assert outside.is_blank()
    assert_whole(cluster, 3)
    assert_forgotten(cluster, [node["id"]])


def test_a_replica_goes_where_it_protects_most(cluster: Cluster, outside: OutsideNode) -> None:
    replica = cluster.pair()[1]
    shard = cluster.nodes()[replica]["shard"]
    done(cluster, "scale", "remove", replica, "--force", "--yes")
    assert_removed(cluster, replica)

    done(cluster, "scale", "add", outside.name)

    assert cluster.nodes()[outside.name]["shard"] == shard
    with loaded(cluster):
        done(cluster, "scale", "--replicas", "1")
        done(cluster, "scale", "remove", outside.name, "--yes", "--force")
        done(cluster, "scale")
    assert_whole(cluster, 3)


def test_a_node_of_somebody_else_joins_as_a_master_with_its_share(cluster: Cluster, outside: OutsideNode) -> None:
    with loaded(cluster):
        done(cluster, "scale", "add", outside.name, "--role", "master")

        masters = cluster.masters()
        assert masters[outside.name]["slot_count"] == SLOT_COUNT // 4
        assert even(masters)
        assert_declared(cluster, 4)
        done(cluster, "scale", "remove", outside.name, "--yes")

    assert outside.is_blank()
    assert even(assert_whole(cluster, 3))


def test_a_master_of_four_leaves_and_its_replica_protects_another(cluster: Cluster) -> None:
    with loaded(cluster):
        done(cluster, "scale", "--shards", "4")
        leaving = max(cluster.masters(), key=lambda name: int(name.partition("-")[2]))
        gone = ids_of(cluster)[leaving]
        done(cluster, "scale", "remove", leaving, "--yes")

    assert_removed(cluster, leaving)
    assert even(assert_whole(cluster, 3))
    assert len(cluster.nodes()) == 7
    done(cluster, "scale", "--replicas", "1", "--shards", "3", "--yes")
    assert len(cluster.nodes()) == 6
    assert_whole(cluster, 3)
    assert_forgotten(cluster, [gone])


def test_dead_nodes_are_removed(cluster: Cluster) -> None:
    """A replica whose host is lost, and a master whose replica has taken over since."""
    for which in (1, 0):
        name = cluster.pair()[which]
        gone, port = ids_of(cluster)[name], cluster.nodes()[name]["port"]
        cluster.await_copies()
        assert reads_from(cluster, port)
        kill(cluster.keeper_pid(name), cluster.pid(name))
        until(lambda name=name: len(cluster.masters()) == 3 and name not in cluster.masters(), "3 living masters")
        until(lambda port=port: not reads_from(cluster, port), "no reads go to the dead node")  # the load begins whole
        with loaded(cluster):
            done(cluster, "scale", "remove", name, "--yes", *(("--force",) if which else ()))
            assert_removed(cluster, name)
            assert len(cluster.nodes()) == 5
            done(cluster, "scale")  # as declared: it needs a replica again
        assert_whole(cluster, 3)
        assert len(cluster.nodes()) == 6
        assert_forgotten(cluster, [gone])


def elsewhere(cluster: Cluster) -> list[str]:
    """The masters whose shard has another number than on record."""
    shards = {name: node["shard"] for name, node in cluster.masters().items()}
    return sorted(name for name, shard in shards.items() if shard != cluster.declared(name)["shard"] + 1)


@pytest.mark.parametrize("changed", ["order", "mates"])
def test_a_dead_node_is_counted_in_the_shard_that_it_served(cluster: Cluster, changed: str) -> None:
    """A master whose replica has taken over is listed by the others as a master of nothing; what is on record of its
    shard is no longer so: shards have another order, or replicas have changed places."""
    before = ids_of(cluster)
    if changed == "order":
        for backwards in (True, False):  # of two orders one at the least is not that of the record
            for name in sorted(cluster.masters(), reverse=backwards):
                done(cluster, "rebalance", "--weight", f"{name}=1000")
            done(cluster, "rebalance")
            if elsewhere(cluster):
                break
        heir = elsewhere(cluster)[0]
    else:
        first, second = sorted(cluster.masters())[:2]
        copies = [cluster.pair_of(name) for name in (first, second)]
        for copy, master in zip(copies, (second, first), strict=True):
            with cluster.node_client(copy) as client:
                client.execute_command("CLUSTER", "REPLICATE", before[master])
        cluster.await_health()
        heir = min(cluster.masters())
    dead = cluster.pair_of(heir)
    done(cluster, "failover", heir)
    assert dead in cluster.masters()
    cluster.await_copies()
    kill(cluster.keeper_pid(dead), cluster.pid(dead))
    until(lambda: len(cluster.masters()) == 3 and dead not in cluster.masters(), "3 living masters")
    if changed == "order":
        assert cluster.nodes()[dead]["shard"] == cluster.nodes()[heir]["shard"]

    def plans_its_start_alone() -> bool:
        plan = cluster.run("scale", "--replicas", "1", "--dry-run", "--json").json()
        return [phase["title"] for phase in plan["phases"]] == ["start nodes that have data"]

    until(plans_its_start_alone, "a plan that starts it and no other, once all have heard of the takeover")

    did = done(cluster, "scale", "--replicas", "1", "--probe")

    assert titles(did)[0] == "start nodes that have data"
    assert (did["probe"]["errors"], did["probe"]["lost"]) == (0, 0)
    assert did["probe"]["seconds"] >= sum(seconds for _, seconds in did["phases"]), "it was watched all the while"
    assert not {"start the nodes", "attach the replicas"} & {*titles(did)}
    assert ids_of(cluster) == before
    assert cluster.nodes()[dead]["shard"] == cluster.nodes()[heir]["shard"]
    assert planned(cluster, "scale", "--replicas", "1") == []
    assert done(cluster, "scale", "--replicas", "1")["phases"] == []
    assert_whole(cluster, 3)


def test_slots_follow_weights_and_thresholds(cluster: Cluster) -> None:
    heavy = min(cluster.masters())
    with loaded(cluster):
        done(cluster, "rebalance", "--weight", f"{heavy}=2")
        weighted = cluster.masters()
        assert weighted[heavy]["slot_count"] == SLOT_COUNT // 2
        assert done(cluster, "rebalance", "--threshold", "60")["phases"] == []
        assert planned(cluster, "rebalance", "--weight", f"{heavy}=2") == []
        assert [phase["title"] for phase in planned(cluster, "rebalance")] == ["move 2730 slots"]
        back = done(cluster, "rebalance", "--threshold", "1")

    assert slots_moved(titles(back)) == 2730
    assert even(assert_whole(cluster, 3))
    done(cluster, "rebalance")
    assert cluster.up() == []
