"""What the verbs refuse: each with its exit status, what is wrong and the way out, and nothing is changed.

What needs no special node or state is in test_failover_restart.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_tool import ADDRESS, Cluster, kill
from outside_node import OutsideNode
from verbs import done, journal_of, open_slots, picture, raise_commented

from conftest import MakeCluster
from redisforge.fleet.binaries import cache_folder, ensure_engine
from redisforge.model.topology import Engine
from waiting import until

pytestmark = pytest.mark.integration

OUTSIDE = 150
"""Ports from here on in a cluster's block are for nodes that a test starts itself."""
USAGE, LOCKED, REFUSED, UNREACHABLE, UNKNOWN, INTERRUPTED = 2, 8, 9, 12, 14, 130
MakeNode = Callable[..., OutsideNode]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("refused"))
    try:
        raise_commented(made)
        yield made
    finally:
        made.close()


@pytest.fixture
def make_node(cluster: Cluster, tmp_path: Path) -> Iterator[MakeNode]:
    """Start nodes of nobody: `make_node(**what_is_wrong_with_it)`."""
    nodes: list[OutsideNode] = []

    def make(*, server: str = "", own_ca: bool = False, own_passwords: bool = False) -> OutsideNode:
        port = cluster.ports.first + OUTSIDE + 2 * len(nodes)
        folder = tmp_path / str(port)
        node = OutsideNode(cluster, folder, port, server=server, own_ca=own_ca, own_passwords=own_passwords)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.close()


def assert_refused(cluster: Cluster, *arguments: str, status: int, says: tuple[str, ...], steps_out: str) -> None:
    """The verb ends with `status`, says what is wrong and a way out, and nothing has changed; so does its dry run."""
    before = picture(cluster)
    for words in (arguments, (*arguments, "--dry-run")):
        result = cluster.run(*words)
        assert result.status == status, str(result)
        error, separator, way_out = result.stderr.partition("next:")
        assert separator, str(result)
        assert [text for text in says if text not in error] == [], str(result)
        assert steps_out in way_out, str(result)
        assert "Traceback" not in result.stderr
        assert picture(cluster) == before


def test_who_would_be_refused_is_not_asked_and_a_no_changes_nothing(cluster: Cluster) -> None:
    """The plan is shown before the question."""
    before = picture(cluster)
    unknown = cluster.run("scale", "remove", "redis-77", answer="y\n")
    assert unknown.status == UNKNOWN, str(unknown)
    assert "Take redis-77 out" not in unknown.stdout + unknown.stderr
    replica = cluster.pair()[1]
    for words in (("scale", "remove", replica, "--force"), ("scale", "--replicas", "0", "--force")):
        no = cluster.run(*words, answer="n\n")
        assert no.status not in (0, 1), str(no)
        plan, question, _ = no.stdout.partition("Take ")
        assert question, str(no)
        assert f"stop and delete {replica}" in plan
        assert picture(cluster) == before


