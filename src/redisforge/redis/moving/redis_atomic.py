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
from redisforge.redis.moving.atomic import CANCEL_TIMEOUT_S, as_dictionary, move_in_tasks, pause_s
from redisforge.redis.moving.chunks import ranges_of
from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.job import Job

_RETRIES = 3
"""So often Redis may start a failed task again (it does so about once a second) before it counts as failed."""
_BEGIN_DEADLINE_S = 30.0
"""For a node that is still busy with an earlier task."""
_BEGIN_POLL_S = 0.05


async def move_redis_atomic(job: Job) -> None:
    """Move the slots of one pair. Raises NodeError; the slots of the task that failed are still the source's."""
    await move_in_tasks(job, _one_task)


async def _one_task(job: Job, chunk: tuple[int, ...]) -> bool:
    task_id = ""
    try:
        task_id = await _begin(job, chunk)
        return await _watch(job, task_id, chunk)
    except BaseException:  # whatever happened: a task that nobody watches must not go on
        await _cancel(job, task_id)
        raise


async def _begin(job: Job, chunk: tuple[int, ...]) -> str:
    bounds = [bound for current in ranges_of(chunk) for bound in (current.first, current.last)]
    deadline = time.monotonic() + _BEGIN_DEADLINE_S
    while True:
        connection = await job.ends.to(job.target)
        reply = (await connection.pipeline([("CLUSTER", "MIGRATION", "IMPORT", *bounds)]))[0]
        if not isinstance(reply, hiredis.ReplyError):
            return str(reply)
        if "another ASM task" not in str(reply) or time.monotonic() > deadline:
            raise job.failure(chunk, str(reply))
        await asyncio.sleep(_BEGIN_POLL_S)


async def _watch(job: Job, task_id: str, chunk: tuple[int, ...]) -> bool:
    began = time.monotonic()
    while True:
        reply = await job.ends.call(job.target, "CLUSTER", "MIGRATION", "STATUS", "ID", task_id)
        task = as_dictionary(reply[0]) if reply else {}
        if task.get("state") == "completed":
            return True
        if task.get("state") in ("canceled", None) or int(task.get("retries", 0)) >= _RETRIES:
            raise job.failure(chunk, str(task.get("last_error") or "the task is gone: the node has restarted"))
        if job.tally.should_stop() and await job.ends.call(
            job.target, "CLUSTER", "MIGRATION", "CANCEL", "ID", task_id
        ):  # with 0 it was too late: the task has come to its end
            return False
        await asyncio.sleep(pause_s(began))


async def _cancel(job: Job, task_id: str) -> None:
    """Over a fresh connection: the old one may have a request under way, or be gone."""
    with suppress(NodeError):
        async with Ends(job.ends.login, timeout_s=CANCEL_TIMEOUT_S) as fresh:
            which = ("ID", task_id) if task_id else ("ALL",)
            await fresh.call(job.target, "CLUSTER", "MIGRATION", "CANCEL", *which)
