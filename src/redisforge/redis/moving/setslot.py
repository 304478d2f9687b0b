"""CLUSTER SETSLOT: the steps of the classic protocol, each for several slots at once.

Opened, a slot has an owner that answers for the keys that it still has and sends clients to the target for the others
(ASK), and a target that answers those who come with ASKING. Source: redis.io "CLUSTER SETSLOT".
"""

from __future__ import annotations

from collections.abc import Sequence

from redisforge.model.facts import NodeFacts
from redisforge.redis.moving.ends import Ends


async def open_slots(ends: Ends, source: NodeFacts, target: NodeFacts, slots: Sequence[int]) -> None:
    """Open slots. The target first: a source that sends clients to a target that does not expect them would send
    them in circles, because the target sends them back (MOVED). Raises ReplyError, NodeError."""
    await expect_keys(ends, target, source, slots)
    await ends.pipeline(source, [("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id) for slot in slots])


async def expect_keys(ends: Ends, node: NodeFacts, other: NodeFacts, slots: Sequence[int]) -> None:
    """Have `node` import slots from `other`. It then serves commands with ASKING for them, and MIGRATE of their keys.

    Raises ReplyError, NodeError.
    """
    await ends.pipeline(node, [("CLUSTER", "SETSLOT", slot, "IMPORTING", other.id) for slot in slots])


async def hand_over(ends: Ends, source: NodeFacts, target: NodeFacts, slots: Sequence[int]) -> None:
    """Give emptied slots to the target.

    The target first: it raises its epoch and tells everybody. The other way round, a source that dies in between
    would leave a slot whose owner does not know that it is one, and in between clients would be sent in circles. A
    source that still has keys refuses. Raises ReplyError, NodeError.
    """
    for node in (target, source):
        await give(ends, node, slots, target.id)


async def give(ends: Ends, node: NodeFacts, slots: Sequence[int], owner_id: str) -> None:
    """Tell `node` who owns the slots. Raises ReplyError, NodeError."""
    await ends.pipeline(node, [("CLUSTER", "SETSLOT", slot, "NODE", owner_id) for slot in slots])


async def close(ends: Ends, node: NodeFacts, slots: Sequence[int]) -> None:
    """Forget that the slots are open; who owns them stays as it is. Raises ReplyError, NodeError."""
    await ends.pipeline(node, [("CLUSTER", "SETSLOT", slot, "STABLE") for slot in slots])


async def key_counts(ends: Ends, node: NodeFacts, slots: Sequence[int]) -> dict[int, int]:
    """How many keys of each slot are on `node`. Raises NodeError."""
    replies = await ends.pipeline(node, [("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in slots])
    return {slot: int(reply) for slot, reply in zip(slots, replies, strict=True)}


async def close_untouched(ends: Ends, source: NodeFacts, target: NodeFacts, slots: Sequence[int]) -> tuple[int, ...]:
    """Close the slots of which nothing has reached the target; returns those that must stay open.

    The source first, so that it sends no more clients to the target. Then the target, and only then is counted again:
    a client may have been on its way there. Such a slot is opened again.

    Raises:
        NodeError: a node does not answer.
    """
    touched = {slot for slot, count in (await key_counts(ends, target, slots)).items() if count}
    clean = [slot for slot in slots if slot not in touched]
    await close(ends, source, clean)
    await close(ends, target, clean)
    late = [slot for slot, count in (await key_counts(ends, target, clean)).items() if count]
    await open_slots(ends, source, target, late)
    return tuple(sorted(touched.union(late)))
