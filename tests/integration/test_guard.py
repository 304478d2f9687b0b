"""An empty master never wipes its replicas: data folders deleted under killed nodes, one way after another."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from cluster_tool import NODE_NAMES, Cluster, kill, until

from conftest import MakeCluster

pytestmark = pytest.mark.integration

GOSSIP_S = 4.0
"""More than two node timeouts: by then gossip would have brought a forgotten identity back."""


def data_of(cluster: Cluster, unit: str) -> Path:
    return cluster.path / "units" / unit / "data"


def empty(folder: Path, *, keep: tuple[str, ...] = ()) -> None:
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def log_of(cluster: Cluster, unit: str) -> str:
    return (cluster.path / "units" / unit / "log").read_text(errors="replace")


def listed_ids(cluster: Cluster, unit: str) -> set[str]:
    with cluster.node_client(unit) as client:
        return {entry["node_id"] for entry in client.execute_command("CLUSTER NODES").values()}


def stop_and_empty(cluster: Cluster, unit: str, *, keep: tuple[str, ...] = ()) -> None:
    """kill -9 a node, and delete its data before its keeper starts it again (which it does after 0.1 s)."""
    kill(cluster.pid(unit))
    empty(data_of(cluster, unit), keep=keep)


@pytest.mark.parametrize("keep", [("nodes.conf",), ()], ids=["data only", "everything"])
def test_a_master_without_its_data_waits_for_its_replica_to_take_over(
    make_cluster: MakeCluster, keep: tuple[str, ...]
) -> None:
    """By Redis's own detection; with the hand-off on, the replica takes over before the guard looks (test_handoff)."""
    fresh = make_cluster(handoff=False)
    fresh.up()
    keys = fresh.write_keys()
    fresh.await_copies()
    master, replica = fresh.pair()
    old_id = fresh.nodes()[master]["id"]

    stop_and_empty(fresh, master, keep=keep)

    until(lambda: replica in fresh.masters(), f"{replica} takes over")
    fresh.up()
    assert "held: " in log_of(fresh, master)
    assert fresh.nodes()[master]["role"] == "replica"
    assert fresh.read_keys(keys) == keys
    assert fresh.is_healthy()
    new_id = fresh.nodes()[master]["id"]
    assert (new_id == old_id) == bool(keep)
    if not keep:
        deadline = time.monotonic() + GOSSIP_S
        while time.monotonic() < deadline:
            assert not [unit for unit in fresh.nodes() if old_id in listed_ids(fresh, unit)]
    assert fresh.up() == []


def test_up_itself_promotes_the_replica_of_a_held_master(make_cluster: MakeCluster) -> None:
    """With a long node timeout Redis has not noticed yet when `up` runs."""
    cluster = make_cluster(node_timeout_ms=20000, handoff=False)
    cluster.up()
    keys = cluster.write_keys()
    cluster.await_copies()
    master, replica = cluster.pair()
    stop_and_empty(cluster, master)
    until(lambda: cluster.state(master)["state"] == "held", f"{master} is held")
    assert any(problem.startswith(f"{master}: held back") for problem in cluster.problems())

    phases = cluster.up()

    assert "let replicas take over" in phases
    assert replica in cluster.masters()
    assert cluster.nodes()[master]["role"] == "replica"
    assert cluster.read_keys(keys) == keys
    assert cluster.is_healthy()


def test_all_killed_and_one_masters_folder_deleted_loses_no_key(fresh: Cluster) -> None:
    keys = fresh.write_keys()
    fresh.await_copies()
    master, replica = fresh.pair()
    fresh.kill_everything()
    shutil.rmtree(data_of(fresh, master))

    fresh.up()

    assert replica in fresh.masters()
    assert fresh.read_keys(keys) == keys
    assert fresh.is_healthy()
    assert fresh.up() == []


def test_all_killed_and_one_masters_data_deleted_but_not_its_identity(fresh: Cluster) -> None:
    keys = fresh.write_keys()
    fresh.await_copies()
    master, replica = fresh.pair()
    fresh.kill_everything()
    empty(data_of(fresh, master), keep=("nodes.conf",))

    fresh.up()

    assert replica in fresh.masters()
    assert fresh.read_keys(keys) == keys
    assert fresh.is_healthy()


