"""What a light load through the nodes notices of moving slots, and why: who ran, and who waited for a core.

At full speed, and with a bound on the rate (`--max-rate`): the same work with pauses between its pieces.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType

from bench_moving import CASES, back, filled_cluster, look, quarter
from cores import Cores
from figure import Figure
from redisforge.model.facts import NodeFacts
from redisforge.redis.moving import MoveWatch, move_slots
from redisforge.runbooks.cluster import Cluster

QUIET_S = 4.0
MOVES = 8
"""Half of them there, half back again."""
PROFILED = 4
PACED_BYTES_S = 12 * 1024 * 1024
Window = tuple[float, float]
"""From, to, in seconds since the epoch."""


def noticed(folder: Path) -> Iterator[Figure]:
    """p99 quiet, at full speed and paced, and the profile of the moves at full speed."""
    case = CASES[0]
    with filled_cluster(case, folder / "moving-noticed") as (cluster, _), _Load(cluster, case.keys) as load:
        began = time.time()
        time.sleep(QUIET_S)
        quiet = [(began, time.time())]
        full = asyncio.run(_there_and_back(cluster, MOVES))
        paced = asyncio.run(_there_and_back(cluster, MOVES // 2, PACED_BYTES_S))
        facts = asyncio.run(look(cluster))
        groups = _groups(facts, load.pid)
        cores = Cores(groups)
        profiled = asyncio.run(_there_and_back(cluster, PROFILED, cores=cores))
    quiet_s, full_s, paced_s = (load.p99_s(windows) for windows in (quiet, full, paced))
    yield Figure("light load through the nodes, p99 while nothing moves", quiet_s * 1000, "ms", None, 1)
    yield Figure("… while slots move", full_s * 1000, "ms", None, len(full))
    yield Figure("… moving : quiet", full_s / quiet_s, "x", 3.0, len(full))
    for name, used in cores.used.items():
        for what, seconds in (("ran", used.ran_s), ("waited for a core", used.waited_s)):
            yield Figure(f"…   {name} {what}", 100 * seconds / _length_s(profiled), "%", None, len(profiled))
    wanted = sum(used.ran_s + used.waited_s for used in cores.used.values()) / _length_s(profiled)
    yield Figure(f"… cores that they asked for ({os.cpu_count()} there)", wanted, "", None, len(profiled))
    yield Figure("… while slots move at --max-rate 12mb", paced_s * 1000, "ms", None, len(paced))
    yield Figure("… moving : quiet", paced_s / quiet_s, "x", None, len(paced))
    yield Figure("… how long that took", statistics.median(map(_seconds, paced)), "s", None, len(paced))
    yield Figure("… errors", float(load.errors), "", 0.0, 1)


def _groups(facts: Sequence[NodeFacts], load_pid: int) -> dict[str, list[int]]:
    """Who takes part, by process ids. Half of the moves go to the fourth node, half come back from it."""
    nodes = {"the three nodes": [node.pid for node in facts[:-1]], "the fourth node": [facts[-1].pid]}
    return {**nodes, "the load": [load_pid], "the mover": [os.getpid()]}


class _Load:
    """light_load.py, from entry to exit; afterwards what it saw."""

    def __init__(self, cluster: Cluster, keys: int) -> None:
        login = cluster.operator_login()
        nodes = [(node.address, node.port) for node in cluster.topology.nodes]
        self._settings = {
            "nodes": nodes, "user": login.user, "password": login.password.reveal(), "ca": login.ca_path, "keys": keys,
        }  # fmt: skip
        self._samples: list[tuple[float, float]] = []
        self.errors = 0

    def __enter__(self) -> _Load:
        argv = [sys.executable, str(Path(__file__).with_name("light_load.py"))]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(self._settings), file=self._process.stdin, flush=True)
        self._process.stdout.readline()  # it has begun
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        text, _unused = self._process.communicate("stop\n")
        if kind is None:
            answer = json.loads(text)
            self._samples, self.errors = answer["samples"], answer["errors"]

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def p99_s(self, windows: Sequence[Window]) -> float:
        """Of the samples that began within a window."""
        chosen = sorted(s for at, s in self._samples if any(first <= at <= last for first, last in windows))
        if len(chosen) < 200:
            raise SystemExit(f"only {len(chosen)} samples: too few for a p99")
        return chosen[int(len(chosen) * 0.99)]


async def _there_and_back(
    cluster: Cluster, times: int, max_rate_bytes_s: int | None = None, cores: Cores | None = None
) -> list[Window]:
    """Move a quarter there and back again; when something moved. Between the moves is a pause of half a second."""
    windows: list[Window] = []
    facts = await look(cluster)
    moves = quarter(facts)
    for number in range(times):
        facts = await look(cluster)
        wanted = back(moves, facts) if number % 2 else back(back(moves, facts), facts)
        watch = MoveWatch(max_rate_bytes_s=max_rate_bytes_s)
        with cores or nullcontext():
            began = time.time()
            await move_slots(wanted, facts, cluster.operator_login(), "redis", watch)
            windows.append((began, time.time()))
        await asyncio.sleep(0.5)
    return windows


def _seconds(window: Window) -> float:
    return window[1] - window[0]


def _length_s(windows: Sequence[Window]) -> float:
    return sum(map(_seconds, windows))
