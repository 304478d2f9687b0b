"""The work of one pair, as every mover gets it."""

from __future__ import annotations

from dataclasses import dataclass

from redisforge.errors import NodeError
from redisforge.model.facts import NodeFacts
from redisforge.model.slots import describe
from redisforge.redis.moving.chunks import ranges_of
from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.moves import SlotMove
from redisforge.redis.moving.sizes import SlotSizes
from redisforge.redis.moving.tally import Tally
from redisforge.redis.moving.turns import Turns


@dataclass(frozen=True, kw_only=True)
class Job:
    """One pair that has its turn. `ends` are connections for it alone; `tally` and `turns` are shared by all pairs."""

    move: SlotMove
    sizes: SlotSizes
    ends: Ends
    tally: Tally
    turns: Turns

    @property
    def source(self) -> NodeFacts:
        """Who owns the slots before."""
        return self.move.source

    @property
    def target(self) -> NodeFacts:
        """Who owns them afterwards."""
        return self.move.target

    def failure(self, slots: tuple[int, ...], why: str) -> NodeError:
        """Slots that could not be moved, in an atomic way, so that they are where they were."""
        return NodeError(
            f"slots {describe(ranges_of(slots))} could not be moved from {self.source.name} to {self.target.name}; "
            "they stay where they are",
            where=f"{self.target.name} ({self.target.address}:{self.target.port})",
            why=why,
            next_step="mend the cause and run the verb again: it goes on with the slots that are left",
        )
