"""Hash slots: the unit in which Redis Cluster divides its keys.

A key belongs to slot CRC16(key) mod 16384 (Redis Cluster specification, "Key distribution model").
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable

import msgspec

SLOT_COUNT = 16384
"""Slots of every Redis Cluster; fixed by the specification."""


class SlotRange(msgspec.Struct, frozen=True, order=True):
    """The slots `first` to `last`, both included."""

    first: int
    last: int

    @property
    def slot_count(self) -> int:
        """How many slots the range holds."""
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def parse_range(text: str) -> SlotRange:
    """Read `"5461"` or `"0-5460"`, as CLUSTER NODES prints them.

    Raises:
        ValueError: not a slot or a range of slots.
    """
    first, _, last = text.partition("-")
    parsed = SlotRange(int(first), int(last or first))
    if not 0 <= parsed.first <= parsed.last < SLOT_COUNT:
        raise ValueError(f"not a range of slots: {text!r}")
    return parsed


def merge(ranges: Iterable[SlotRange]) -> tuple[SlotRange, ...]:
    """Return the same slots as the fewest ranges, in order."""
    if isinstance(ranges, tuple) and len(ranges) < 2:
        return ranges
    merged: list[SlotRange] = []
    for current in sorted(ranges):
        if merged and current.first <= merged[-1].last + 1:
            merged[-1] = SlotRange(merged[-1].first, max(merged[-1].last, current.last))
        else:
            merged.append(current)
    return tuple(merged)


def subtract(ranges: Iterable[SlotRange], taken: Iterable[SlotRange]) -> tuple[SlotRange, ...]:
    """Return the slots of `ranges` that are not in `taken`."""
    left = list(merge(ranges))
    for hole in merge(taken):
        cut: list[SlotRange] = []
        for current in left:
            if hole.last < current.first or hole.first > current.last:
                cut.append(current)
                continue
            if current.first < hole.first:
                cut.append(SlotRange(current.first, hole.first - 1))
            if current.last > hole.last:
                cut.append(SlotRange(hole.last + 1, current.last))
        left = cut
    return tuple(left)


def count(ranges: Iterable[SlotRange]) -> int:
    """How many slots `ranges` hold; the ranges must not overlap."""
    return sum(current.slot_count for current in ranges)


def describe(ranges: Iterable[SlotRange]) -> str:
    """`0-5460 5462`, or `-` for none."""
    return " ".join(str(current) for current in ranges) or "-"


def key_slot(key: str) -> int:
    """The slot of a key; with a non-empty `{tag}` only the tag counts.

    Source: Redis Cluster specification, "Hash tags". CRC16 there is the XMODEM variant, as in `crc_hqx`.
    """
    start = key.find("{")
    end = key.find("}", start + 1)
    hashed = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    return binascii.crc_hqx(hashed.encode(), 0) % SLOT_COUNT


def key_in(ranges: Iterable[SlotRange], prefix: str) -> str:
    """A key that starts with `prefix` and falls into one of `ranges`.

    Raises:
        ValueError: `ranges` is empty.
    """
    wanted = merge(ranges)
    if not wanted:
        raise ValueError("no slot to find a key for")
    number = 0
    while True:
        slot = key_slot(f"{prefix}{number}")
        if any(current.first <= slot <= current.last for current in wanted):
            return f"{prefix}{number}"
        number += 1
