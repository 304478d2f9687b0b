"""Which slots move, so that every master holds its share: the fewest slots, in the fewest pieces.

Shares follow the weights. A share is seldom a whole number of slots; each holder then gets the whole number below it
or the one above, and those who already hold the one above keep it, for that moves the least. The choice depends on
what each holder has beyond the lower number and on nothing else, so a plan that was carried out in part is continued
by the next one: who gives never receives, and no slot travels twice. plan/carving.py chooses the slots themselves.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction

import msgspec

from redisforge.model.slots import SlotRange, count, merge, subtract
from redisforge.plan.carving import Ends, Pool


class Holder(msgspec.Struct, frozen=True):
    """A master, the slots that it owns, and its weight: it should own weight / (sum of weights) of all slots."""

    name: str
    slots: tuple[SlotRange, ...]
    weight: float = 1.0


class Move(msgspec.Struct, frozen=True):
    """Slots that change their owner from `source` to `target` (names of holders)."""

    source: str
    target: str
    slots: tuple[SlotRange, ...]

    @property
    def slot_count(self) -> int:
        """How many slots move."""
        return count(self.slots)


class InsufficientRoomError(ValueError):
    """The data of leaving nodes does not fit into the memory of those that stay.

    `slot_count` slots of about `size_bytes` bytes in total have no place.
    """

    def __init__(self, slot_count: int, size_bytes: float) -> None:
        super().__init__(f"{slot_count} slots of about {math.ceil(size_bytes)} bytes have no room")
        self.slot_count = slot_count
        self.size_bytes = math.ceil(size_bytes)


def balance(holders: Sequence[Holder], *, threshold_percent: float = 0.0) -> tuple[Move, ...]:
    """The moves that bring every holder within one slot of its share; a holder of weight 0 gives up everything.

    At most one Move for a pair of holders. Nothing moves while all of them are within `threshold_percent` of their
    shares (a holder of weight 0 must be empty for that), as with the threshold of `redis-cli --cluster rebalance`.

    Raises:
        ValueError: no holder has a weight; a weight or the threshold is negative or not finite; names or slots occur
            twice.
    """
    _check(holders)
    if not (math.isfinite(threshold_percent) and threshold_percent >= 0):
        raise ValueError(f"not a threshold in percent: {threshold_percent}")
    held = {holder.name: count(holder.slots) for holder in holders}
    shares = _whole_shares(holders)
    if all(abs(held[name] - share) * 100 <= threshold_percent * share for name, share in shares.items()):
        return ()
    surplus = {name: held[name] - share for name, share in shares.items() if held[name] > share}
    deficit = {name: share - held[name] for name, share in shares.items() if held[name] < share}
    return _carve(holders, surplus, deficit)


def drain(
    holders: Sequence[Holder],
    leaving: frozenset[str],
    *,
    room: Mapping[str, int] | None = None,
    slot_bytes: Mapping[str, float] | None = None,
) -> tuple[Move, ...]:
    """The moves that empty the holders named in `leaving`; no other slot moves.

    Each slot goes to the holder that then has the fewest for its weight, among those with memory for it.

    Args:
        holders: all masters, the leaving ones included (their weights do not matter).
        leaving: names of the holders to empty.
        room: free bytes by name of a staying holder; one that is not named has no limit.
        slot_bytes: average bytes of one slot by name of a leaving holder; one that is not named counts as 0.

    Raises:
        InsufficientRoomError: the slots do not all fit.
        ValueError: a leaving name is unknown, or slots must move and no staying holder has a weight; else as `balance`.
    """
    _check(holders, needs_weight=False)
    if unknown := leaving - {holder.name for holder in holders}:
        raise ValueError(f"no holder is called {', '.join(sorted(unknown))}")
    staying = [holder for holder in holders if holder.name not in leaving and holder.weight > 0]
    held = {holder.name: count(holder.slots) for holder in holders}
    if not staying and any(held[name] for name in leaving):
        raise ValueError("no holder with a weight stays")
    limits: Mapping[str, int] = room or {}
    left = {holder.name: float(limits.get(holder.name, math.inf)) for holder in staying}
    groups: defaultdict[float, dict[str, int]] = defaultdict(dict)  # holders whose slots weigh the same
    for holder in holders:
        if holder.name in leaving and held[holder.name]:
            weighs = (slot_bytes or {}).get(holder.name, 0.0) if room is not None else 0.0
            groups[weighs][holder.name] = held[holder.name]
    moves: list[Move] = []
    for weighs, surplus in sorted(groups.items(), reverse=True):  # the heaviest first, while there is most room
        given = _pour(staying, held, left, sum(surplus.values()), weighs)
        moves += _carve(after(holders, moves), surplus, given)
    return _joined(moves)


def rounds(moves: Iterable[Move]) -> tuple[tuple[Move, ...], ...]:
    """Group the moves so that in a round no node occurs twice, as source or target: the bigger ones first.

    Redis runs one atomic slot migration per node at a time (`cluster_asm.c`, "another ASM task is already in
    progress"). This is a greedy colouring of the edges: the busiest node's number of moves, or a little more.
    """
    busy: defaultdict[str, int] = defaultdict(int)  # bit r of a node: it is busy in round r
    found: list[list[Move]] = []
    for move in sorted(moves, key=lambda move: -move.slot_count):
        taken = busy[move.source] | busy[move.target]
        free = ~taken & (taken + 1)  # the lowest bit that is not set
        busy[move.source] |= free
        busy[move.target] |= free
        number = free.bit_length() - 1
        if number == len(found):
            found.append([])
        found[number].append(move)
    return tuple(tuple(moves_of_round) for moves_of_round in found)


def after(holders: Sequence[Holder], moves: Iterable[Move]) -> tuple[Holder, ...]:
    """The holders once the moves are done, in the same order."""
    gained: defaultdict[str, list[SlotRange]] = defaultdict(list)
    lost: defaultdict[str, list[SlotRange]] = defaultdict(list)
    for move in moves:
        lost[move.source] += move.slots
        gained[move.target] += move.slots
    return tuple(
        msgspec.structs.replace(
            holder, slots=subtract((*holder.slots, *gained.get(holder.name, ())), lost.get(holder.name, ()))
        )
        for holder in holders
    )


def distance(holders: Sequence[Holder]) -> float:
    """How many slots the worst holder is away from its exact share. Raises ValueError as `balance` does."""
    _check(holders)
    return max(abs(float(count(holder.slots) - share)) for holder, share in _exact_shares(holders))


def _check(holders: Sequence[Holder], *, needs_weight: bool = True) -> None:
    for holder in holders:
        if not (math.isfinite(holder.weight) and holder.weight >= 0):
            raise ValueError(f"not a weight: {holder.name}={holder.weight:g}")
    if needs_weight and not any(holder.weight for holder in holders):
        raise ValueError("no node has a weight above 0")
    if len({holder.name for holder in holders}) < len(holders):
        raise ValueError("two holders have the same name")
    ranges = [current for holder in holders for current in holder.slots]
    if count(merge(ranges)) < count(ranges):
        raise ValueError("a slot has two holders")


def _exact_shares(holders: Sequence[Holder]) -> list[tuple[Holder, Fraction]]:
    """Weights are taken as they are written: 0.1 is a tenth, which no float is."""
    weights = [Fraction(str(holder.weight)) for holder in holders]
    each = Fraction(sum(count(holder.slots) for holder in holders)) / sum(weights)
    return [(holder, weight * each) for holder, weight in zip(holders, weights, strict=True)]


def _whole_shares(holders: Sequence[Holder]) -> dict[str, int]:
    """Slots by name. See the module's head for who gets the number above its exact share."""
    exact = {holder.name: share for holder, share in _exact_shares(holders)}
    held = {holder.name: count(holder.slots) for holder in holders}
    whole = {name: math.floor(share) for name, share in exact.items()}
    open_names = [name for name, share in exact.items() if share > whole[name]]
    open_names.sort(key=lambda name: (held[name] <= whole[name], whole[name] - exact[name], name))
    for name in open_names[: sum(held.values()) - sum(whole.values())]:
        whole[name] += 1
    return whole


def _pour(
    staying: Sequence[Holder], held: dict[str, int], room: dict[str, float], slot_count: int, slot_bytes: float
) -> dict[str, int]:
    """Give `slot_count` slots away, one by one; `held` and `room` (bytes) change accordingly. Returns slots by name."""
    given: defaultdict[str, int] = defaultdict(int)
    queue = [((held[h.name] + 1) / h.weight, number) for number, h in enumerate(staying)]
    heapq.heapify(queue)
    left = slot_count
    while left:
        while queue and room[staying[queue[0][1]].name] < slot_bytes:
            heapq.heappop(queue)
        if not queue:
            raise InsufficientRoomError(left, left * slot_bytes)
        number = queue[0][1]
        name = staying[number].name
        given[name] += 1
        held[name] += 1
        room[name] -= slot_bytes
        left -= 1
        heapq.heapreplace(queue, ((held[name] + 1) / staying[number].weight, number))
    return given


def _carve(holders: Sequence[Holder], surplus: Mapping[str, int], deficit: Mapping[str, int]) -> tuple[Move, ...]:
    """Match those who give with those who receive, the biggest with the biggest, and choose the slots.

    Both mappings hold slots by name, with the same sum. That makes fewer moves than there are nodes in it.
    """
    slots = {holder.name: holder.slots for holder in holders}

    def biggest_first(wanted: Mapping[str, int]) -> Callable[[str], tuple[int, int, str]]:
        return lambda name: (-wanted[name], slots[name][0].first if slots[name] else 0, name)

    sources = sorted(surplus, key=biggest_first(surplus))
    targets = sorted(deficit, key=biggest_first(deficit))
    pools = {name: Pool(slots[name]) for name in sources}
    own = {name: Ends(slots[name]) for name in targets}
    to_give, to_get = dict(surplus), dict(deficit)
    moves: list[Move] = []
    while sources and targets:
        source, target = sources[0], targets[0]
        slot_count = min(to_give[source], to_get[target])
        taken = pools[source].take(slot_count, own[target])
        moves.append(Move(source, target, merge(taken)))
        to_give[source] -= slot_count
        to_get[target] -= slot_count
        if not to_give[source]:
            sources.pop(0)
        if not to_get[target]:
            targets.pop(0)
    return tuple(moves)


def _joined(moves: Iterable[Move]) -> tuple[Move, ...]:
    """One Move for each pair of holders."""
    pairs: defaultdict[tuple[str, str], list[SlotRange]] = defaultdict(list)
    for move in moves:
        pairs[move.source, move.target] += move.slots
    return tuple(Move(source, target, merge(ranges)) for (source, target), ranges in pairs.items())
