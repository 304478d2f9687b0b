"""The atomic mover of Valkey >= 9."""

from __future__ import annotations

from redisforge.redis.moving.job import Job


async def move_valkey_atomic(job: Job) -> None:
    """Move the slots of one pair."""
    raise NotImplementedError
