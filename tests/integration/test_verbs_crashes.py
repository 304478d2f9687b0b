"""Nodes are killed (-9) while a verb runs: their keepers help, the verb or its repetition gets there, nothing is lost.

Which node may die at which moment is tried out in tests/unit/plan (test_nodes_crash_meanwhile); here it really happens.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cluster_tool import Cluster, kill
from load import Load
from verbs import (
    KILL_LIMIT_S,
    after_lines,
    assert_forgotten,
    assert_removed,
    assert_whole,
    done,
    even,
    ids_of,
    open_slots,
    owned,
    raise_commented,
    stopped,
)

from waiting import until

pytestmark = pytest.mark.integration

SLOW = ("--max-rate", "500kb")
"""With the 4 MB that the cluster holds a quarter of it takes two seconds and more."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("crashes"))
    try:
        raise_commented(made)
        with made.client() as client:
            pipeline: Any = client.pipeline(transaction=False)
            for number in range(2000):
                pipeline.set(f"ballast:{number}", "x" * 2000)
            assert all(pipeline.execute())
        yield made
    finally:
        made.close()


@contextmanager
def hurt(cluster: Cluster) -> Generator[None]:
    """Writers and readers: they may see errors while a node dies, but nothing that was acknowledged is lost."""
    with Load(cluster.url("primary"), keys_per_writer=200, keep_keys=False) as load:
        yield
        load.stop().check_nothing_lost()


def crashed_in(cluster: Cluster, victim: str, *arguments: str, when: Callable[[int], object]) -> None:
    """Kill a node's process while a verb runs, and repeat the verb until it says that it is done."""
    with cluster.start(*arguments) as process:
        until(lambda: when(process.pid) or process.poll() is not None, f"{arguments} has got that far", KILL_LIMIT_S)
        assert process.poll() is None, process.communicate()
        before = cluster.pid(victim)
        kill(before)
        try:
            _, errors = process.communicate(timeout=KILL_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert "Traceback" not in errors
    assert process.returncode == 0 or "next:" in errors, errors
    if victim in cluster.unit_names():
        cluster.await_restart(victim, before)
    done(cluster, *arguments)


@pytest.mark.parametrize("role", ["master", "replica"])
def test_a_node_dies_while_the_cluster_grows_and_shrinks(cluster: Cluster, role: str) -> None:
    """The source of a move, or its replica; then, while slots go back, one that stays."""
    before = ids_of(cluster)
    master, replica = cluster.pair()
    victim = master if role == "master" else replica
    with hurt(cluster):
        crashed_in(cluster, victim, "scale", "--shards", "4", *SLOW, when=lambda _: owned(cluster, "redis-7"))
        assert even(assert_whole(cluster, 4))
        new = {name: node_id for name, node_id in ids_of(cluster).items() if name not in before}
        assert len(new) == 2
        crashed_in(cluster, victim, "scale", "--shards", "3", "--yes", *SLOW, when=after_lines(cluster, 2))
    assert ids_of(cluster) == before
    assert even(assert_whole(cluster, 3))
    assert open_slots(cluster) == []
    assert_removed(cluster, *new)
    assert_forgotten(cluster, new.values())


@pytest.mark.parametrize("whose", ["its own", "another"])
def test_a_master_dies_while_a_replica_restarts(cluster: Cluster, whose: str) -> None:
    """Its own master: nobody can take over meanwhile, so that it starts again with what it has."""
    master, replica = cluster.pair()
    victim = master if whose == "its own" else next(name for name in cluster.masters() if name != master)
    with hurt(cluster):
        crashed_in(cluster, victim, "restart", replica, when=stopped(cluster, replica))
    assert open_slots(cluster) == []
    assert_whole(cluster, 3)
    assert cluster.up() == []
