"""A host comes back with another address: its nodes are known by their ids, and the cluster stays one cluster.

Hosts are loopback addresses of this machine; the operator edits the address in redisforge.yaml and runs `up`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chain import chained
from cluster_tool import Cluster, kill, raised
from load import Load
from verbs import ids_of

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with raised(tmp_path_factory.mktemp("moves"), hosts=places(31, 32, 33)) as made:
        yield made


def places(*numbers: int) -> list[dict[str, str]]:
    """Three hosts, each in a zone of its own, at 127.0.0.NUMBER."""
    return [
        {"name": f"h{index}", "address": f"127.0.0.{number}", "zone": f"zone-{index}"}
        for index, number in enumerate(numbers, 1)
    ]


def on(cluster: Cluster, host: str) -> list[str]:
    return [name for name, node in cluster.nodes().items() if node["host"] == host]


def assert_same_cluster(cluster: Cluster, ids: dict[str, str], addresses: tuple[int, ...]) -> None:
    """The nodes of before, all in one cluster, and everybody knows everybody under the new addresses."""
    assert ids_of(cluster) == ids
    nodes = cluster.nodes()
    assert {node["address"] for node in nodes.values()} == {f"127.0.0.{number}" for number in addresses}
    where = {node["id"]: f"{node['address']}:{node['port']}" for node in nodes.values()}
    for name in nodes:
        with cluster.node_client(name) as client:
            assert {
                entry["node_id"]: place for place, entry in client.execute_command("CLUSTER NODES").items()
            } == where
    assert len(cluster.masters()) == 3
    assert [problem for problem in cluster.problems() if "would be even" not in problem] == []
    assert cluster.up() == []


def test_a_host_that_runs_gets_another_address(cluster: Cluster) -> None:
    """Its nodes restart one after the other; masters hand over as they stop, and no acknowledged write is lost."""
    ids, keys = ids_of(cluster), cluster.write_keys(1000)
    cluster.await_copies()
    moving = on(cluster, "h2")
    cluster.declare(hosts=places(31, 42, 33))
    with Load(cluster.url(), keys_per_writer=200, keep_keys=False) as load:
        phases = cluster.up()
        load.await_writes(100)
    load.stop().check_nothing_lost()
    assert len([title for title in phases if "to its new address" in title]) == len(moving)
    assert_same_cluster(cluster, ids, (31, 42, 33))
    assert cluster.read_keys(keys) == keys


def test_a_host_that_was_down_comes_back_with_another_address(cluster: Cluster) -> None:
    ids, keys = ids_of(cluster), cluster.write_keys(1000, "down")
    cluster.await_copies()
    for name in on(cluster, "h3"):
        kill(cluster.keeper_pid(name), cluster.pid(name))
    cluster.declare(hosts=places(31, 42, 43))
    cluster.up()
    assert_same_cluster(cluster, ids, (31, 42, 43))
    assert cluster.read_keys(keys) == keys


def test_it_is_cut_anywhere(cluster: Cluster) -> None:
    ids, keys = ids_of(cluster), cluster.write_keys(500, "cut")
    cluster.await_copies()
    cluster.declare(hosts=places(31, 32, 43))
    cuts = chained(cluster, "up")
    assert cuts
    assert_same_cluster(cluster, ids, (31, 32, 43))
    assert cluster.read_keys(keys) == keys


def test_all_addresses_change_while_the_cluster_is_down(cluster: Cluster) -> None:
    """No entry of any nodes.conf is right any more; while it runs this is refused."""
    ids, keys = ids_of(cluster), cluster.write_keys(500, "all")
    cluster.await_copies()
    before = cluster.record()
    cluster.declare(hosts=places(51, 52, 53))
    refused = cluster.run("up")
    assert refused.status != 0
    assert "cannot all change their address" in refused.stderr
    assert "redisforge down" in refused.stderr
    assert cluster.record() == before
    assert cluster.run("down").status == 0
    cluster.up()
    assert_same_cluster(cluster, ids, (51, 52, 53))
    assert cluster.read_keys(keys) == keys
