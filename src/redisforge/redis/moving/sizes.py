"""How many keys and about how many bytes each slot holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from redisforge.model.facts import NodeFacts
from redisforge.redis.moving.ends import Ends
from redisforge.redis.parse import parse_info, parse_key_count

_AT_ONCE = 1024


class SlotSizes(msgspec.Struct, frozen=True):
    """Keys, and bytes estimated from the node's average key, by slot."""

    keys: dict[int, int]
    bytes: dict[int, float]

    def of(self, slots: Iterable[int]) -> tuple[int, int]:
        """(keys, bytes) of some slots together."""
        listed = list(slots)
        return sum(self.keys[slot] for slot in listed), round(sum(self.bytes[slot] for slot in listed))


async def measure(ends: Ends, node: NodeFacts, slots: Sequence[int]) -> SlotSizes:
    """Ask `node`. Counting is O(1) per slot; measuring every key would take longer than moving it."""
    keys: dict[int, int] = {}
    for start in range(0, len(slots), _AT_ONCE):
        some = slots[start : start + _AT_ONCE]
        counts = await ends.pipeline(node, [("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in some])
        keys.update(zip(some, (int(number) for number in counts), strict=True))
    info = parse_info(str(await ends.call(node, "INFO")))
    average = int(info.get("used_memory_dataset", 0)) / max(1, parse_key_count(info))
    return SlotSizes(keys, {slot: number * average for slot, number in keys.items()})
