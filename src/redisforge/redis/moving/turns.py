"""Each node takes part in one pair at a time."""

from __future__ import annotations

import asyncio

from redisforge.redis.moving.moves import SlotMove


class Turns:
    """Who is busy. A pair takes both of its nodes at once, so that no two pairs can wait for each other."""

    def __init__(self) -> None:
        self._busy: dict[str, SlotMove] = {}
        self._changed = asyncio.Condition()

    async def take(self, move: SlotMove) -> None:
        """Wait until both nodes are free, and take them."""
        both = (move.source.id, move.target.id)
        async with self._changed:
            await self._changed.wait_for(lambda: self._busy.keys().isdisjoint(both))
            self._busy |= dict.fromkeys(both, move)

    async def give(self, move: SlotMove, *node_ids: str) -> None:
        """Set nodes of `move` free; one that it has set free before, and that another pair may have now, stays as it
        is."""
        async with self._changed:
            for node_id in node_ids:
                if self._busy.get(node_id) is move:
                    del self._busy[node_id]
            self._changed.notify_all()
