"""How long processes ran, and how long they were ready to run while no core was free.

/proc/PID/task/TID/schedstat: nanoseconds on a core, nanoseconds in the run queue. Source: Linux,
Documentation/scheduler/sched-stats.rst. Where the kernel does not keep it, everything is 0.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

POLL_S = 0.005
"""A fork that writes a snapshot lives for some tens of milliseconds."""


class Used(NamedTuple):
    """Seconds that a process ran, and waited for a core."""

    ran_s: float
    waited_s: float


class Cores:
    """Watches groups of processes, and what they fork, from entry to exit, as often as it is entered.

    `used` holds each group's seconds of all these times. What the processes of
    group "x" fork meanwhile is the group "x: forks".
    """

    def __init__(self, groups: Mapping[str, Sequence[int]]) -> None:
        self._groups = groups
        self.used: dict[str, Used] = dict.fromkeys(groups, Used(0, 0))

    def __enter__(self) -> Cores:
        self._forks: dict[tuple[str, int], Used] = {}
        self._older = {child for pids in self._groups.values() for pid in pids for child in _children(pid)}
        self._before = {pid: used(pid) for pids in self._groups.values() for pid in pids}
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watching.join()
        for group, pids in self._groups.items():
            for pid in pids:
                now, before = used(pid), self._before[pid]
                self._add(group, Used(now.ran_s - before.ran_s, now.waited_s - before.waited_s))
        for (group, _pid), seen in self._forks.items():
            self._add(f"{group}: forks", seen)

    def _add(self, group: str, more: Used) -> None:
        self.used[group] = _sum([self.used.get(group, Used(0, 0)), more])

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            for group, pids in self._groups.items():
                for child in {child for pid in pids for child in _children(pid)} - self._older:
                    now = used(child)
                    if now != Used(0, 0):  # else it has just ended
                        self._forks[group, child] = now


def used(pid: int) -> Used:
    """What all threads of a process have used so far; zeros when it is gone."""
    tasks = Path(f"/proc/{pid}/task")
    found: list[Used] = []
    with suppress(OSError):
        found = [_of(task) for task in tasks.iterdir()]
    return _sum(found)


def main_thread(pid: int) -> Used:
    """What the first thread of a process has used: in Redis the one that serves commands."""
    return _of(Path(f"/proc/{pid}/task/{pid}"))


def _of(task: Path) -> Used:
    try:
        ran, waited = (task / "schedstat").read_text().split()[:2]
    except (OSError, ValueError):
        return Used(0, 0)
    return Used(int(ran) / 1e9, int(waited) / 1e9)


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _sum(all_used: Sequence[Used]) -> Used:
    return Used(sum(one.ran_s for one in all_used), sum(one.waited_s for one in all_used))
