"""The classic mover: SETSLOT and MIGRATE, for every engine."""

from __future__ import annotations

from redisforge.redis.moving.job import Job


async def move_classic(job: Job) -> None:
    """Move the slots of one pair."""
    raise NotImplementedError
