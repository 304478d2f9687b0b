"""The classic mover: SETSLOT and MIGRATE, for every engine."""

from __future__ import annotations

from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.moves import SlotMove
from redisforge.redis.moving.tally import Tally


async def move_classic(move: SlotMove, ends: Ends, tally: Tally) -> None:
    """Move the slots of one pair."""
    raise NotImplementedError
