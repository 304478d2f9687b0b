"""The pure parts of moving slots: which mover, in which pieces, and what is reported."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.model.facts import NodeFacts, PeerView
from redisforge.model.secret import Secret
from redisforge.model.slots import SlotRange
from redisforge.redis.connection import Login
from redisforge.redis.moving import MoveProgress, MoveWatch, SlotMove
from redisforge.redis.moving.agreement import unseen
from redisforge.redis.moving.chunks import CHUNK_BYTES, choose_mover, chunk_bytes, cut, ranges_of, slots_of
from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.keys import Key, groups, migrate_command, volleys
from redisforge.redis.moving.moves import by_pair
from redisforge.redis.moving.open_slots import Mended, in_words
from redisforge.redis.moving.tally import Tally
from redisforge.redis.moving.turns import Turns


def node(name: str, version: str = "8.6.3") -> NodeFacts:
    return NodeFacts(name=name, address="10.0.0.1", port=7000, id=f"id-{name}", version=version)


@pytest.mark.parametrize(
    ("kind", "source", "target", "mover"),
    [
        ("redis", "8.6.3", "8.4.0", "redis-atomic"),
        ("redis", "8.6.3", "8.2.1", "classic"),
        ("redis", "7.0.15", "8.6.3", "classic"),
        ("redis", "10.0.0", "8.10.1", "redis-atomic"),
        ("valkey", "9.1.2", "9.0.0", "valkey-atomic"),
        ("valkey", "9.1.2", "8.1.0", "classic"),
        ("redis", "", "8.6.3", "classic"),
        ("other", "9.9.9", "9.9.9", "classic"),
    ],
)
def test_an_atomic_mover_needs_both_ends(kind: str, source: str, target: str, mover: str) -> None:
    assert choose_mover(SlotMove(node("a", source), node("b", target), ()), kind) == mover


@given(
    st.lists(st.integers(0, 16383), unique=True, max_size=60).map(sorted),
    st.lists(st.floats(0, 100), min_size=60, max_size=60),
    st.floats(1, 500),
)
def test_pieces_hold_every_slot_once_and_keep_their_limit(slots: list[int], sizes: list[float], limit: float) -> None:
    size_of = dict(zip(slots, sizes, strict=False))
    pieces = cut(slots, size_of, limit)
    assert [slot for piece in pieces for slot in piece] == slots
    for piece in pieces:
        assert len(piece) == 1 or sum(size_of[slot] for slot in piece) <= limit * (1 + 1e-9)
    for piece, after in itertools.pairwise(pieces):  # none is cut off earlier than it must be
        assert sum(size_of[slot] for slot in (*piece, after[0])) > limit * (1 - 1e-9)


def test_slots_and_ranges() -> None:
    assert slots_of((SlotRange(3, 5), SlotRange(9, 9))) == [3, 4, 5, 9]
    assert ranges_of([3, 4, 5, 9]) == (SlotRange(3, 5), SlotRange(9, 9))


def test_a_bounded_rate_makes_smaller_pieces() -> None:
    assert chunk_bytes(None) == CHUNK_BYTES
    assert chunk_bytes(1000.0) == 1000
    assert chunk_bytes(0.5) == 1
    assert chunk_bytes(1e12) == CHUNK_BYTES


def test_moves_of_a_pair_are_joined_and_the_largest_comes_first() -> None:
    a, b, c = node("a"), node("b"), node("c")
    moves = [
        SlotMove(a, b, (SlotRange(0, 4),)),
        SlotMove(a, c, (SlotRange(20, 99),)),
        SlotMove(a, b, (SlotRange(5, 9),)),
        SlotMove(b, c, ()),
    ]
    assert by_pair(moves) == [SlotMove(a, c, (SlotRange(20, 99),)), SlotMove(a, b, (SlotRange(0, 9),))]


@given(st.lists(st.integers(0, 3_000_000), max_size=400))
def test_groups_hold_every_key_once_and_are_bounded(sizes: list[int]) -> None:
    keys = [Key(str(number).encode(), size) for number, size in enumerate(sizes)]
    made = list(groups(keys))
    assert [key for group in made for key in group] == keys
    assert all(len(group) == 1 or sum(key.size_bytes for key in group) <= 1024 * 1024 for group in made)
    assert all(len(group) <= 100 for group in made)
    sent = list(volleys(made))
    assert [group for volley in sent for group in volley] == made
    assert all(len(volley) <= 8 for volley in sent)


def test_migrate_says_who_logs_in_and_what_wins() -> None:
    login = Login(user="operator", password=Secret("word"))
    keys = [Key(b"a", 1), Key(b"b\xff", 1)]
    command = migrate_command(Ends(login), node("b"), keys, replace=True)
    assert command == (
        "MIGRATE", "10.0.0.1", 7000, "", 0, 5000, "REPLACE", "AUTH2", "operator", "word", "KEYS", b"a", b"b\xff",
    )  # fmt: skip
    plain = migrate_command(Ends(Login(password=Secret("word"))), node("b"), keys[:1], replace=False)
    assert plain[6:] == ("AUTH", "word", "KEYS", b"a")
    assert migrate_command(Ends(Login()), node("b"), keys[:1], replace=False)[6:] == ("KEYS", b"a")


def test_progress_tells_rate_and_time_left() -> None:
    progress = MoveProgress(
        slots_done=30, slots_total=40, keys_done=1, keys_total=3, bytes_done=100, bytes_total=300, elapsed_s=2.0
    )
    assert progress.rate_bytes_s == 50.0
    assert progress.left_s == 4.0, "many bytes are to come"


def test_time_left_goes_by_slots_where_the_keys_are_small() -> None:
    """The total of the bytes is estimated from the source's memory, and small keys then measure much less."""
    progress = MoveProgress(
        slots_done=2658, slots_total=2731, keys_done=1099, keys_total=1099, bytes_done=70_000, bytes_total=210_000,
        elapsed_s=27.0,
    )  # fmt: skip
    assert progress.left_s == pytest.approx(27.0 * 73 / 2658)


