"""The atomic mover of Redis >= 8.4.

CLUSTER MIGRATION IMPORT first last [first last …] is sent to the *new* owner. That node logs in at the old one with the
cluster's internal secret, receives a snapshot of the slots, then the writes that arrive meanwhile; at the end the
old owner holds writes back for some milliseconds, ownership changes in one step, and it drops its copy in the
background. CLUSTER MIGRATION STATUS ID <id> tells the state; a failed task starts again by itself until it is
cancelled with CLUSTER MIGRATION CANCEL ID <id>, which leaves everything with the old owner. A node takes part in one
task at a time. Source: redis.io "CLUSTER MIGRATION"; redis/redis src/cluster_asm.c.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import hiredis

from redisforge.errors import NodeError
from redisforge.model.slots import describe
from redisforge.redis.connection import Reply
from redisforge.redis.moving.agreement import wait_agreed
from redisforge.redis.moving.chunks import chunk_bytes, cut, ranges_of, slots_of
from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.moves import SlotMove
from redisforge.redis.moving.sizes import measure
from redisforge.redis.moving.tally import Tally

_POLL_FIRST_S = 0.005
_POLL_LAST_S = 0.1
_POLL_GROWTH = 1.3
_RETRIES = 3
"""So often Redis may start a failed task again (it does so about once a second) before it counts as failed."""
_BEGIN_DEADLINE_S = 30.0
"""For a node that is still busy with an earlier task, or that trims what it lost in an earlier one."""
_CANCEL_TIMEOUT_S = 5.0


async def move_redis_atomic(move: SlotMove, ends: Ends, tally: Tally) -> None:
    """Move the slots of one pair in tasks of bounded size.

    Raises:
        NodeError: a task failed, with the engine's reason. It is cancelled: its slots are still the source's.
    """
    slots = slots_of(move.slots)
    sizes = await measure(ends, move.source, slots)
    tally.expect(sum(sizes.keys.values()), round(sum(sizes.bytes.values())))
    for chunk in cut(slots, sizes.bytes, chunk_bytes(tally.watch.max_rate_bytes_s)):
        if tally.should_stop():
            return
        if not await _one_task(move, chunk, ends, tally):
            return
        await wait_agreed(ends, (move.source,), dict.fromkeys(chunk, move.target.id))
        tally.add(chunk, move.target.id, *sizes.of(chunk))
        await tally.pace()


async def _one_task(move: SlotMove, chunk: tuple[int, ...], ends: Ends, tally: Tally) -> bool:
    """Run one task to its end; False: it was cancelled because the caller wants to stop."""
    task_id = ""
    try:
        task_id = await _begin(move, chunk, ends)
        completed = await _watch(move, task_id, chunk, ends, tally)
    except BaseException:  # whatever happened, a task that nobody watches must not go on
        await _cancel(move, task_id, ends)
        raise
    return completed


async def _begin(move: SlotMove, chunk: tuple[int, ...], ends: Ends) -> str:
    bounds = [bound for current in ranges_of(chunk) for bound in (current.first, current.last)]
    deadline = time.monotonic() + _BEGIN_DEADLINE_S
    while True:
        connection = await ends.to(move.target)
        reply = (await connection.pipeline([("CLUSTER", "MIGRATION", "IMPORT", *bounds)]))[0]
        if not isinstance(reply, hiredis.ReplyError):
            return str(reply)
        if "another ASM task" not in str(reply) or time.monotonic() > deadline:
            raise _failure(move, chunk, str(reply))
        await asyncio.sleep(_POLL_LAST_S)


async def _watch(move: SlotMove, task_id: str, chunk: tuple[int, ...], ends: Ends, tally: Tally) -> bool:
    pause_s = _POLL_FIRST_S
    while True:
        task = await task_status(ends, move, task_id)
        if task.get("state") == "completed":
            return True
        if task.get("state") in ("canceled", None) or int(task.get("retries", 0)) >= _RETRIES:
            raise _failure(move, chunk, str(task.get("last_error") or "the task is gone: the node has restarted"))
        if tally.should_stop() and await _stopped(move, task_id, ends):
            return False
        await asyncio.sleep(pause_s)
        pause_s = min(_POLL_LAST_S, pause_s * _POLL_GROWTH)


async def _stopped(move: SlotMove, task_id: str, ends: Ends) -> bool:
    """Cancel; False when it was too late and the task has come to its end."""
    return bool(await ends.call(move.target, "CLUSTER", "MIGRATION", "CANCEL", "ID", task_id))


async def task_status(ends: Ends, move: SlotMove, task_id: str) -> dict[str, Reply]:
    """CLUSTER MIGRATION STATUS of one task as a dictionary; empty when the node does not know it."""
    reply = await ends.call(move.target, "CLUSTER", "MIGRATION", "STATUS", "ID", task_id)
    return as_dictionary(reply[0]) if reply else {}


def as_dictionary(reply: Reply) -> dict[str, Reply]:
    """A map reply: RESP2 has it as a flat list of names and values."""
    if isinstance(reply, dict):
        return dict(reply)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    return dict(zip(reply[::2], reply[1::2], strict=True))


async def _cancel(move: SlotMove, task_id: str, ends: Ends) -> None:
    """Over a fresh connection: the old one may have a request under way."""
    with suppress(NodeError):
        async with Ends(ends.login, timeout_s=_CANCEL_TIMEOUT_S) as fresh:
            which = ("ID", task_id) if task_id else ("ALL",)
            await fresh.call(move.target, "CLUSTER", "MIGRATION", "CANCEL", *which)


def _failure(move: SlotMove, chunk: tuple[int, ...], why: str) -> NodeError:
    return NodeError(
        f"slots {describe(ranges_of(chunk))} could not be moved to {move.target.name}; "
        f"they stay with {move.source.name}",
        where=f"{move.target.name} ({move.target.address}:{move.target.port})",
        why=why,
        next_step="mend the cause and run the verb again: it goes on with the slots that are left",
    )
