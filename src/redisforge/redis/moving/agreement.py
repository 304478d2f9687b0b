"""Wait until nodes see the owners of slots as they now are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from redisforge.errors import NodeError
from redisforge.model.facts import NodeFacts, PeerView
from redisforge.model.slots import SlotRange, describe, merge, subtract
from redisforge.redis.moving.chunks import ranges_of
from redisforge.redis.moving.ends import Ends

AGREEMENT_DEADLINE_S = 15.0
"""The new owner broadcasts at once; a node that missed that hears it by gossip within about a node timeout."""
_POLL_FIRST_S = 0.002
_POLL_LAST_S = 0.05


async def wait_agreed(ends: Ends, nodes: Sequence[NodeFacts], owners: Mapping[int, str]) -> None:
    """Wait until each of `nodes` holds `owners` (id by slot) for the owners.

    Raises:
        NodeError: a node did not within AGREEMENT_DEADLINE_S, or cannot be asked.
    """
    by_owner: dict[str, list[int]] = {}
    for slot, owner in owners.items():
        by_owner.setdefault(owner, []).append(slot)
    wanted = {owner: ranges_of(slots) for owner, slots in by_owner.items()}
    if wanted:
        await asyncio.gather(*(_wait(ends, node, wanted) for node in nodes))


async def _wait(ends: Ends, node: NodeFacts, wanted: Mapping[str, tuple[SlotRange, ...]]) -> None:
    deadline = time.monotonic() + AGREEMENT_DEADLINE_S
    pause_s = _POLL_FIRST_S
    while True:
        wrong = unseen(await ends.view(node), wanted)
        if not wrong:
            return
        if time.monotonic() > deadline:
            raise NodeError(
                "the slots were moved, but not every node knows their new owner",
                where=f"{node.name} ({node.address}:{node.port})",
                why=f"after {AGREEMENT_DEADLINE_S:g} s it still sees former owners of slots {describe(wrong)}",
                next_step="look at the node's links with `redisforge status`, then run the verb again",
            )
        await asyncio.sleep(pause_s)
        pause_s = min(_POLL_LAST_S, pause_s * 1.5)


def unseen(view: Sequence[PeerView], wanted: Mapping[str, tuple[SlotRange, ...]]) -> tuple[SlotRange, ...]:
    """The slots of `wanted` (by id of the owner) that somebody else owns, or nobody, as one node sees it.

    By ranges, not slot by slot: between two atomic tasks the target waits for this.
    """
    seen = {peer.id: peer.slots for peer in view}
    return merge(missing for owner, ranges in wanted.items() for missing in subtract(ranges, seen.get(owner, ())))
