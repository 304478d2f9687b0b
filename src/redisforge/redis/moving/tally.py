"""What all pairs of one call have moved so far: progress, the bound on the rate, and the wish to stop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import NamedTuple

from redisforge.redis.moving.moves import LeftSlot, MoveProgress, MoveWatch
from redisforge.redis.moving.sizes import SlotSizes

_PACE_STEP_S = 0.05
_RECENT_S = 5.0
"""The pace of so long tells when the end comes: a full slot takes longer than an empty one, and they come in turns."""
_MARK_EVERY_S = 0.25


class _Mark(NamedTuple):
    """What had been moved at a moment, in seconds since the start."""

    at_s: float = 0.0
    slots: int = 0
    size_bytes: int = 0


class Tally:
    """Shared by the pairs of one call; asyncio runs one of them at a time, so there is nothing to lock."""

    def __init__(self, watch: MoveWatch, slots_total: int) -> None:
        self.watch = watch
        self.slots_total = slots_total
        self.slots = self.keys = self.bytes = 0
        self.keys_total = self.bytes_total = 0
        self.left: list[LeftSlot] = []
        self.moved: dict[int, str] = {}
        """Id of the new owner by slot."""
        self.stopped = False
        self.failed = False
        self._began = time.monotonic()
        self._marks = deque([_Mark()])

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    def expect(self, sizes: SlotSizes) -> None:
        """Say what is to come, once it is known."""
        keys, size_bytes = sizes.of(sizes.keys)
        self.keys_total += keys
        self.bytes_total += size_bytes

    def add(self, slots: tuple[int, ...], owner: str, keys: int, size_bytes: int) -> None:
        """Count what has reached its new owner, and report."""
        self.moved.update(dict.fromkeys(slots, owner))
        self.slots += len(slots)
        self.count(keys, size_bytes)

    def count(self, keys: int, size_bytes: int) -> None:
        """Count keys on their way, and report."""
        self.keys += keys
        self.bytes += size_bytes
        self.watch.report(self.progress())

    def progress(self) -> MoveProgress:
        """As it is now."""
        now_s = self.seconds
        since = self._recent(now_s)
        return MoveProgress(
            slots_done=self.slots,
            slots_total=self.slots_total,
            keys_done=self.keys,
            keys_total=max(self.keys_total, self.keys),
            bytes_done=self.bytes,
            bytes_total=max(self.bytes_total, self.bytes),
            elapsed_s=now_s,
            recent_s=now_s - since.at_s,
            recent_slots=self.slots - since.slots,
            recent_bytes=self.bytes - since.size_bytes,
        )

    def _recent(self, now_s: float) -> _Mark:
        """The youngest mark that is `_RECENT_S` old, or the start."""
        marks = self._marks
        while len(marks) > 1 and marks[1].at_s <= now_s - _RECENT_S:
            marks.popleft()
        if now_s - marks[-1].at_s >= _MARK_EVERY_S:
            marks.append(_Mark(now_s, self.slots, self.bytes))
        return marks[0]

    def should_stop(self) -> bool:
        """Whether to end at the next clean point: the caller asked, or another pair failed."""
        if not self.stopped and self.watch.stop_requested():
            self.stopped = True
        return self.stopped or self.failed

    async def pace(self) -> None:
        """Wait until the average rate is back below its bound."""
        rate = self.watch.max_rate_bytes_s
        while rate and not self.should_stop():
            wait_s = self.bytes / rate - self.seconds
            if wait_s <= 0:
                return
            await asyncio.sleep(min(wait_s, _PACE_STEP_S))
