"""PURE: which mover fits two nodes, and slots cut into pieces of bounded size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from redisforge.model.slots import SlotRange, merge
from redisforge.model.versions import version_of
from redisforge.redis.moving.moves import SlotMove

Mover = Literal["redis-atomic", "valkey-atomic", "classic"]

_ATOMIC_SINCE = {"redis": (8, 4), "valkey": (9, 0)}
"""CLUSTER MIGRATION and CLUSTER MIGRATESLOTS, by the `since` of their documentation."""

CHUNK_BYTES = 128 * 1024 * 1024
"""Bytes of one atomic task, about a second of work: a task costs a fork and two TLS connections, about 0.1 s, and
what a failed or cancelled task has copied is copied again."""


def atomic_since(engine_kind: str) -> tuple[int, int] | None:
    """The first version of the engine that has atomic migration."""
    return _ATOMIC_SINCE.get(engine_kind)


def choose_mover(move: SlotMove, engine_kind: str) -> Mover:
    """An atomic mover where both ends know it, else the classic one."""
    since = _ATOMIC_SINCE.get(engine_kind)
    older = min(version_of(move.source.version), version_of(move.target.version))
    if since is None or older < since:
        return "classic"
    return "redis-atomic" if engine_kind == "redis" else "valkey-atomic"


def slots_of(ranges: Sequence[SlotRange]) -> list[int]:
    """Every slot of `ranges`, in order."""
    return [slot for current in ranges for slot in range(current.first, current.last + 1)]


def ranges_of(slots: Sequence[int]) -> tuple[SlotRange, ...]:
    """The slots as the fewest ranges."""
    return merge(SlotRange(slot, slot) for slot in slots)


def chunk_bytes(max_rate_bytes_s: float | None) -> int:
    """Bytes of one atomic task: with a bound on the rate, about what may pass in a second."""
    return CHUNK_BYTES if max_rate_bytes_s is None else max(1, min(CHUNK_BYTES, int(max_rate_bytes_s)))


def cut(slots: Sequence[int], size_of: Mapping[int, float], limit_bytes: float) -> list[tuple[int, ...]]:
    """Consecutive pieces of at most `limit_bytes` bytes each, or of one slot that alone is larger."""
    pieces: list[list[int]] = []
    room = 0.0
    for slot in slots:
        size = size_of.get(slot, 0.0)
        if pieces and size <= room:
            pieces[-1].append(slot)
            room -= size
        else:
            pieces.append([slot])
            room = limit_bytes - size
    return [tuple(piece) for piece in pieces]
