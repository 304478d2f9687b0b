"""Taking a number of slots out of a master's ranges so that the cluster stays in few ranges.

Ranges are what every node keeps and every client downloads. So first goes what touches the receiver's own ranges, then
whole ranges, the biggest that fit; at most one range is cut, at one of its ends.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Iterable

from redisforge.model.slots import SlotRange, merge


class Ends:
    """The first and last slots of a receiver's ranges: what touches one of them makes no new range."""

    def __init__(self, ranges: Iterable[SlotRange]) -> None:
        self.firsts: set[int] = set()
        self.lasts: set[int] = set()
        for current in ranges:
            self.add(current)

    def add(self, current: SlotRange) -> None:
        """Ends inside a joined range stay; no slot outside touches them."""
        self.firsts.add(current.first)
        self.lasts.add(current.last)


class Pool:
    """The ranges of a giver, found by their ends and by their size."""

    def __init__(self, ranges: Iterable[SlotRange]) -> None:
        self._by_first: dict[int, SlotRange] = {}
        self._by_last: dict[int, SlotRange] = {}
        self._by_size: list[tuple[int, int]] = []
        """(slots, first slot), ascending."""
        for current in merge(ranges):
            self._put(current)

    def take(self, slot_count: int, receiver: Ends) -> list[SlotRange]:
        """Remove `slot_count` slots and add them to the receiver."""
        taken: list[SlotRange] = []
        left = slot_count
        touching = self._touching(receiver)
        for current in touching:
            if current.slot_count <= left:
                taken.append(self._remove(current))
                left -= current.slot_count
        for current in touching:
            if left and current.first in self._by_first:
                taken.append(self._cut(current, left, at_start=current.first - 1 in receiver.lasts))
                left = 0
        while left:
            fitting = bisect_right(self._by_size, (left, math.inf))
            size, first = self._by_size[fitting - 1] if fitting else self._by_size[-1]
            whole = self._by_first[first]
            taken.append(self._remove(whole) if size <= left else self._cut(whole, left, at_start=False))
            left -= min(size, left)
        for current in taken:
            receiver.add(current)
        return taken

    def _touching(self, receiver: Ends) -> list[SlotRange]:
        """The ranges beside one of the receiver's, the big ones first. Looks through the shorter of the two lists."""
        if len(self._by_first) < len(receiver.firsts):
            ranges = self._by_first.values()
            found = {r for r in ranges if r.first - 1 in receiver.lasts or r.last + 1 in receiver.firsts}
        else:
            behind = (self._by_first.get(last + 1) for last in receiver.lasts)
            before = (self._by_last.get(first - 1) for first in receiver.firsts)
            found = {r for r in (*behind, *before) if r is not None}
        return sorted(found, key=lambda r: (-r.slot_count, r.first))

    def _put(self, current: SlotRange) -> None:
        self._by_first[current.first] = current
        self._by_last[current.last] = current
        insort(self._by_size, (current.slot_count, current.first))

    def _remove(self, current: SlotRange) -> SlotRange:
        del self._by_first[current.first], self._by_last[current.last]
        del self._by_size[bisect_right(self._by_size, (current.slot_count, current.first)) - 1]
        return current

    def _cut(self, current: SlotRange, slot_count: int, *, at_start: bool) -> SlotRange:
        """Remove fewer slots than the range has, from one of its ends."""
        self._remove(current)
        border = current.first + slot_count if at_start else current.last - slot_count + 1
        lower, upper = SlotRange(current.first, border - 1), SlotRange(border, current.last)
        self._put(upper if at_start else lower)
        return lower if at_start else upper
