"""Atomic tasks that an earlier run began: the engine goes on with them although the tool is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from redisforge.model.facts import NodeFacts
from redisforge.model.versions import version_of
from redisforge.redis.connection import ReplyError
from redisforge.redis.moving.atomic import as_dictionary
from redisforge.redis.moving.chunks import atomic_since
from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.moves import MoveWatch
from redisforge.redis.moving.valkey_atomic import FINISHED, migrations

_PATIENCE_S = 60.0
"""A task of the size that move_slots begins ends within seconds; one that was given more to do is cancelled."""
_POLL_S = 0.05


async def end_earlier_tasks(
    ends: Ends, masters: Sequence[NodeFacts], engine_kind: str, watch: MoveWatch
) -> tuple[str, ...]:
    """Wait for every task that runs; cancel those that fail, or take longer than a minute, or when asked to stop.

    Cancelling loses nothing: the slots stay with their owner. Returns in words what was done. Raises NodeError.
    """
    since = atomic_since(engine_kind)
    knowing = [node for node in masters if since and version_of(node.version) >= since]
    deadline = time.monotonic() + _PATIENCE_S
    said = [await _end(ends, node, engine_kind, watch, deadline) for node in knowing]
    return tuple(words for words in said if words)


async def _end(ends: Ends, node: NodeFacts, engine_kind: str, watch: MoveWatch, deadline: float) -> str:
    waited = False
    while slots := await (_redis_tasks(ends, node) if engine_kind == "redis" else _valkey_tasks(ends, node)):
        states = set(slots.values())
        if "failed" in states or watch.stop_requested() or time.monotonic() > deadline:
            command = ("MIGRATION", "CANCEL", "ALL") if engine_kind == "redis" else ("CANCELSLOTMIGRATIONS",)
            with suppress(ReplyError):  # it has ended meanwhile
                await ends.call(node, "CLUSTER", *command)
            return f"{node.name}: cancelled an earlier migration of slots {', '.join(slots)}; they stay where they were"
        waited = True
        await asyncio.sleep(_POLL_S)
    return f"{node.name}: waited for an earlier migration to end" if waited else ""


async def _redis_tasks(ends: Ends, node: NodeFacts) -> dict[str, str]:
    """State by slots of what `node` imports."""
    entries = [as_dictionary(entry) for entry in await ends.call(node, "CLUSTER", "MIGRATION", "STATUS", "ALL")]
    living = [entry for entry in entries if entry["operation"] == "import"]
    return {str(e["slots"]): str(e["state"]) for e in living if e["state"] not in ("completed", "canceled")}


async def _valkey_tasks(ends: Ends, node: NodeFacts) -> dict[str, str]:
    """State by slots of what `node` exports. A failed job has ended: Valkey does not start it again."""
    entries = await migrations(ends, node)
    return {str(e["slot_ranges"]): str(e["state"]) for e in entries if e["state"] not in FINISHED}
