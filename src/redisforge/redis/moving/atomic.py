"""What the atomic movers of Redis and Valkey share: a pair's slots in tasks of bounded size, one after the other."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from redisforge.redis.connection import Reply
from redisforge.redis.moving.agreement import wait_agreed
from redisforge.redis.moving.chunks import chunk_bytes, cut, slots_of
from redisforge.redis.moving.job import Job

CANCEL_TIMEOUT_S = 5.0
_POLL_FIRST_S = 0.002
_POLL_SHARE = 0.03
_POLL_LAST_S = 0.1

RunTask = Callable[[Job, tuple[int, ...]], Awaitable[bool]]
"""Runs one task for some slots. True: its end was reached; False: it was cancelled because the caller wants to stop."""


async def move_in_tasks(job: Job, run_task: RunTask) -> None:
    """Move the slots of one pair.

    Raises:
        NodeError: a task failed, with the engine's reason. It is cancelled: its slots are still the source's.
    """
    tally = job.tally
    chunks = cut(slots_of(job.move.slots), job.sizes.bytes, chunk_bytes(tally.watch.max_rate_bytes_s))
    for number, chunk in enumerate(chunks, start=1):
        if tally.should_stop() or not await run_task(job, chunk):
            return
        if number == len(chunks):
            await job.turns.give(job.move, job.target.id)  # the next pair may begin while the source hears of it
        await wait_agreed(job.ends, (job.source, job.target), dict.fromkeys(chunk, job.target.id))
        tally.add(chunk, job.target.id, *job.sizes.of(chunk))
        await tally.pace()


def pause_s(began: float) -> float:
    """Seconds until the next look at a task that began at `began` (monotonic): a small share of its life so far.

    Its end is noticed early, and the looks cost the node nothing much.
    """
    return min(_POLL_LAST_S, _POLL_FIRST_S + (time.monotonic() - began) * _POLL_SHARE)


def as_dictionary(reply: Reply) -> dict[str, Reply]:
    """A map reply: RESP2 has it as a flat list of names and values."""
    if isinstance(reply, dict):
        return dict(reply)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    return dict(zip(reply[::2], reply[1::2], strict=True))
