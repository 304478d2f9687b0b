"""The vocabulary of moving slots: what is asked for, how it goes, and what came of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from redisforge.model.facts import NodeFacts
from redisforge.model.slots import SlotRange, count, merge

DEFAULT_MAX_KEY_BYTES = 64 * 1024 * 1024
"""A classic move blocks source and target while one key is on its way, and a node that is blocked for
cluster-node-timeout is failed over. 64 MiB of a collection take about half a second to dump, send and restore."""


class SlotMove(msgspec.Struct, frozen=True):
    """Slots that leave `source` for `target`; both are reachable masters, and `source` owns the slots."""

    source: NodeFacts
    target: NodeFacts
    slots: tuple[SlotRange, ...]


class MoveProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a call of move_slots has come. Keys and bytes are those that were moved so far.

    Bytes are the memory of the keys: measured by a classic move, estimated from the source's average by an atomic one.
    `recent_slots` and `recent_bytes` are those of the last `recent_s` seconds.
    """

    slots_done: int
    slots_total: int
    keys_done: int
    keys_total: int
    bytes_done: int
    bytes_total: int
    elapsed_s: float
    recent_s: float = 0.0
    recent_slots: int = 0
    recent_bytes: int = 0

    @property
    def rate_bytes_s(self) -> float:
        """Bytes per second since the start."""
        return self.bytes_done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Estimated seconds to the end; None while nothing has been moved yet.

        Slots cost round trips even when they are empty, and keys cost their bytes: what takes longer counts. How many
        bytes are to come is told by the keys that have moved: `bytes_total` is estimated from the memory of the source,
        and with small keys that is many times what MEMORY USAGE then measures.
        """
        slots_left_s = self._seconds_for(self.slots_total - self.slots_done, self.slots_done, self.recent_slots)
        if not self.bytes_done or not self.keys_done:
            return slots_left_s
        bytes_left = (self.keys_total - self.keys_done) * self.bytes_done / self.keys_done
        bytes_left_s = self._seconds_for(bytes_left, self.bytes_done, self.recent_bytes)
        return max((left_s for left_s in (slots_left_s, bytes_left_s) if left_s is not None), default=None)

    def _seconds_for(self, left: float, done: int, recent: int) -> float | None:
        """At the pace of late; at that since the start where nothing of the kind came of late."""
        if recent and self.recent_s > 0:
            return max(0.0, left) * self.recent_s / recent
        return max(0.0, left) * self.elapsed_s / done if done else None


def _no_report(_: MoveProgress) -> None:
    return None


def _never() -> bool:
    return False


class MoveWatch(msgspec.Struct, frozen=True, kw_only=True):
    """How the caller follows and bounds a move.

    `stop_requested` is asked between batches, and all the time while an atomic task runs: the mover then ends at a
    clean point, where no slot is open and everybody agrees who owns what. `max_rate_bytes_s` bounds the average over
    all pairs.
    """

    report: Callable[[MoveProgress], None] = _no_report
    stop_requested: Callable[[], bool] = _never
    max_rate_bytes_s: float | None = None
    max_key_bytes: int = DEFAULT_MAX_KEY_BYTES


class LeftSlot(msgspec.Struct, frozen=True):
    """A slot that was left where it is, because a key in it is too big for a classic move. Nothing of it was moved."""

    slot: int
    node: str
    key: str
    size_bytes: int


class MoveResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a call of move_slots did. `stopped`: it ended early because it was asked to."""

    slots_moved: int
    keys_moved: int
    bytes_moved: int
    seconds: float
    left: tuple[LeftSlot, ...] = ()
    stopped: bool = False


def by_pair(moves: list[SlotMove]) -> list[SlotMove]:
    """The same moves with one entry per (source, target), empty ones dropped, the largest first."""
    slots: dict[tuple[str, str], list[SlotRange]] = {}
    ends: dict[tuple[str, str], SlotMove] = {}
    for move in moves:
        pair = (move.source.id, move.target.id)
        ends.setdefault(pair, move)
        slots.setdefault(pair, []).extend(move.slots)
    merged = [SlotMove(ends[pair].source, ends[pair].target, merge(slots[pair])) for pair in ends if slots[pair]]
    return sorted(merged, key=lambda move: -count(move.slots))