def test_the_last_replicas_of_all_shards(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    says = ("the last replicas of 3 shards would be deleted", f"{replica} of {master} (", "one copy only")
    assert_refused(cluster, "scale", "--replicas", "0", "--yes", status=REFUSED, says=says, steps_out="--force")
    before = picture(cluster)
    no = cluster.run("scale", "--replicas", "0", "--force", answer="n\n")
    assert no.status == INTERRUPTED, str(no)
    replicas = ", ".join(sorted(set(cluster.nodes()) - set(cluster.masters())))
    assert f"delete 3 nodes ({replicas}) with all data on them?" in no.stdout
    assert picture(cluster) == before


# --- the node that is to be added ---


def test_a_node_with_slots_and_keys(cluster: Cluster, make_node: MakeNode) -> None:
    node = make_node()
    node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    until(lambda: node.ask("CLUSTER INFO")["cluster_state"] == "ok", "the node serves")
    node.ask("SET", "somebody's", "data")

    says = ("not empty", node.name, "owns 16384 slots")
    assert_refused(cluster, "scale", "add", node.name, status=REFUSED, says=says, steps_out="CLUSTER RESET HARD")

    assert node.ask("GET", "somebody's") == "data"
    assert node.ask("CLUSTER INFO")["cluster_known_nodes"] == "1"


def test_a_node_of_another_cluster(cluster: Cluster, make_node: MakeNode) -> None:
    node, other = make_node(), make_node()
    node.ask("CLUSTER", "MEET", ADDRESS, other.port, other.port + 1)
    until(lambda: node.ask("CLUSTER INFO")["cluster_known_nodes"] == "2", "they know each other")

    says = ("belongs to another cluster", node.name, "knows 1 other node")
    assert_refused(cluster, "scale", "add", node.name, status=REFUSED, says=says, steps_out="give another node")
    assert other.ask("CLUSTER INFO")["cluster_known_nodes"] == "2"


def test_a_node_of_another_version(cluster: Cluster, make_node: MakeNode) -> None:
    engine = ensure_engine(Engine(version="7.0"), cache_folder(os.environ), print, os.environ)
    node = make_node(server=engine.server_path)
    says = ("another version", node.name, "it runs 7.0.", "8.6.")
    assert_refused(cluster, "scale", "add", node.name, status=REFUSED, says=says, steps_out="cluster's version")
    assert node.is_blank()


def test_a_node_with_other_passwords(cluster: Cluster, make_node: MakeNode) -> None:
    node = make_node(own_passwords=True)
    says = ("cannot be used", node.name, "WRONGPASS")
    assert_refused(cluster, "scale", "add", node.name, status=UNREACHABLE, says=says, steps_out="users.acl")


def test_a_node_with_a_certificate_of_another_ca(cluster: Cluster, make_node: MakeNode) -> None:
    node = make_node(own_ca=True)
    says = ("cannot be used", node.name, "certificate")
    assert_refused(cluster, "scale", "add", node.name, status=UNREACHABLE, says=says, steps_out="this cluster's CA")
    assert node.is_blank()


def test_a_replica_of_a_replica_or_of_nobody(cluster: Cluster, make_node: MakeNode) -> None:
    node, replica = make_node(), cluster.pair()[1]
    assert_refused(
        cluster, "scale", "add", node.name, "--replica-of", replica, status=USAGE,
        says=(f"{replica} is no master with slots", "a replica of a replica"), steps_out="name a master",
    )  # fmt: skip
    assert_refused(
        cluster, "scale", "add", node.name, "--replica-of", "redis-77", status=UNKNOWN,
        says=("no node called 'redis-77'",), steps_out="redis-1, redis-2",
    )  # fmt: skip
    assert node.is_blank()


# --- names, weights ---


@pytest.mark.parametrize(
    ("arguments", "status", "says", "steps_out"),
    [
        (("scale", "remove", "redis-", "--yes"), USAGE, ("means several nodes", "redis-1 ("), "write more"),
        (("restart", "redis"), USAGE, ("means several nodes",), "write more"),
        (("rebalance", "--weight", "redis-1=much"), USAGE, ("not a weight: 'redis-1=much'",), "NODE=W"),
        (("rebalance", "--weight", "redis-1=-1"), USAGE, ("weight",), ""),
        (("rebalance", "--weight", "redis-1=nan"), USAGE, ("weight",), ""),
        (("rebalance", "--weight", "redis-1=inf"), USAGE, ("weight",), ""),
        (("rebalance", "--weight", "redis-4=2"), USAGE, ("redis-4 is a replica now",), "its master"),
        (("scale", "--shards", "4", "--max-rate", "-5mb"), USAGE, ("not a size",), "kb, mb or gb"),
        (("scale", "--shards", "4", "--max-key-size", "huge"), USAGE, ("not a size",), "kb, mb or gb"),
        (("failover", "redis-4x"), UNKNOWN, ("no node called 'redis-4x'", "main"), "redis-1, redis-2"),
    ],
)
def test_words_that_mean_nothing(
    cluster: Cluster, arguments: tuple[str, ...], status: int, says: tuple[str, ...], steps_out: str
) -> None:
    assert_refused(cluster, *arguments, status=status, says=says, steps_out=steps_out)


def test_weights_that_sum_to_nothing(cluster: Cluster) -> None:
    words = [word for name in cluster.masters() for word in ("--weight", f"{name}=0")]
    says = ("would own no slot with a weight of 0",)
    assert_refused(cluster, "rebalance", *words, status=USAGE, says=says, steps_out="scale remove NODE")


# --- the state of the cluster ---


def test_a_scale_while_another_verb_runs(cluster: Cluster) -> None:
    with cluster.start("restart") as holder:
        until(lambda: len(journal_of(cluster, holder.pid)) > 1, "the first step of the restart")
        result = cluster.run("scale", "--shards", "4")
        holder.send_signal(signal.SIGINT)
        holder.communicate(timeout=60)
    assert result.status == LOCKED, str(result)
    assert "restart" in result.stderr
    assert str(holder.pid) in result.stderr
    assert "redisforge lock status" in result.stderr
    assert len(cluster.nodes()) == 6
    done(cluster, "restart", "redis-4")  # and the replica that the first one drained is read again
    assert cluster.is_healthy()


def test_the_only_copy_of_a_shard_may_not_leave(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(shards=4, replicas=0)
    cluster.up()
    kill(cluster.keeper_pid("redis-1"), cluster.pid("redis-1"))

    says = ("redis-1 does not answer and owns slots", "slots 0-4095", "lose what only it holds")
    assert_refused(cluster, "scale", "remove", "redis-1", "--yes", status=REFUSED, says=says, steps_out="start it")
    assert_refused(
        cluster, "scale", "remove", "redis-1", "--force", "--yes", status=REFUSED, says=says, steps_out="data folder"
    )  # fmt: skip
    cluster.up()
    assert cluster.is_healthy()


def test_a_cluster_in_the_state_fail(make_cluster: MakeCluster) -> None:
    """Two of three masters are lost, so that no majority can vote: only an operator can help."""
    cluster = make_cluster()
    cluster.up()
    keys = cluster.write_keys()
    cluster.await_copies()
    lost = ("redis-1", "redis-2")
    heirs = [cluster.pair_of(name) for name in lost]
    kill(*(cluster.keeper_pid(name) for name in lost), *(cluster.pid(name) for name in lost))

    def fails() -> bool:
        with cluster.node_client("redis-3") as client:
            return client.execute_command("CLUSTER INFO")["cluster_state"] == "fail"

    until(fails, "the state is fail")
    says = ("the cluster is in the state fail", "10922 slots: 0-10921", "redis-1: ", "redis-2: ")
    for arguments in (("scale", "--shards", "4"), ("rebalance",), ("scale", "remove", "redis-6", "--force", "--yes")):
        assert_refused(cluster, *arguments, status=REFUSED, says=says, steps_out="`redisforge up`")
    assert_refused(
        cluster, "failover", "redis-1", status=REFUSED, says=("redis-1 does not answer",), steps_out="--force"
    )  # fmt: skip

    for name in lost:
        done(cluster, "failover", name, "--takeover", "--yes")

    assert set(cluster.masters()) == {"redis-3", *heirs}
    cluster.up()
    cluster.await_health()
    assert cluster.read_keys(keys) == keys
    assert open_slots(cluster) == []


def test_a_cluster_that_is_stopped(make_cluster: MakeCluster) -> None:
    """Nothing waits for what does not run, and nothing is begun."""
    cluster = make_cluster()
    cluster.up()
    assert cluster.run("down").status == 0
    before = (cluster.path / "topology.json").read_bytes()
    for words in (
        ("upgrade", "--redis", "8.6", "--yes"),
        ("restart",),
        ("apply-config",),
        ("failover", "redis-1"),
        ("failover", "redis-1", "--takeover", "--yes"),
        ("rebalance",),
        ("rebalance", "--roles"),
    ):
        for command in (words, (*words, "--dry-run")):
            result = cluster.run(*command)
            assert result.status == UNREACHABLE, str(result)
            assert "no node of the cluster answers" in result.stderr, str(result)
            assert "`redisforge up` starts what does not run" in result.stderr, str(result)
    assert (cluster.path / "topology.json").read_bytes() == before
    cluster.up()
    assert cluster.is_healthy()


# --- zones ---


def test_a_removal_that_leaves_most_masters_in_one_zone(make_cluster: MakeCluster) -> None:
    """Four masters in three zones: two of them share one. Without any of the other two, its loss would be the end."""
    hosts = [{"name": f"host-{zone}", "address": f"127.0.0.1{n}", "zone": zone} for n, zone in enumerate("abc", 1)]
    cluster = make_cluster(hosts=hosts, shards=4, replicas=1)
    cluster.up()
    zones: dict[str, list[str]] = {}
    for name, node in cluster.masters().items():
        zones.setdefault(node["zone"], []).append(name)
    crowded = next(zone for zone, names in zones.items() if len(names) == 2)
    assert sorted(map(len, zones.values())) == [1, 1, 2]

    for lonely in (names[0] for zone, names in zones.items() if zone != crowded):
        says = (f"without {lonely} most masters would stand in one zone", f"zone {crowded}: 2 of 3", "no majority")
        command = ("scale", "remove", lonely, "--force", "--yes")
        assert_refused(cluster, *command, status=REFUSED, says=says, steps_out="redisforge rebalance --roles")
    allowed = cluster.run("scale", "remove", zones[crowded][0], "--force", "--dry-run")
    assert allowed.status == 0, str(allowed)
