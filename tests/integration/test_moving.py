"""Slots move between real nodes: under load, to the end, to a clean stop, or into the middle of a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest
from moving_data import assert_written, read_data, write_data, writing
from moving_stack import Masters, even, until

from redisforge.errors import NodeError
from redisforge.model.facts import NodeFacts
from redisforge.model.secret import Secret
from redisforge.model.slots import SlotRange, count, key_in, subtract
from redisforge.model.topology import EngineKind, UserRole
from redisforge.plan.open_slots import find_open
from redisforge.redis.connection import Connection
from redisforge.redis.moving import MoveProgress, MoveResult, MoveWatch, SlotMove, move_slots

pytestmark = pytest.mark.integration

ENGINES: tuple[tuple[EngineKind, str], ...] = (("redis", "8.6"), ("valkey", "9.1"), ("redis", "7.0"))
KEYS = 7000


@pytest.fixture(scope="module", params=ENGINES, ids=lambda engine: f"{engine[0]}-{engine[1]}")
def masters(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Masters]:
    """Three masters with all slots and a fourth without; a test leaves no slot open and may leave slots anywhere."""
    stack = Masters(tmp_path_factory.mktemp("moving"), request.param, even(3, 1))
    asyncio.run(stack.__aenter__())
    try:
        yield stack
    finally:
        stack.close()


def some(node: NodeFacts, slot_count: int) -> tuple[SlotRange, ...]:
    """The first `slot_count` slots of a node."""
    taken: list[SlotRange] = []
    for current in node.slots:
        if (left := slot_count - count(taken)) > 0:
            taken.append(SlotRange(current.first, min(current.last, current.first + left - 1)))
    return tuple(taken)


def a_move(facts: dict[str, NodeFacts], slot_count: int) -> SlotMove:
    """From the node with the most slots to the one with the fewest."""
    ordered = sorted(facts.values(), key=lambda node: count(node.slots))
    return SlotMove(ordered[-1], ordered[0], some(ordered[-1], slot_count))


async def move(masters: Masters, *moves: SlotMove, watch: MoveWatch | None = None) -> MoveResult:
    facts = await masters.facts()
    return await move_slots(moves, list(facts.values()), masters.login, masters.kind, watch)


async def assert_moved(masters: Masters, moves: tuple[SlotMove, ...]) -> None:
    """Everybody agrees, nothing is open, and the slots are the targets'."""
    assert await masters.all_agree()
    owners = {node.id: node.slots for node in (await masters.facts()).values()}
    for one in moves:
        assert all(
            any(own.first <= part.first and part.last <= own.last for own in owners[one.target.id])
            for part in one.slots
        )


async def test_moves_under_load_lose_nothing(masters: Masters) -> None:
    data = await write_data(masters, KEYS)
    facts = await masters.facts()
    target = min(facts.values(), key=lambda node: count(node.slots))
    sources = [node for node in facts.values() if node.id != target.id and count(node.slots) > 1400]
    moves = tuple(SlotMove(node, target, some(node, 1300)) for node in sources)
    reports: list[MoveProgress] = []
    with writing(masters) as writers:
        result = await move(masters, *moves, watch=MoveWatch(report=reports.append))
    assert not writers.errors, writers.errors[:3]
    assert_written(masters, writers)
    assert await read_data(masters, data) == data
    await assert_moved(masters, moves)
    assert result.slots_moved == 1300 * len(moves)
    assert result.keys_moved > 0 < result.bytes_moved
    assert not result.left
    assert not result.stopped
    assert [r.slots_done for r in reports] == sorted(r.slots_done for r in reports)
    assert reports[-1].slots_done == reports[-1].slots_total == result.slots_moved


async def test_moves_between_several_pairs_with_common_nodes(masters: Masters) -> None:
    data = await write_data(masters, KEYS)
    facts = sorted((await masters.facts()).values(), key=lambda node: -count(node.slots))
    first, second, third, fourth = facts
    moves = (
        SlotMove(first, fourth, some(first, 100)),
        SlotMove(first, third, some(first, 200)[-1:] if len(some(first, 200)) > 1 else ()),
        SlotMove(second, fourth, some(second, 100)),
        SlotMove(second, fourth, ()),
    )
    result = await move(masters, *moves)
    assert result.slots_moved == sum(count(one.slots) for one in moves)
    await assert_moved(masters, moves)
    assert await read_data(masters, data) == data


async def test_it_stops_at_a_clean_point(masters: Masters) -> None:
    data = await write_data(masters, KEYS)
    one = a_move(await masters.facts(), 1000)
    done: list[MoveProgress] = []
    # So slow that each piece is small: it would take minutes, and it is asked to stop after the first.
    watch = MoveWatch(report=done.append, stop_requested=lambda: bool(done), max_rate_bytes_s=20_000.0)
    result = await move(masters, one, watch=watch)
    assert result.stopped
    assert 0 < result.slots_moved < 1000
    assert await masters.all_agree()
    assert await read_data(masters, data) == data
    assert await masters.mend() == ()