def test_time_left_goes_by_the_pace_of_late() -> None:
    """The first slots were full and took most of the time."""
    progress = MoveProgress(
        slots_done=100, slots_total=200, keys_done=900, keys_total=900, bytes_done=10**9, bytes_total=10**9,
        elapsed_s=60.0, recent_s=5.0, recent_slots=50, recent_bytes=0,
    )  # fmt: skip
    assert progress.left_s == 10.0


def test_the_pace_of_late_is_that_of_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("redisforge.redis.moving.tally.time.monotonic", lambda: now_s)
    tally = Tally(MoveWatch(), 1000)
    tally.keys_total = 1000
    reports: list[MoveProgress] = []
    for _ in range(40):  # 10 s in which a slot takes 0.25 s, then 5 s in which ten of them do
        now_s += 0.25
        tally.add((0,), "b", 1, 10)
    for _ in range(20):
        now_s += 0.25
        tally.add(tuple(range(10)), "b", 10, 100)
        reports.append(tally.progress())
    assert reports[-1].recent_s == pytest.approx(5.0)
    assert reports[-1].left_s == pytest.approx((1000 - 240) * 0.025)
    assert [report.left_s for report in reports] == sorted((r.left_s or 0.0 for r in reports), reverse=True)


def test_time_left_of_slots_without_a_byte_goes_by_slots() -> None:
    progress = MoveProgress(
        slots_done=10, slots_total=40, keys_done=0, keys_total=0, bytes_done=0, bytes_total=0, elapsed_s=2.0
    )
    assert progress.left_s == 6.0


def test_nothing_is_said_of_the_time_left_before_the_first_byte() -> None:
    progress = MoveProgress(
        slots_done=0, slots_total=40, keys_done=0, keys_total=9, bytes_done=0, bytes_total=9, elapsed_s=0.0
    )
    assert progress.left_s is None
    assert progress.rate_bytes_s == 0.0


def test_a_wish_to_stop_is_remembered_and_a_failure_stops_the_others_too() -> None:
    wishes = iter([False, True, False, False])
    tally = Tally(MoveWatch(stop_requested=lambda: next(wishes)), 1)
    assert [tally.should_stop() for _ in range(3)] == [False, True, True]
    failed = Tally(MoveWatch(), 1)
    failed.failed = True
    assert failed.should_stop()
    assert not failed.stopped


async def test_a_node_that_was_given_early_is_not_given_again_in_anothers_turn() -> None:
    turns = Turns()
    first, second, third = (SlotMove(node(name), node("t"), ()) for name in "abc")
    await turns.take(first)
    await turns.give(first, "id-t")
    await turns.take(second)
    await turns.give(first, "id-a", "id-t")  # t is the second's
    waiting = asyncio.create_task(turns.take(third))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    await turns.give(second, "id-b", "id-t")
    await asyncio.wait_for(waiting, 5)


@given(
    st.lists(st.sampled_from(["a", "b", ""]), min_size=40, max_size=40),
    st.dictionaries(st.integers(0, 39), st.sampled_from(["a", "b", "nobody knows it"])),
)
def test_slots_whose_owner_a_node_does_not_see_yet(seen: list[str], wanted: dict[int, str]) -> None:
    """As slot by slot would find it."""
    slots = {name: ranges_of([slot for slot, owner in enumerate(seen) if owner == name]) for name in ("a", "b")}
    view = [PeerView(id=name, address="10.0.0.1", port=7000, flags=(), slots=slots[name]) for name in slots]
    by_owner = {owner: ranges_of([s for s, own in wanted.items() if own == owner]) for owner in set(wanted.values())}
    assert slots_of(unseen(view, by_owner)) == sorted(slot for slot, owner in wanted.items() if seen[slot] != owner)


def test_slots_that_were_closed_for_the_same_reason_are_told_in_one_line() -> None:
    back, on = "rolled back: its owner has all keys", "finished: the new owner has keys of it already"
    mended = [
        *(Mended(slot, back, "redis-2") for slot in range(10, 58)),
        Mended(58, on, "redis-4", 3),
        Mended(60, back, "redis-2"),
        Mended(61, on, "redis-4", 2),
        Mended(62, back, "redis-3"),
        Mended(62, back, ""),
        Mended(10, back, "redis-2", 1),  # again, after a client's write that arrived late
    ]
    assert in_words(mended) == (
        f"slots 10-57 60: {back} (redis-2, 1 key moved)",
        f"slots 58 61: {on} (redis-4, 5 keys moved)",
        f"slot 62: {back} (redis-3)",
        f"slot 62: {back}",
    )
