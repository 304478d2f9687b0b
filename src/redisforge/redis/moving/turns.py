"""Each node takes part in one pair at a time."""

from __future__ import annotations

import asyncio

from redisforge.redis.moving.moves import SlotMove


class Turns:
    """Who is busy. A pair takes both of its nodes at once, so that no two pairs can wait for each other."""

    def __init__(self) -> None:
        self._busy: set[str] = set()
        self._changed = asyncio.Condition()

    async def take(self, move: SlotMove) -> None:
        """Wait until both nodes are free, and take them."""
        both = {move.source.id, move.target.id}
        async with self._changed:
            await self._changed.wait_for(lambda: self._busy.isdisjoint(both))
            self._busy |= both

    async def give(self, *node_ids: str) -> None:
        """Set nodes free; a node that is free already stays so."""
        async with self._changed:
            self._busy.difference_update(node_ids)
            self._changed.notify_all()
