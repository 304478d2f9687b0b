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
    """

    slots_done: int
    slots_total: int
    keys_done: int
    keys_total: int
    bytes_done: int
    bytes_total: int
    elapsed_s: float

    @property
    def rate_bytes_s(self) -> float:
        """Bytes per second since the start."""
        return self.bytes_done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Estimated seconds to the end; None while nothing has been moved yet."""
        done, total = (self.bytes_done, self.bytes_total) if self.bytes_total else (self.slots_done, self.slots_total)
        if not done:
            return None
        return self.elapsed_s * max(0, total - done) / done


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
