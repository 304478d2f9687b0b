"""A changed redisforge.yaml over a running cluster, other shapes of clusters, and several of them on one machine.

Most tests share a cluster, which each leaves whole as the file then declares it; the last one takes it down.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster_tool import SLOT_COUNT, Cluster, environment, is_alive, run_command
from verbs import loaded

from conftest import MakeCluster
from waiting import until

pytestmark = pytest.mark.integration

IGNORING_SIGINT = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
"""As a shell starts background jobs in a script."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Cluster]]:
    """Two clusters of one user, raised at the same time; the first has two Envoys."""
    folder = tmp_path_factory.mktemp("change")
    one = Cluster(folder / "one", name="one", envoy={"instances": 2})
    two = Cluster(folder / "two", name="two", home=one.home)
    try:
        with ThreadPoolExecutor(2) as together:
            assert all(together.map(Cluster.up, (one, two)))
        yield one, two
    finally:
        try:
            one.close()
        finally:
            two.close()


@pytest.fixture
def cluster(both: tuple[Cluster, Cluster]) -> Cluster:
    return both[0]


def test_of_two_ups_at_once_one_succeeds_and_the_other_names_it(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    with cluster.start("up") as first:
        until((cluster.path / "journal.jsonl").exists, "the first `up` at work")
        first.send_signal(signal.SIGSTOP)  # or it may be done before the others are asked
        try:
            second = cluster.run("up")
            down = cluster.run("down", "--purge", "--yes")
        finally:
            first.send_signal(signal.SIGCONT)
        assert second.status == 8, str(second)
        assert f"(process {first.pid})" in second.stderr
        assert "`redisforge up`" in second.stderr
        assert down.status in (8, 14), str(down)
        output, errors = first.communicate(timeout=60)
        assert first.returncode == 0, f"{output}{errors}"

    assert cluster.is_healthy()
    assert cluster.status()["cluster"]["slots_ok"] == SLOT_COUNT
    assert cluster.finds_nothing_to_do()


def test_ctrl_c_or_lock_release_ends_up_with_130_and_the_next_goes_on_and_spreads_over_zones(
    make_cluster: MakeCluster,
) -> None:
    hosts = [{"name": f"host-{zone}", "address": f"127.0.0.1{n}", "zone": zone} for n, zone in enumerate("abc", 1)]
    cluster = make_cluster(hosts=hosts)
    with cluster.start("up") as process:
        until((cluster.path / "units").exists, "the first units")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        assert not is_alive(process.pid)

    with cluster.start("up", before=IGNORING_SIGINT) as process:
        until(lambda: cluster.run("lock", "status", "--json").json()["pid"] == process.pid, "it holds the lock")
        released = cluster.run("lock", "release", "--yes")
        _, errors = process.communicate(timeout=60)
        assert (released.status, process.returncode) == (0, 130), f"{released}{errors}"
        assert "Traceback" not in errors

    cluster.up()
    assert cluster.is_healthy()
    nodes = cluster.nodes()
    assert sorted(node["zone"] for node in nodes.values()) == list("aabbcc")
    for shard in (1, 2, 3):
        zones = [node["zone"] for node in nodes.values() if node["shard"] == shard]
        assert len(set(zones)) == len(zones) == 2
    assert len({node["zone"] for node in cluster.masters().values()}) == 3
    shown = cluster.run("status").stdout
    assert "ZONE" in shown
    assert "host-c" in shown
    keys = cluster.write_keys(50)
    assert cluster.read_keys(keys) == keys


def test_two_envoys_serve_the_same_cluster(cluster: Cluster) -> None:
    first = cluster.ports.first

    with cluster.client(envoy="envoy-1") as one, cluster.client(envoy="envoy-2") as two:
        one.set("shared", "by one")
        assert two.get("shared") == b"by one"
    assert f":{first + 100}/" in cluster.url()
    assert f":{first + 200}/" in cluster.run("url", "primary", "--envoy", "envoy-2").stdout
    listed = [(door["name"], door["envoy"], door["state"]) for door in cluster.status()["endpoints"]]
    assert len(listed) == 2 * len(cluster.options["endpoints"])
    assert {envoy for _, envoy, _ in listed} == {"envoy-1", "envoy-2"}
    assert {state for _, _, state in listed} == {"ok"}
    unknown = cluster.run("url", "--envoy", "envoy-3")
    assert unknown.status == 14
    assert "envoy-1, envoy-2" in unknown.stderr
    tested = cluster.run("test-cluster", "127.0.0.1", str(first + 200))
    assert tested.status == 0, str(tested)


def test_added_endpoints_are_served_after_up_at_every_envoy(cluster: Cluster) -> None:
    """The running Envoys do not have them yet, which must not keep `up` waiting for them."""
    nodes = {name: pids for name, pids in cluster.pids().items() if name.startswith("redis")}
    first = cluster.ports.first
    roles = ("readonly", "monitor", "operator")
    cluster.declare(
        endpoints={f"for-{role}": {"port": first + 104 + n, "user_role": role} for n, role in enumerate(roles)}
    )
    assert cluster.run("up", "--dry-run").stdout.count("restart envoy-") == 2

    phases = cluster.up()

    assert phases == [f"apply the changed configuration to envoy-{number}" for number in (1, 2)]
    assert {door["name"] for door in cluster.status()["endpoints"]} >= {f"for-{role}" for role in roles}
    assert cluster.is_healthy()
    assert {name: pids for name, pids in cluster.pids().items() if name.startswith("redis")} == nodes
    with cluster.client("for-operator") as client:
        assert client.set("by", "the operator")
    assert cluster.run("test-cluster").status == 0


def test_another_number_of_shards_is_refused_and_changes_nothing(cluster: Cluster) -> None:
    pids = cluster.pids()
    cluster.declare(shards=4)

    result = cluster.run("up")

    assert result.status == 9, str(result)
    assert "3 masters" in result.stderr
    assert "4 shards" in result.stderr
    assert "shards: 3" in result.stderr
    assert cluster.run("up", "--dry-run").status == 9
    cluster.declare(shards=3)
    assert cluster.pids() == pids
    assert cluster.is_healthy()


def test_ports_of_another_cluster_are_named_with_that_cluster(cluster: Cluster, make_cluster: MakeCluster) -> None:
    rival = make_cluster("rival", home=cluster.home)
    rival.declare(ports={"redis": cluster.ports.first})

    result = rival.run("up")

    assert result.status == 7, str(result)
    assert f"127.0.0.1:{cluster.ports.first}" in result.stderr
    assert "cluster 'one'" in result.stderr
    assert not rival.path.exists()
    assert cluster.is_healthy()


def test_a_changed_setting_restarts_one_node_after_the_other_and_no_client_notices(cluster: Cluster) -> None:
    keys, old = cluster.write_keys(), cluster.pids()
    cluster.declare(memory={"max": "96mb"})
    planned = cluster.run("up", "--dry-run")

    with loaded(cluster):
        phases = cluster.up()

    told = ("apply ", "hand over ", "take ", "let ")
    assert [title for title in phases if title.startswith(told) and title not in planned.stdout] == []
    assert len([title for title in phases if title.startswith("apply the changed configuration to ")]) == 6
    assert len([title for title in phases if title.startswith("hand over from ")]) == 3
    assert len([title for title in phases if title.startswith("let ") and "serve reads again" in title]) == 6
    assert cluster.read_keys(keys) == keys
    assert {node["max_memory_bytes"] for node in cluster.nodes().values()} == {96 * 1024 * 1024}
    kept = {unit for unit, pids in cluster.pids().items() if pids == old[unit]}
    assert kept == {unit for unit in old if unit.startswith("envoy-")}
    assert cluster.is_healthy()
    assert cluster.finds_nothing_to_do()


def test_running_nodes_that_would_have_to_move_are_refused(cluster: Cluster) -> None:
    keys, old = cluster.write_keys(30), cluster.ports.first
    cluster.declare(ports={"redis": old + 20})

    refused, planned = cluster.run("up"), cluster.run("up", "--dry-run")

    for result in (refused, planned):
        assert result.status == 9, str(result)
        assert f"redis-1: 127.0.0.1:{old} -> 127.0.0.1:{old + 20}" in result.stderr
    assert cluster.is_healthy()
    assert cluster.run("down").status == 0
    cluster.up()
    assert cluster.nodes()["redis-1"]["port"] == old + 20
    assert cluster.read_keys(keys) == keys
    assert cluster.is_healthy()


def test_more_replicas_in_the_file_are_added(cluster: Cluster) -> None:
    keys, ids = cluster.write_keys(), {name: node["id"] for name, node in cluster.nodes().items()}
    cluster.declare(replicas=2)
    envoy = cluster.pid("envoy-1")

    phases = cluster.up()

    assert phases[-1] == "place changed files"
    assert cluster.pid("envoy-1") == envoy
    folder = cluster.path / "units" / "envoy-1"
    for file in ("envoy.yaml", "endpoints/pubsub_app_user.yaml"):
        assert f"port_value: {cluster.declared('redis-9')['port']}" in (folder / file).read_text()
    guard = json.loads((cluster.path / "units" / "redis-1" / "unit.json").read_text())["guard"]
    assert len(guard["peers"]) == 8
    nodes = cluster.nodes()
    assert len(nodes) == 9
    assert {name: nodes[name]["id"] for name in ids} == ids
    for shard in (1, 2, 3):
        roles = sorted(node["role"] for node in nodes.values() if node["shard"] == shard)
        assert roles == ["master", "replica", "replica"]
    assert cluster.read_keys(keys) == keys
    assert cluster.is_healthy()
    assert cluster.up() == []


def test_several_clusters_on_one_machine(both: tuple[Cluster, Cluster]) -> None:
    one, two = both
    elsewhere = one.folder / "elsewhere"  # no redisforge.yaml there says which one is meant
    elsewhere.mkdir()
    unnamed = run_command("status", folder=elsewhere, variables=environment(one.home))
    here = one.run("status")

    assert here.status == 0
    assert here.stdout.startswith("one: ok")
    assert unnamed.status == 14, str(unnamed)
    assert "one, two" in unnamed.stderr
    assert "--cluster" in unnamed.stderr
    assert one.run("status", "--cluster", "three").status == 14
    assert one.status()["cluster"]["name"] == "one"
    assert two.status()["cluster"]["name"] == "two"
    keys = two.write_keys(20)
    down = one.run("down", "--cluster", "one")
    assert down.status == 0, str(down)
    assert not one.processes()
    assert two.is_healthy()
    assert two.read_keys(keys) == keys
