"""The classic mover, for every engine: SETSLOT and MIGRATE.

Some slots at a time: look for keys that are too big, open the slots on target and source, MIGRATE their keys in groups
of bounded size, hand the emptied slots over. Doing sixteen slots at once saves most of the round trips, and most of the
times that the nodes write nodes.conf; several sources may fill one target at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress

from redisforge.errors import NodeError
from redisforge.model.slots import describe
from redisforge.redis.moving.chunks import cut, ranges_of, slots_of
from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.job import Job
from redisforge.redis.moving.keys import ALL_KEYS, Key, drain, groups, list_keys, migrate, volleys
from redisforge.redis.moving.moves import LeftSlot
from redisforge.redis.moving.setslot import close_untouched, hand_over, key_counts, open_slots

_SLOTS_AT_ONCE = 16
_BATCH_BYTES = 16 * 1024 * 1024
"""A batch is open for some tenths of a second at most."""
_CLEANING_TIMEOUT_S = 5.0


async def move_classic(job: Job) -> None:
    """Move the slots of one pair.

    Raises:
        NodeError: a step failed. Slots of which nothing had been moved are closed again; the error names the others.
    """
    await job.turns.give(
        job.move, job.target.id
    )  # it can take from several sources; a source is blocked by its own MIGRATE
    rate = job.tally.watch.max_rate_bytes_s
    limit_bytes = _BATCH_BYTES if rate is None else min(_BATCH_BYTES, rate)
    for batch in _batches(job, limit_bytes):
        if job.tally.should_stop():
            return
        keys = await list_keys(job.ends, job.source, batch, limit=ALL_KEYS)
        movable = tuple(slot for slot in batch if not _is_left(job, slot, keys[slot]))
        if movable:
            await _move_batch(job, movable, keys)
        await job.tally.pace()


def _batches(job: Job, limit_bytes: float) -> Iterable[tuple[int, ...]]:
    for piece in cut(slots_of(job.move.slots), job.sizes.bytes, limit_bytes):
        for start in range(0, len(piece), _SLOTS_AT_ONCE):
            yield piece[start : start + _SLOTS_AT_ONCE]


def _is_left(job: Job, slot: int, keys: Sequence[Key]) -> bool:
    """Whether the slot has to stay because of its biggest key, which is then noted."""
    biggest = max(keys, key=lambda key: key.size_bytes, default=None)
    if biggest is None or biggest.size_bytes <= job.tally.watch.max_key_bytes:
        return False
    name = biggest.name.decode("utf-8", "backslashreplace")
    job.tally.left.append(LeftSlot(slot, job.source.name, name, biggest.size_bytes))
    return True


async def _move_batch(job: Job, slots: tuple[int, ...], keys: dict[int, tuple[Key, ...]]) -> None:
    ends, source, target = job.ends, job.source, job.target
    try:
        await open_slots(ends, source, target, slots)
        for volley in volleys([group for slot in slots for group in groups(keys[slot])]):
            await migrate(ends, source, target, volley, replace=True)
            sent = [key for group in volley for key in group]
            job.tally.count(len(sent), sum(key.size_bytes for key in sent))
        for slot, count in (await key_counts(ends, source, slots)).items():
            if count:  # written after the list was made, or a retry
                await drain(ends, source, target, slot, source_wins=True)
        await hand_over(ends, source, target, slots)
    except NodeError as error:
        raise _failure(job, await _clean_up(job, slots), error) from error
    except asyncio.CancelledError:
        await asyncio.shield(_clean_up(job, slots))
        raise
    job.tally.add(slots, target.id, 0, 0)


async def _clean_up(job: Job, slots: tuple[int, ...]) -> tuple[int, ...]:
    """Close what can be closed without loss; returns the slots that stay open. Over fresh connections."""
    with suppress(NodeError):
        async with Ends(job.ends.login, timeout_s=_CLEANING_TIMEOUT_S) as fresh:
            owned = {
                slot for peer in await fresh.view(job.source) if "myself" in peer.flags for slot in slots_of(peer.slots)
            }
            return await close_untouched(fresh, job.source, job.target, [slot for slot in slots if slot in owned])
    return slots


def _failure(job: Job, open_ones: tuple[int, ...], error: NodeError) -> NodeError:
    what = f"slots could not be moved from {job.source.name} to {job.target.name}"
    if open_ones:
        what += f"; slots {describe(ranges_of(open_ones))} stay open between them, and clients are served there"
    return NodeError(
        what,
        where=error.where,
        why=f"{error.what}: {error.why}",
        next_step="mend the cause and run the verb again: it first finishes or rolls back what is open",
    )
