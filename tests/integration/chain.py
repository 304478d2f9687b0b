"""A verb that is killed (-9) after each of its steps, run after run, until one run finds nothing to be killed after.

Each run goes on from where the one before it was killed, so its first step is the next one of the verb: one chain has
every step of the verb as a point where it is cut. Beside steps, a run is cut when it has changed what is declared
(topology.json, redisforge.yaml). A verb that starts over when it is repeated (`restart`) is cut after one step, then
after two, and so on.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import redis
from cluster_tool import NODE_NAMES, SLOT_COUNT, Cluster
from verbs import cut, done, journal_of, open_slots

CUT_LIMIT = 80
"""More runs than any verb of these tests needs: one that is longer does not get on."""


def chained(cluster: Cluster, *arguments: str) -> list[str]:
    """Kill the verb after its next step until a run ends by itself, which must be a good end; what each run had done
    when it was killed. All slots are served after each kill."""
    return _chain(cluster, arguments, lambda _: 1)


def chained_from_the_start(cluster: Cluster, *arguments: str) -> list[str]:
    """The same for a verb that starts over: killed after one step, after two, ... until a run ends before that."""
    return _chain(cluster, arguments, lambda cuts: cuts + 1)


def finished(cluster: Cluster, *arguments: str, least_cuts: int) -> list[str]:
    """Chain the verb to its end; there were as many cuts as it has steps at least, and a last run finds nothing."""
    cuts = chained(cluster, *arguments)
    assert len(cuts) >= least_cuts, cuts
    assert done(cluster, *arguments)["phases"] == []
    assert open_slots(cluster) == []
    return cuts


def _chain(cluster: Cluster, arguments: tuple[str, ...], step_count: Callable[[int], int]) -> list[str]:
    cuts: list[str] = []
    while True:
        point = _Point(cluster, step_count(len(cuts)))
        status, errors = cut(cluster, *arguments, when=point.is_reached)
        if status == 0:
            return cuts
        assert status == -signal.SIGKILL, f"{arguments} after {cuts}: exit status {status}\n{errors}"
        cuts.append(point.what)
        assert_served(cluster)
        assert len(cuts) < CUT_LIMIT, f"no end of {arguments}: {cuts}"


class _Point:
    """Where a run is cut: after so many steps, or after a change of what is declared."""

    def __init__(self, cluster: Cluster, step_count: int) -> None:
        self._cluster, self._step_count = cluster, step_count
        self._declared = self._read()
        self.what = ""

    def _read(self) -> tuple[bytes, bytes]:
        return (self._cluster.path / "topology.json").read_bytes(), self._cluster.declaration().encode()

    def is_reached(self, pid: int) -> bool:
        steps = [line["what"] for line in map(json.loads, journal_of(self._cluster, pid)) if line["event"] == "step"]
        now = self._read()
        pairs = zip(("recorded", "declared"), self._declared, now, strict=True)
        changed = [name for name, old, new in pairs if old != new]
        self.what = steps[-1] if steps else " and ".join(changed)
        return len(steps) >= self._step_count or bool(changed and self._step_count == 1)


def assert_served(cluster: Cluster) -> None:
    """A node that answers knows all slots as served."""
    answers: list[Any] = []
    for name in NODE_NAMES:
        answers.append(_slots_ok(cluster, name))
        if answers[-1] == SLOT_COUNT:
            return
    raise AssertionError(answers)


def _slots_ok(cluster: Cluster, name: str) -> Any:
    try:
        with cluster.node_client(name) as client:
            return int(client.execute_command("CLUSTER INFO")["cluster_slots_ok"])
    except (redis.RedisError, OSError, StopIteration) as error:
        return f"{name}: {error}"
