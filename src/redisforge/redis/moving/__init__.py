"""Moving slots between masters under load, and mending what an interrupted move left.

move_slots(moves, masters, login, engine_kind, watch) -> MoveResult
    mend_open_slots(nodes, login, engine_kind, watch) -> what was done, in words; call it before move_slots

No slot may be open when move_slots begins. plan/open_slots.find_open(nodes) says whether one is.
"""

from redisforge.redis.moving.mover import move_slots
from redisforge.redis.moving.moves import DEFAULT_MAX_KEY_BYTES, LeftSlot, MoveProgress, MoveResult, MoveWatch, SlotMove
from redisforge.redis.moving.open_slots import mend_open_slots

__all__ = [
    "DEFAULT_MAX_KEY_BYTES",
    "LeftSlot",
    "MoveProgress",
    "MoveResult",
    "MoveWatch",
    "SlotMove",
    "mend_open_slots",
    "move_slots",
]
