"""Slot arithmetic against plain sets, and key slots against the specification's own values."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from redisforge.model.slots import (
    SLOT_COUNT,
    SlotRange,
    count,
    describe,
    key_in,
    key_slot,
    merge,
    parse_range,
    subtract,
)


def between(one: int, other: int) -> SlotRange:
    """The range with these two ends."""
    return SlotRange(min(one, other), max(one, other))


ranges = st.builds(between, st.integers(0, SLOT_COUNT - 1), st.integers(0, SLOT_COUNT - 1))
near = st.builds(between, st.integers(0, 60), st.integers(0, 60))
"""Ranges that often touch or overlap."""
range_lists = st.lists(ranges, max_size=6) | st.lists(near, max_size=12)


def plain(values: tuple[SlotRange, ...] | list[SlotRange]) -> set[int]:
    return {slot for value in values for slot in range(value.first, value.last + 1)}


@given(range_lists)
def test_merge_keeps_the_slots_and_leaves_the_fewest_ranges(values: list[SlotRange]) -> None:
    merged = merge(values)
    assert plain(merged) == plain(values)
    assert all(before.last + 1 < after.first for before, after in pairwise(merged))
    assert merge(merged) == merged
    assert merge(reversed(values)) == merged


@given(range_lists, range_lists)
def test_subtract_is_the_difference_of_sets(values: list[SlotRange], taken: list[SlotRange]) -> None:
    left = subtract(values, taken)
    assert plain(left) == plain(values) - plain(taken)
    assert left == merge(left)


@given(range_lists)
def test_count_of_merged_ranges_is_the_number_of_slots(values: list[SlotRange]) -> None:
    assert count(merge(values)) == len(plain(values))


@given(ranges)
def test_a_range_is_read_back_as_it_is_printed(value: SlotRange) -> None:
    assert parse_range(str(value)) == value


@pytest.mark.parametrize("text", ["", "-", "a", "1-b", "-1", "16384", "0-16384", "9-5", "1 2", "1-2-3", "0x1"])
def test_what_is_no_range_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_range(text)


@pytest.mark.parametrize(
    ("values", "text"),
    [((), "-"), ((SlotRange(5, 5),), "5"), ((SlotRange(0, 5460), SlotRange(5462, 5462)), "0-5460 5462")],
)
def test_ranges_in_words(values: tuple[SlotRange, ...], text: str) -> None:
    assert describe(values) == text


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("123456789", 0x31C3 % SLOT_COUNT),  # Redis Cluster specification, appendix A
        ("", 0),
        ("foo", 12182),
        ("bar", 5061),
        ("{foo}bar", 12182),
        ("bar{foo}", 12182),
        ("foo{bar}{zap}", 5061),
    ],
)
def test_known_key_slots(key: str, slot: int) -> None:
    assert key_slot(key) == slot


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        ("{user1000}.following", "user1000"),
        ("foo{}{bar}", "foo{}{bar}"),
        ("foo{{bar}}zap", "{bar"),
        ("foo{bar}{zap}", "bar"),
        ("{}", "{}"),
        ("}{", "}{"),
        ("a}b{c}d", "c"),
        ("open{only", "open{only"),
        ("close}only", "close}only"),
    ],
)
def test_only_a_tag_with_content_counts(key: str, hashed: str) -> None:
    assert key_slot(key) == crc16(hashed.encode()) % SLOT_COUNT


def crc16(data: bytes) -> int:
    """CRC16/XMODEM bit by bit: polynomial 0x1021, start 0."""
    register = 0
    for byte in data:
        register ^= byte << 8
        for _ in range(8):
            register = (register << 1 ^ 0x1021 if register & 0x8000 else register << 1) & 0xFFFF
    return register


@given(st.text())
@example("naïve")
def test_key_slots_follow_the_polynomial(key: str) -> None:
    assume("{" not in key)
    assume(all(not 0xD800 <= ord(letter) <= 0xDFFF for letter in key))
    assert key_slot(key) == crc16(key.encode()) % SLOT_COUNT


@given(st.lists(ranges, min_size=1, max_size=3))
def test_a_key_is_found_for_any_slots(values: list[SlotRange]) -> None:
    assume(len(plain(values)) > 200)  # few slots need many tries, which is slow and shows nothing more
    key = key_in(values, "probe:")
    assert key.startswith("probe:")
    assert key_slot(key) in plain(values)


def test_a_key_for_a_single_slot_is_found() -> None:
    assert key_slot(key_in([SlotRange(16383, 16383)], "p")) == 16383


def test_no_key_for_no_slot() -> None:
    with pytest.raises(ValueError, match="no slot"):
        key_in([], "p")
