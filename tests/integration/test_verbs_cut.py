"""Verbs that are cut off in the middle of a step, interrupted, or over their budget. The same command finishes them.

What is killed between its steps is in test_verbs_chained.py. All of it under load: slots are served at every moment,
and nothing that was acknowledged is lost.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster_tool import SLOT_COUNT, Cluster
from verbs import (
    after_lines,
    assert_whole,
    cut,
    done,
    even,
    ids_of,
    killed,
    loaded,
    open_slots,
    owned,
    raise_commented,
    stopped,
)

pytestmark = pytest.mark.integration

VALUE = "x" * 2000
SLOW = ("--max-rate", "200kb")
"""With the 4 MB that the cluster holds: moving a sixth of it takes three seconds and more."""
INTERRUPTED = 130
ABORTED = 15


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cut"))
    try:
        raise_commented(made)
        with made.client() as client:
            pipeline: Any = client.pipeline(transaction=False)
            for number in range(2000):
                pipeline.set(f"ballast:{number}", VALUE)
            assert all(pipeline.execute())
        yield made
    finally:
        made.close()


def moving_to(cluster: Cluster, name: str) -> Callable[[int], bool]:
    """A condition for `cut`: the node has got some slots since, and not all yet."""
    before = owned(cluster, name)
    return lambda _: owned(cluster, name) > before


def test_moves_killed_in_the_middle_are_finished_or_taken_back(cluster: Cluster) -> None:
    heavy = min(cluster.masters())
    weight = ("rebalance", "--weight", f"{heavy}=2")
    with loaded(cluster):
        killed(cluster, *weight, *SLOW, when=moving_to(cluster, heavy))
        half = owned(cluster, heavy)
        assert half < SLOT_COUNT // 2
        done(cluster, *weight)
        assert owned(cluster, heavy) == SLOT_COUNT // 2
        killed(cluster, "rebalance", when=after_lines(cluster, 2))
        done(cluster, "rebalance")

    assert even(assert_whole(cluster, 3))
    assert open_slots(cluster) == []


@pytest.mark.parametrize("line_count", [12, 18])
def test_a_removal_killed_while_nodes_are_forgotten_is_taken_back(cluster: Cluster, line_count: int) -> None:
    """Those who have forgotten a node tell the others for a minute, who then forget it too: with slots, if it has got
    some meanwhile."""
    before = ids_of(cluster)
    with loaded(cluster):
        done(cluster, "scale", "--shards", "4")
        killed(cluster, "scale", "--shards", "3", "--yes", when=after_lines(cluster, line_count))
        done(cluster, "scale", "--shards", "4")
        assert even(assert_whole(cluster, 4))
        done(cluster, "scale", "--shards", "3", "--yes")
    assert ids_of(cluster) == before
    assert even(assert_whole(cluster, 3))


def test_a_restart_killed_while_a_node_is_stopped_is_finished_by_the_same_command(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    before = cluster.pids()
    with loaded(cluster):
        killed(cluster, "restart", master, replica, when=stopped(cluster, replica))
        done(cluster, "restart", master, replica)

    after = cluster.pids()
    assert {name for name in after if after[name][0] != before[name][0]} == {master, replica}
    assert_whole(cluster, 3)


def test_ctrl_c_during_a_move_ends_it_at_a_clean_point(cluster: Cluster) -> None:
    heavy = min(cluster.masters())
    weight = ("rebalance", "--weight", f"{heavy}=2")
    with loaded(cluster):
        status, errors = cut(cluster, *weight, *SLOW, when=moving_to(cluster, heavy), by=signal.SIGINT)
        assert status == INTERRUPTED, errors
        assert "safe point" in errors
        assert "Traceback" not in errors
        assert SLOT_COUNT // 3 < owned(cluster, heavy) < SLOT_COUNT // 2
        assert open_slots(cluster) == []
        assert cluster.is_healthy()
        done(cluster, *weight)
        assert owned(cluster, heavy) == SLOT_COUNT // 2
        done(cluster, "rebalance")
    assert even(assert_whole(cluster, 3))


def test_a_budget_that_cannot_be_kept_stops_the_verb_at_a_safe_point(cluster: Cluster) -> None:
    before = ids_of(cluster)
    with loaded(cluster):
        aborted = cluster.run("scale", "--shards", "4", "--abort-over", "1")
        assert aborted.status == ABORTED, str(aborted)
        assert "1 ms were allowed" in aborted.stderr
        assert "the same command goes on from here" in aborted.stderr
        assert open_slots(cluster) == []
        assert cluster.status()["cluster"]["slots_ok"] == SLOT_COUNT
        done(cluster, "scale", "--shards", "4")
        assert len(cluster.masters()) == 4
        again = cluster.run("scale", "--shards", "3", "--yes", "--abort-over", "1")
        assert again.status == ABORTED, str(again)
        assert open_slots(cluster) == []
        done(cluster, "scale", "--shards", "3", "--yes", "--abort-over", "60000")
    assert ids_of(cluster) == before
    assert even(assert_whole(cluster, 3))
    assert cluster.up() == []