async def test_the_rate_is_bounded(masters: Masters) -> None:
    await write_data(masters, KEYS)
    rate = 60_000.0
    result = await move(masters, a_move(await masters.facts(), 150), watch=MoveWatch(max_rate_bytes_s=rate))
    assert result.seconds >= 0.9 * result.bytes_moved / rate
    assert await masters.all_agree()


async def test_a_wrong_password_moves_nothing(masters: Masters) -> None:
    facts = await masters.facts()
    wrong = masters.login_of(UserRole.OPERATOR, Secret("wrong"))
    with pytest.raises(NodeError, match="AUTH") as caught:
        await move_slots([a_move(facts, 100)], list(facts.values()), wrong, masters.kind)
    assert "WRONGPASS" in caught.value.why
    assert "wrong" not in str(caught.value).replace("WRONGPASS", "").partition("why")[0]
    assert await masters.all_agree()


async def test_an_unreachable_target_is_named_and_nothing_is_open(masters: Masters) -> None:
    data = await write_data(masters, KEYS)
    facts = await masters.facts()
    one = a_move(facts, 100)
    masters.kill(one.target.name)
    try:
        with pytest.raises(NodeError) as caught:
            await move(masters, one)
        assert f"{one.target.port}" in caught.value.where
        source = next(n for n in (await masters.facts()).values() if n.id == one.source.id)
        assert not find_open([source])
    finally:
        masters.start(one.target.name)
    await until("all agree", masters.all_agree)
    assert await read_data(masters, data) == data


async def test_a_first_pair_that_cannot_begin_lets_the_others_end(masters: Masters) -> None:
    """The others wait for the first pair to begin; one that never will must not keep them waiting."""
    facts = await masters.facts()
    by_size = sorted(facts.values(), key=lambda node: count(node.slots))
    gone, other = SlotMove(by_size[-1], by_size[0], some(by_size[-1], 100)), by_size[-2]
    masters.kill(gone.source.name)
    try:
        with pytest.raises(NodeError) as caught:
            async with asyncio.timeout(60):
                await move(masters, gone, SlotMove(other, by_size[1], some(other, 50)))
        assert f"{gone.source.port}" in caught.value.where
        left = [node for node in (await masters.facts()).values() if node.id == other.id]
        assert not find_open(left)
    finally:
        masters.start(gone.source.name)
    await until("all agree", masters.all_agree)


@pytest.mark.parametrize("victim", ["source", "target"])
async def test_a_node_dies_in_the_middle(masters: Masters, victim: str) -> None:
    data = await write_data(masters, KEYS)
    await write_bulk(masters, 60)
    one = a_move(await masters.facts(), 1500)
    name = (one.source if victim == "source" else one.target).name
    watch = MoveWatch(stop_requested=Hook(4, lambda: masters.kill(name)))
    with pytest.raises(NodeError):
        await move(masters, one, watch=watch)
    masters.start(name)
    await until("it is back", masters.all_answer)
    await masters.mend()
    await until("all agree", masters.all_agree)
    assert await read_data(masters, data) == data
    left = await still_to_move(masters, one)
    await move(masters, left)
    await assert_moved(masters, (one,))
    assert await read_data(masters, data) == data


async def test_the_mover_is_cancelled_in_the_middle(masters: Masters) -> None:
    data = await write_data(masters, KEYS)
    await write_bulk(masters, 60)
    one = a_move(await masters.facts(), 1500)
    running: list[asyncio.Task[MoveResult]] = []
    watch = MoveWatch(stop_requested=Hook(4, lambda: [task.cancel() for task in running]))
    running.append(asyncio.create_task(move(masters, one, watch=watch)))
    with pytest.raises(asyncio.CancelledError):
        await running[0]
    await masters.mend()
    await until("all agree", masters.all_agree)
    await move(masters, await still_to_move(masters, one))
    await assert_moved(masters, (one,))
    assert await read_data(masters, data) == data


# --- what these tests share ---


class Hook:
    """A stop_requested that never asks to stop, but does something at its n-th call."""

    def __init__(self, number: int, action: object) -> None:
        self._number, self._action = number, action
        self.calls = 0

    def __call__(self) -> bool:
        self.calls += 1
        if self.calls == self._number and callable(self._action):
            self._action()
        return False


async def still_to_move(masters: Masters, one: SlotMove) -> SlotMove:
    """What of a move is left to be done."""
    facts = {node.id: node for node in (await masters.facts()).values()}
    source, target = facts[one.source.id], facts[one.target.id]
    return msgspec.structs.replace(one, source=source, target=target, slots=subtract(one.slots, target.slots))


async def write_bulk(masters: Masters, megabytes: int) -> None:
    """So much data that an atomic task takes a while."""
    facts = await masters.facts()
    await asyncio.gather(*(_bulk(masters, node, megabytes // 3) for node in facts.values() if node.slots))


async def _bulk(masters: Masters, node: NodeFacts, megabytes: int) -> None:
    slots = some(node, 1500)
    async with await Connection.open((node.address, node.port), masters.login, timeout_s=30.0) as connection:
        for number in range(megabytes):
            tag = key_in(slots, f"bulk{number}-")
            await connection.pipeline([("SET", f"{{{tag}}}:{part}", "x" * 10_000) for part in range(100)])
