"""Moving slots between masters under load, and mending what an interrupted move left.

move_slots(moves, masters, login, engine_kind, watch) -> MoveResult
"""

from redisforge.redis.moving.mover import move_slots
from redisforge.redis.moving.moves import DEFAULT_MAX_KEY_BYTES, LeftSlot, MoveProgress, MoveResult, MoveWatch, SlotMove

__all__ = [
    "DEFAULT_MAX_KEY_BYTES",
    "LeftSlot",
    "MoveProgress",
    "MoveResult",
    "MoveWatch",
    "SlotMove",
    "move_slots",
]
