"""An empty master never wipes its replicas: data folders deleted under killed nodes, one way after another.

The tests share a cluster, which each leaves whole, with whatever data; those without persistence share another.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_tool import NODE_NAMES, Cluster, kill, raised
from verbs import assert_forgotten

from waiting import until

pytestmark = pytest.mark.integration

SLOW_MS = 20_000
"""A node timeout within which `up` is there before Redis has noticed anything."""
QUICK_MS = 1500


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with raised(tmp_path_factory.mktemp("guard"), handoff=False, node_timeout_ms=SLOW_MS) as made:
        yield made


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without persistence."""
    with raised(tmp_path_factory.mktemp("forgetful"), persistence={"mode": "none"}) as made:
        yield made


def told(cluster: Cluster, **options: Any) -> Cluster:
    """The cluster with these options, which can be set while it runs."""
    before, pids = cluster.declaration(), cluster.pids()
    cluster.declare(**options)
    if cluster.declaration() != before:
        applied = cluster.run("apply-config")
        assert applied.status == 0, str(applied)
        assert cluster.up() == []
        assert cluster.pids() == pids
    return cluster


@pytest.fixture
def fresh(cluster: Cluster) -> Cluster:
    """As by default, but for small things."""
    return told(cluster, handoff=True, node_timeout_ms=QUICK_MS)


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


def stop_and_empty(cluster: Cluster, unit: str, *, keep: tuple[str, ...] = ()) -> None:
    """kill -9 a node, and delete its data before its keeper starts it again (which it does after 0.1 s)."""
    kill(cluster.pid(unit))
    empty(data_of(cluster, unit), keep=keep)


def test_up_itself_promotes_the_replica_of_a_held_master(cluster: Cluster) -> None:
    """With a long node timeout Redis has not noticed yet when `up` runs."""
    told(cluster, handoff=False, node_timeout_ms=SLOW_MS)
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


@pytest.mark.parametrize("keep", [("nodes.conf",), ()], ids=["data only", "everything"])
def test_a_master_without_its_data_waits_for_its_replica_to_take_over(cluster: Cluster, keep: tuple[str, ...]) -> None:
    """By Redis's own detection; with the hand-off on, the replica takes over before the guard looks (test_handoff)."""
    told(cluster, handoff=False, node_timeout_ms=QUICK_MS)
    keys = cluster.write_keys()
    cluster.await_copies()
    master, replica = cluster.pair()
    old_id = cluster.nodes()[master]["id"]
    logged = len(log_of(cluster, master))

    stop_and_empty(cluster, master, keep=keep)

    until(lambda: replica in cluster.masters(), f"{replica} takes over")
    cluster.up()
    assert "held: " in log_of(cluster, master)[logged:]
    node = cluster.nodes()[master]
    assert node["role"] == "replica"
    assert cluster.read_keys(keys) == keys
    assert cluster.is_healthy()
    assert (node["id"] == old_id) == bool(keep)
    if not keep:
        assert_forgotten(cluster, [old_id])
    assert cluster.finds_nothing_to_do()


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
    assert fresh.finds_nothing_to_do()


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
    assert fresh.finds_nothing_to_do()


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
    assert fresh.finds_nothing_to_do()


def test_without_persistence_all_killed_comes_back_empty_and_whole(forgetful: Cluster) -> None:
    keys = forgetful.write_keys(50)
    forgetful.kill_everything()

    forgetful.up()

    assert set(forgetful.read_keys(keys).values()) == {None}
    assert forgetful.is_healthy()
    again = forgetful.write_keys(50)
    assert forgetful.read_keys(again) == again


def test_without_persistence_a_killed_master_loses_nothing_that_its_replica_has(forgetful: Cluster) -> None:
    keys = forgetful.write_keys(100)
    forgetful.await_copies()
    master, replica = forgetful.pair()
    kill(forgetful.pid(master))

    until(lambda: replica in forgetful.masters(), f"{replica} takes over")
    forgetful.up()

    assert forgetful.read_keys(keys) == keys
    assert forgetful.is_healthy()