def test_a_shard_without_any_copy_is_refused_until_its_loss_is_accepted(fresh: Cluster) -> None:
    keys = fresh.write_keys()
    fresh.await_copies()
    master, replica = fresh.pair()
    slots = fresh.nodes()[master]["slots"]
    fresh.kill_everything()
    for unit in (master, replica):
        shutil.rmtree(data_of(fresh, unit))

    refused = fresh.run("up")

    assert refused.status == 9, str(refused)
    assert slots in refused.stderr
    assert f"--accept-data-loss {master}" in refused.stderr
    assert fresh.run("up").status == 9
    fresh.up("--accept-data-loss", master)
    left = {key: value for key, value in fresh.read_keys(keys).items() if value}
    assert left == {key: keys[key] for key in left}
    assert len(keys) / 2 < len(left) < len(keys)
    assert fresh.is_healthy()
    assert fresh.up() == []


def test_a_shard_lost_under_living_keepers_is_refused_too(fresh: Cluster) -> None:
    fresh.write_keys()
    fresh.await_copies()
    master, replica = fresh.pair()
    slots = fresh.nodes()[master]["slots"]
    kill(fresh.pid(replica), fresh.pid(master))
    for unit in (master, replica):
        empty(data_of(fresh, unit))
    until(lambda: fresh.state(master)["state"] == "held", f"{master} is held")

    refused = fresh.run("up")

    assert refused.status == 9, str(refused)
    assert slots in refused.stderr
    fresh.up("--accept-data-loss", master)
    assert fresh.is_healthy()


@pytest.mark.parametrize("end", ["down", "killed"])
def test_a_data_disk_that_is_not_mounted_is_no_new_cluster(fresh: Cluster, tmp_path: Path, end: str) -> None:
    keys, ids = fresh.write_keys(), {name: node["id"] for name, node in fresh.nodes().items()}
    if end == "down":
        assert fresh.run("down").status == 0
    else:
        fresh.await_copies()
        fresh.kill_everything()
    for unit in NODE_NAMES:
        data_of(fresh, unit).rename(tmp_path / unit)

    for arguments in (("up",), ("up", "--dry-run"), ("up", "--accept-data-loss", "redis-1"), ("up",)):
        refused = fresh.run(*arguments)
        assert refused.status == 9, str(refused)
        assert "mount the disk" in refused.stderr
        assert "redisforge down --purge" in refused.stderr
        assert not fresh.processes()

    for unit in NODE_NAMES:
        (tmp_path / unit).rename(data_of(fresh, unit))
    fresh.up()
    assert {name: node["id"] for name, node in fresh.nodes().items()} == ids
    assert fresh.read_keys(keys) == keys
    assert fresh.is_healthy()


def test_every_identity_deleted_is_refused_and_can_be_given_up(fresh: Cluster) -> None:
    """Only nodes.conf, under living keepers, which hold their nodes back."""
    keys = fresh.write_keys(50)
    fresh.await_copies()
    kill(*(fresh.pid(unit) for unit in NODE_NAMES))
    for unit in NODE_NAMES:
        (data_of(fresh, unit) / "nodes.conf").unlink()
    until(lambda: all(fresh.state(unit)["state"] == "held" for unit in NODE_NAMES), "all are held")

    refused = fresh.run("up")

    assert refused.status == 9, str(refused)
    assert all(f"--accept-data-loss {unit}" in refused.stderr for unit in NODE_NAMES)
    assert all(fresh.state(unit)["state"] == "held" for unit in NODE_NAMES)
    for unit in NODE_NAMES:
        empty(data_of(fresh, unit))
    fresh.up(*(word for unit in NODE_NAMES for word in ("--accept-data-loss", unit)))
    assert set(fresh.read_keys(keys).values()) == {None}
    assert fresh.is_healthy()
    assert fresh.up() == []


def test_without_persistence_all_killed_comes_back_empty_and_whole(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(persistence={"mode": "none"})
    cluster.up()
    keys = cluster.write_keys(50)
    cluster.kill_everything()

    cluster.up()

    assert set(cluster.read_keys(keys).values()) == {None}
    assert cluster.is_healthy()
    again = cluster.write_keys(50)
    assert cluster.read_keys(again) == again


def test_without_persistence_a_killed_master_loses_nothing_that_its_replica_has(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(persistence={"mode": "none"})
    cluster.up()
    keys = cluster.write_keys(100)
    cluster.await_copies()
    master, replica = cluster.pair()
    kill(cluster.pid(master))

    until(lambda: replica in cluster.masters(), f"{replica} takes over")
    cluster.up()

    assert cluster.read_keys(keys) == keys
    assert cluster.is_healthy()
