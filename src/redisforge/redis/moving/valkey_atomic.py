"""The atomic mover of Valkey >= 9.

CLUSTER MIGRATESLOTS SLOTSRANGE first last [first last …] NODE <id> is sent to the *old* owner, which logs in at the
new one as its replication user (masteruser; render/acl.py says what that user needs), sends a snapshot of the slots and
the writes that arrive meanwhile, pauses, and hands over in one step. It answers OK; the job is then found in
CLUSTER GETSLOTMIGRATIONS. A failed job is not started again. CLUSTER CANCELSLOTMIGRATIONS, on the old owner, cancels
all that it exports. Source: valkey.io "Atomic slot migration"; valkey-io/valkey src/cluster_migrateslots.c.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from redisforge.errors import NodeError
from redisforge.model.facts import NodeFacts
from redisforge.redis.connection import Reply, ReplyError
from redisforge.redis.moving.atomic import CANCEL_TIMEOUT_S, as_dictionary, move_in_tasks, pause_s
from redisforge.redis.moving.chunks import ranges_of
from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.job import Job

FINISHED = ("success", "failed", "cancelled")
"""States in which a job does nothing more."""


async def move_valkey_atomic(job: Job) -> None:
    """Move the slots of one pair. Raises NodeError; the slots of the job that failed are still the source's."""
    await move_in_tasks(job, _one_job)


async def _one_job(job: Job, chunk: tuple[int, ...]) -> bool:
    earlier = {entry["name"] for entry in await migrations(job.ends, job.source)}
    bounds = [bound for current in ranges_of(chunk) for bound in (current.first, current.last)]
    try:
        await job.ends.call(job.source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", *bounds, "NODE", job.target.id)
        return await _watch(job, chunk, earlier)
    except ReplyError as error:
        raise job.failure(chunk, error.why) from error
    except BaseException:  # whatever happened: a job that nobody watches must not go on
        await _cancel(job)
        raise


async def _watch(job: Job, chunk: tuple[int, ...], earlier: set[str]) -> bool:
    began = time.monotonic()
    cancelled = False
    while True:
        ours = [entry for entry in await migrations(job.ends, job.source) if entry["name"] not in earlier]
        state = ours[0]["state"] if ours else None
        if state == "success":
            return True
        if state in ("cancelled", "failed", None):
            if cancelled and state:
                return False
            raise job.failure(chunk, str(ours[0].get("message")) if ours else "the job is gone: the node has restarted")
        if not cancelled and job.tally.should_stop():
            with suppress(ReplyError):  # too late: there is nothing to cancel any more
                await job.ends.call(job.source, "CLUSTER", "CANCELSLOTMIGRATIONS")
            cancelled = True
        await asyncio.sleep(pause_s(began))


async def migrations(ends: Ends, node: NodeFacts) -> list[dict[str, Reply]]:
    """What `node` exports, or has exported lately: name, state, target_node, slot_ranges, message, …"""
    entries = [as_dictionary(entry) for entry in await ends.call(node, "CLUSTER", "GETSLOTMIGRATIONS")]
    return [entry for entry in entries if str(entry.get("operation")).upper() == "EXPORT"]


async def _cancel(job: Job) -> None:
    """Over a fresh connection: the old one may have a request under way, or be gone."""
    with suppress(NodeError):
        async with Ends(job.ends.login, timeout_s=CANCEL_TIMEOUT_S) as fresh:
            await fresh.call(job.source, "CLUSTER", "CANCELSLOTMIGRATIONS")
