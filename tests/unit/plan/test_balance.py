"""Which slots move: fair shares, the fewest slots, no slot twice; drains by room; rounds for one move per node."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from redisforge.model.slots import SLOT_COUNT, SlotRange, count, describe, merge, parse_range, subtract
from redisforge.plan.balance import Holder, InsufficientRoomError, Move, after, balance, distance, drain, rounds
from redisforge.plan.placement import split_slots

many = settings(max_examples=1000, deadline=None)
weight_values = st.one_of(st.sampled_from((0.0, 0.5, 1.0, 1.0, 1.0, 2.0, 3.0)), st.floats(0.01, 50.0))


@st.composite
def clusters(draw: st.DrawFn, *, most: int = 8, slots: int = SLOT_COUNT) -> tuple[Holder, ...]:
    """Holders of all slots, in random pieces; at least one has a weight."""
    size = draw(st.integers(1, most))
    cuts = sorted(draw(st.sets(st.integers(1, slots - 1), max_size=4 * size)))
    own: list[list[SlotRange]] = [[] for _ in range(size)]
    for first, end in zip([0, *cuts], [*cuts, slots], strict=True):
        own[draw(st.integers(0, size - 1))].append(SlotRange(first, end - 1))
    weights = draw(st.lists(weight_values, min_size=size, max_size=size).filter(any))
    return tuple(Holder(f"n{i}", merge(own[i]), weights[i]) for i in range(size))


def holder(name: str, slots: str, weight: float = 1.0) -> Holder:
    return Holder(name, tuple(parse_range(part) for part in slots.split()), weight)


def even(masters: int, empty: int = 0) -> tuple[Holder, ...]:
    """Masters n0, n1, … with equal shares, and others without slots."""
    full = (Holder(f"n{i}", (slots,)) for i, slots in enumerate(split_slots(masters)))
    return (*full, *(Holder(f"new{i}", ()) for i in range(empty)))


def held(holders: Sequence[Holder]) -> dict[str, int]:
    return {each.name: count(each.slots) for each in holders}


def assert_moves_are_sound(holders: Sequence[Holder], moves: Sequence[Move]) -> None:
    """Who gives owns what it gives, nothing is given twice, and afterwards each slot has exactly one owner."""
    slots = {each.name: each.slots for each in holders}
    given: list[SlotRange] = []
    for move in moves:
        assert move.slots
        assert move.source != move.target
        assert move.slots == merge(move.slots), "few and in order"
        assert subtract(move.slots, slots[move.source]) == (), f"{move.source} does not own them"
        given += move.slots
    assert count(merge(given)) == count(given), "a slot moves once"
    pairs = [(move.source, move.target) for move in moves]
    assert len(pairs) == len(set(pairs)), "one move for a pair"
    whole = merge(r for each in holders for r in each.slots)
    owned = [r for each in after(holders, moves) for r in each.slots]
    assert merge(owned) == whole
    assert count(owned) == count(whole), "no slot has two owners"


def fewest(holders: Sequence[Holder]) -> int:
    """The fewest slots that must move, by trying every way to round the exact shares up or down."""
    weights = [Fraction(str(each.weight)) for each in holders]
    owned = [count(each.slots) for each in holders]
    exact = [sum(owned) * weight / sum(weights) for weight in weights]
    lower = [math.floor(share) for share in exact]
    open_ones = [i for i, share in enumerate(exact) if share > lower[i]]
    ups = combinations(open_ones, sum(owned) - sum(lower))
    return min(sum(max(0, owned[i] - lower[i] - (i in up)) for i in range(len(owned))) for up in ups)


# --- balance -----------------------------------------------------------------------------------------------


@many
@given(clusters())
def test_shares_are_fair_and_the_fewest_slots_move(holders: tuple[Holder, ...]) -> None:
    moves = balance(holders)
    assert_moves_are_sound(holders, moves)
    balanced = after(holders, moves)
    assert distance(balanced) < 1
    assert sum(move.slot_count for move in moves) == fewest(holders)
    assert all(not each.slots for each in balanced if not each.weight), "weight 0 gives up everything"
    assert balance(balanced) == ()
    assert balance(holders) == moves, "the same each time"


@many
@given(clusters(), st.data())
def test_a_plan_cut_anywhere_is_continued_and_no_slot_travels_twice(
    holders: tuple[Holder, ...], data: st.DataObject
) -> None:
    """What was moved stays moved: the plan after any part of a plan moves other slots, and just those that are left."""
    total, travelled = fewest(holders), 0
    moved: tuple[SlotRange, ...] = ()
    while moves := balance(holders):
        done = list(data.draw(st.permutations(moves)))[: data.draw(st.integers(0, len(moves)))]
        part = data.draw(st.sampled_from(moves))
        if part not in done:  # of one more move only a part was done; and something always is
            middle = (part.slots[0].first + part.slots[0].last) // 2
            done.append(replace(part, slots=(SlotRange(part.slots[0].first, middle),)))
        now = merge(r for move in done for r in move.slots)
        assert subtract(now, moved) == now, "a slot that has moved stays"
        moved, travelled = merge((*moved, *now)), travelled + count(now)
        holders = after(holders, done)
    assert travelled == total
    assert distance(holders) < 1


@many
@given(clusters())
def test_few_moves_and_few_pieces(holders: tuple[Holder, ...]) -> None:
    moves = balance(holders)
    involved = {name for move in moves for name in (move.source, move.target)}
    assert len(moves) < max(1, len(involved))
    before, pieces = (sum(len(each.slots) for each in each_of) for each_of in (holders, after(holders, moves)))
    assert pieces <= before + len(moves), "a move cuts one range at most"


@pytest.mark.parametrize(
    ("holders", "expected"),
    [
        (even(3), {}),
        (even(1000), {}),
        ((holder("a", "0-16383"), holder("b", "")), {"a b": "8192-16383"}),
        ((holder("a", "0-5"), holder("b", "6-10"), holder("c", "11-16")), {}),
        ((holder("a", "0-9", 0), holder("b", "10-19")), {"a b": "0-9"}),
        ((holder("a", "0-11", 3), holder("b", "")), {"a b": "9-11"}),
        ((holder("a", "0-9"), holder("b", "", 9)), {"a b": "1-9"}),
        ((holder("a", "0-4 6-9"), holder("b", "5")), {"a b": "6-9"}),
        ((holder("a", "0-6 8-9"), holder("b", "7", 0.25)), {"a b": "6"}),
        ((holder("a", "0-3 10-19 30-35"), holder("b", "")), {"a b": "10-19"}),
        ((holder("b", "0-1 3-4"), holder("a", "2")), {"b a": "1"}),
    ],
    ids=["even", "1000", "half", "seventeen", "drain", "3:1", "1:9", "adjacent", "touching", "whole", "odd"],
)
def test_what_moves(holders: tuple[Holder, ...], expected: dict[str, str]) -> None:
    found = {f"{move.source} {move.target}": describe(move.slots) for move in balance(holders)}
    assert found == expected


def test_a_new_master_gets_its_share_from_all_and_in_few_pieces() -> None:
    holders = even(3, empty=1)
    balanced = after(holders, balance(holders))
    assert held(balanced) == {"n0": 4096, "n1": 4096, "n2": 4096, "new0": 4096}
    assert [len(each.slots) for each in balanced] == [1, 1, 1, 2]


def test_weights_are_what_is_written() -> None:
    """0.1 + 0.2 is 0.3: shares are exact, and nobody is a slot short because of binary fractions."""
    holders = (holder("a", "0-599", 0.1), holder("b", "", 0.2), holder("c", "", 0.3))
    assert held(after(holders, balance(holders))) == {"a": 100, "b": 200, "c": 300}


@pytest.mark.parametrize("threshold", [0.0, 1.0, 5.0, 10.0, 100.0])
@given(clusters())
def test_within_the_threshold_nothing_moves(threshold: float, holders: tuple[Holder, ...]) -> None:
    total, weights = sum(held(holders).values()), sum(Fraction(str(each.weight)) for each in holders)
    shares = [total * Fraction(str(each.weight)) / weights for each in holders]
    off = [abs(count(each.slots) - share) for each, share in zip(holders, shares, strict=True)]
    moves = balance(holders, threshold_percent=threshold)
    limit = Fraction(str(threshold)) / 100
    if any(gap > (share + 1) * limit + 1 for gap, share in zip(off, shares, strict=True)):
        assert moves == balance(holders), "somebody is too far off: all is made even"
    if all(gap + 1 <= (share - 1) * limit for gap, share in zip(off, shares, strict=True) if gap):
        assert moves == ()


def test_the_threshold_is_of_each_share() -> None:
    holders = (holder("a", "0-104"), holder("b", "105-199"))
    assert balance(holders, threshold_percent=5) == ()
    assert sum(move.slot_count for move in balance(holders, threshold_percent=4.9)) == 5
    assert balance((holder("a", "0", 0), holder("b", "1-16383")), threshold_percent=99), "weight 0 must be empty"


@pytest.mark.parametrize(
    ("holders", "threshold", "message"),
    [
        ((), 0, "no node has a weight"),
        ((holder("a", "0-9", 0), holder("b", "", 0)), 0, "no node has a weight"),
        ((holder("a", "0-9", -1), holder("b", "")), 0, "not a weight: a=-1"),
        ((holder("a", "0-9", math.nan),), 0, "not a weight: a=nan"),
        ((holder("a", "0-9", math.inf), holder("b", "")), 0, "not a weight: a=inf"),
        ((holder("a", "0-9"), holder("a", "")), 0, "same name"),
        ((holder("a", "0-9"), holder("b", "9-12")), 0, "two holders"),
        (even(3), -1, "not a threshold"),
        (even(3), math.nan, "not a threshold"),
    ],
)
def test_what_makes_no_sense_is_an_error(holders: tuple[Holder, ...], threshold: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        balance(holders, threshold_percent=threshold)


@pytest.mark.parametrize("weight", [5e-324, 1e-9, 1e9, 1.7e308])
def test_extreme_weights(weight: float) -> None:
    holders = (holder("a", "0-8191", weight), holder("b", "8192-16383"))
    balanced = after(holders, balance(holders))
    assert distance(balanced) <= 1
    assert sum(held(balanced).values()) == SLOT_COUNT


# --- drain -------------------------------------------------------------------------------------------------


@st.composite
def drains(draw: st.DrawFn) -> tuple[tuple[Holder, ...], frozenset[str]]:
    holders = draw(clusters())
    names = [each.name for each in holders if len([h for h in holders if h.weight and h is not each]) > 0]
    leaving = draw(st.sets(st.sampled_from(names), max_size=len(names))) if names else set[str]()
    stay = [each for each in holders if each.weight and each.name not in leaving]
    return holders, frozenset(leaving if stay else ())


@many
@given(drains())
def test_a_drain_empties_who_leaves_and_moves_nothing_else(case: tuple[tuple[Holder, ...], frozenset[str]]) -> None:
    holders, leaving = case
    moves = drain(holders, leaving)
    assert_moves_are_sound(holders, moves)
    assert {move.source for move in moves} <= leaving
    assert not {move.target for move in moves} & leaving
    drained = {each.name: each for each in after(holders, moves)}
    assert all(not drained[name].slots for name in leaving)
    gained = {each.name: count(drained[each.name].slots) - count(each.slots) for each in holders}
    level = {name: count(each.slots) / each.weight for name, each in drained.items() if each.weight}
    for taker in (name for name, slots in gained.items() if slots > 0):
        assert drained[taker].weight, "weight 0 takes nothing"
        for other in level.keys() - leaving:
            with_one_more = (count(drained[other].slots) + 1) / drained[other].weight
            assert with_one_more >= level[taker] * (1 - 1e-12), f"{other} should have had a slot of {taker}"


@many
@given(drains(), st.data())
def test_a_drain_cut_anywhere_is_continued(
    case: tuple[tuple[Holder, ...], frozenset[str]], data: st.DataObject
) -> None:
    holders, leaving = case
    straight = Counter(held(after(holders, drain(holders, leaving))))
    wanted = sum(count(each.slots) for each in holders if each.name in leaving)
    travelled = 0
    while moves := drain(holders, leaving):
        done = moves[: data.draw(st.integers(1, len(moves)))]
        travelled += sum(move.slot_count for move in done)
        holders = after(holders, done)
    assert travelled == wanted
    assert max((abs(straight[name] - slots) for name, slots in held(holders).items()), default=0) <= 1


def test_a_drain_is_even_by_weight() -> None:
    holders = (holder("a", "0-9"), holder("b", "10-19", 2), holder("c", "20-49"))
    assert held(after(holders, drain(holders, frozenset("c")))) == {"a": 17, "b": 33, "c": 0}


def test_a_drained_newcomer_gives_back_where_it_touches() -> None:
    before = even(3, empty=1)
    grown = after(before, balance(before))
    shrunk = after(grown, drain(grown, frozenset({"new0"})))
    assert sum(len(each.slots) for each in shrunk) <= 4


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (None, {"a": 15, "b": 15}),
        ({}, {"a": 15, "b": 15}),
        ({"a": 0}, {"a": 10, "b": 20}),
        ({"a": 299, "b": 10_000}, {"a": 12, "b": 18}),
        ({"a": 500, "b": 500}, {"a": 15, "b": 15}),
    ],
    ids=["not asked", "no limits", "one is full", "one has little", "just enough"],
)
def test_memory_limits_what_a_node_gets(room: dict[str, int] | None, expected: dict[str, int]) -> None:
    holders = (holder("a", "0-9"), holder("b", "10-19"), holder("c", "20-29"))
    moves = drain(holders, frozenset("c"), room=room, slot_bytes={"c": 100.0})
    assert held(after(holders, moves)) == {**expected, "c": 0}


def test_several_leave_with_slots_of_different_weight() -> None:
    """The heavy slots go first, where there is most room; a pair still has one move."""
    holders = (holder("a", "0-9"), holder("b", "10-19"), holder("heavy", "20-23"), holder("light", "24-43"))
    sizes = {"heavy": 1000.0, "light": 1.0}
    moves = drain(holders, frozenset({"heavy", "light"}), room={"a": 2010, "b": 2010}, slot_bytes=sizes)
    assert_moves_are_sound(holders, moves)
    assert held(after(holders, moves)) == {"a": 22, "b": 22, "heavy": 0, "light": 0}


@given(st.integers(0, 12_000), st.integers(0, 12_000))
def test_a_drain_fits_or_says_what_does_not(room_a: int, room_b: int) -> None:
    holders = (holder("a", "0-9"), holder("b", "10-19"), holder("c", "20-119"))
    room = {"a": room_a, "b": room_b}
    fits = room_a // 100 + room_b // 100 >= 100
    if fits:
        moves = drain(holders, frozenset("c"), room=room, slot_bytes={"c": 100.0})
        assert all(move.slot_count * 100 <= room[move.target] for move in moves)
        assert sum(move.slot_count for move in moves) == 100
        return
    with pytest.raises(InsufficientRoomError, match="have no room") as raised:
        drain(holders, frozenset("c"), room=room, slot_bytes={"c": 100.0})
    assert raised.value.slot_count == 100 - room_a // 100 - room_b // 100
    assert raised.value.size_bytes == raised.value.slot_count * 100


@pytest.mark.parametrize(
    ("leaving", "message"),
    [("x", "no holder is called x"), ("ab", "no holder with a weight stays")],
)
def test_a_drain_that_makes_no_sense_is_an_error(leaving: str, message: str) -> None:
    holders = (holder("a", "0-9"), holder("b", "10-19"), holder("c", "", 0))
    with pytest.raises(ValueError, match=message):
        drain(holders, frozenset(leaving))


def test_an_empty_node_may_always_leave() -> None:
    assert drain((holder("a", "0-9", 0), holder("b", "")), frozenset("b")) == ()


# --- rounds ------------------------------------------------------------------------------------------------

edges = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 50)).filter(lambda edge: edge[0] != edge[1])


@many
@given(st.lists(edges, max_size=40, unique_by=lambda edge: edge[:2]))
def test_rounds_hold_every_move_once_and_no_node_twice(pairs: list[tuple[int, int, int]]) -> None:
    moves = tuple(Move(f"n{source}", f"n{target}", (SlotRange(1, size),)) for source, target, size in pairs)
    found = rounds(moves)
    assert Counter(move for each in found for move in each) == Counter(moves)
    for each in found:
        nodes = [name for move in each for name in (move.source, move.target)]
        assert len(nodes) == len(set(nodes))
    load = Counter(name for move in moves for name in (move.source, move.target))
    busiest = max(load.values(), default=0)
    assert busiest <= len(found) <= max(busiest, 2 * busiest - 1)
    if found:
        assert max(moves, key=lambda move: move.slot_count).slot_count == found[0][0].slot_count, "the biggest first"


@many
@given(clusters(most=12))
def test_rounds_of_a_balance_are_few(holders: tuple[Holder, ...]) -> None:
    """In a balance a node gives or receives; then the greedy colouring comes close to the busiest node's moves."""
    moves = balance(holders)
    load = Counter(name for move in moves for name in (move.source, move.target))
    assert len(rounds(moves)) <= max(load.values(), default=0) + 1


def test_a_thousand_masters_are_planned_exactly() -> None:
    holders = even(500, empty=500)
    moves = balance(holders)
    assert_moves_are_sound(holders, moves)
    assert distance(after(holders, moves)) < 1
    assert sum(move.slot_count for move in moves) == sum(
        max(0, slots - target) for slots, target in zip(held(holders).values(), [16] * 1000, strict=True)
    ) - (SLOT_COUNT - 16_000)
