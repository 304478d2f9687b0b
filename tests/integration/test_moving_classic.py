"""The classic move on Redis 7.0: a crash after each of its steps, redis-cli's own crash, keys that are too big."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from moving_stack import Masters, even, until

from redisforge.errors import NodeError, RefusedError
from redisforge.model.facts import NodeFacts
from redisforge.model.slots import SlotRange, count, key_in, key_slot, subtract
from redisforge.plan.open_slots import find_open
from redisforge.redis.connection import Connection, Reply
from redisforge.redis.moving import MoveResult, MoveWatch, SlotMove, keys, move_slots

pytestmark = pytest.mark.integration

SLOTS = (SlotRange(100, 102),)
KEYS_PER_SLOT = 11


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Masters]:
    """Three masters, of which the first has slots 100-102 unless a test has moved them."""
    stack = Masters(tmp_path_factory.mktemp("classic"), ("redis", "7.0"), even(3))
    asyncio.run(stack.__aenter__())
    try:
        yield stack
    finally:
        stack.close()


class Crash(BaseException):
    """The tool is gone."""


class Mortal:
    """Lets the tool die in the middle of its n-th request that changes something: half of it was sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._whole = Connection.pipeline
        self.left = -1
        self.died = False
        mortal = self

        async def pipeline(connection: Connection, commands: Sequence[Sequence[str | int | bytes]]) -> list[Reply]:
            return await mortal.send(connection, commands)

        monkeypatch.setattr(Connection, "pipeline", pipeline)

    def lives(self, requests: int) -> None:
        """Die in the middle of request number `requests`, from 1; -1: never."""
        self.left, self.died = requests, False

    async def send(self, connection: Connection, commands: Sequence[Sequence[str | int | bytes]]) -> list[Reply]:
        if self.died:
            raise Crash
        if any("SETSLOT" in command[:2] or command[0] in ("MIGRATE", "UNLINK") for command in commands):
            self.left -= 1
            if self.left == 0:
                self.died = True
                half = commands[: (len(commands) + 1) // 2]
                await self._whole(connection, half)
                raise Crash
        return await self._whole(connection, commands)


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Mortal:
    """Small groups too, so that there are many steps."""
    monkeypatch.setattr(keys, "_GROUP_KEYS", 2)
    monkeypatch.setattr(keys, "_VOLLEY", 2)
    return Mortal(monkeypatch)


async def move(masters: Masters, one: SlotMove, watch: MoveWatch | None = None) -> MoveResult:
    return await move_slots([one], list((await masters.facts()).values()), masters.login, masters.kind, watch)


async def the_move(masters: Masters) -> SlotMove:
    """Slots 100-102 from where they are to the next node."""
    facts = list((await masters.facts()).values())
    source = next(n for n, node in enumerate(facts) if subtract(SLOTS, node.slots) != SLOTS)
    slots = tuple(SlotRange(s, s) for s in range(100, 103) if not subtract((SlotRange(s, s),), facts[source].slots))
    return SlotMove(facts[source], facts[(source + 1) % 3], slots)


def write(client: Any, run: str) -> dict[str, str]:
    """Write keys into slots 100-102 over again, as a client that follows redirections."""
    written = {
        f"{{{key_in((SlotRange(slot, slot),), 'tag')}}}:{number}": f"{run}-{number}"
        for slot in range(100, 103)
        for number in range(KEYS_PER_SLOT)
    }
    for key, value in written.items():
        assert client.set(key, value, ex=100_000)
    return written


def assert_there(client: Any, written: dict[str, str]) -> None:
    assert {key: client.get(key) for key in written} == written
    assert all(90_000 < client.ttl(key) <= 100_000 for key in written)


@pytest.mark.parametrize("forgetful", ["", "source", "target"])
async def test_a_crash_after_each_step_is_mended(masters: Masters, mortal: Mortal, forgetful: str) -> None:
    """With `forgetful` that node forgets, too, that the slots were open: so it is after a failover."""
    client: Any = masters.client()
    steps = 0
    while True:
        steps += 1
        written = write(client, f"before-{forgetful}-{steps}")
        one = await the_move(masters)
        mortal.lives(steps)
        if await survives(move(masters, one)):
            break
        mortal.lives(-1)
        if not forgetful:
            written |= write(client, f"meanwhile-{steps}")  # while the slots are open
        else:
            await forget(masters, one.source if forgetful == "source" else one.target)
        mortal.lives(steps % 5 + 1)  # and mending is cut as well
        await survives(masters.mend())
        mortal.lives(-1)
        await masters.mend()
        await until("all agree", masters.all_agree)
        assert_there(client, written)
        assert await masters.mend() == ()
        await the_rest(masters, one)
        assert_there(client, written)
    assert_there(client, written)
    assert steps > 12
    client.close()


async def the_rest(masters: Masters, one: SlotMove) -> None:
    """What of a move is still to be done."""
    facts = await masters.facts()
    source, target = facts[one.source.name], facts[one.target.name]
    await move(masters, SlotMove(source, target, subtract(one.slots, target.slots)))
    assert await masters.all_agree()


async def survives(work: Any) -> bool:
    try:
        await work
    except Crash:
        return False
    return True


async def forget(masters: Masters, node: NodeFacts) -> None:
    for slot in range(100, 103):
        await masters.call(node.name, "CLUSTER", "SETSLOT", slot, "STABLE")


async def test_a_move_that_redis_cli_left_is_mended(masters: Masters) -> None:
    client: Any = masters.client()
    written = write(client, "redis-cli")
    while not find_open(list((await masters.facts()).values())):
        facts = await masters.facts()
        target = min(facts.values(), key=lambda node: count(node.slots))
        argv, variables = masters.redis_cli(
            "--cluster", "reshard", f"127.0.0.1:{target.port}", "--cluster-from", "all", "--cluster-to", target.id,
            "--cluster-slots", "2000", "--cluster-yes",
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(*argv, env=variables, stdout=subprocess.DEVNULL)
        while process.returncode is None and not find_open(list((await masters.facts()).values())):
            pass
        if process.returncode is None:
            process.kill()
        await process.wait()
    said = await masters.mend()
    assert said
    assert all(word.startswith(("slot ", "slots ")) for word in said)
    await until("all agree", masters.all_agree)
    assert_there(client, written)
    client.close()


async def test_a_slot_with_a_huge_key_stays_and_says_why(masters: Masters) -> None:
    client: Any = masters.client()
    written = write(client, "huge")
    name = f"{{{key_in((SlotRange(101, 101),), 'tag')}}}:huge"
    client.set(name, "x" * 2_000_000)
    one = await the_move(masters)
    result = await move(masters, one, MoveWatch(max_key_bytes=1_000_000))
    assert [(left.slot, left.node, left.key) for left in result.left] == [(101, one.source.name, name)]
    assert result.left[0].size_bytes > 2_000_000
    assert result.slots_moved == count(one.slots) - 1
    assert await masters.all_agree()
    facts = await masters.facts()
    assert not subtract((SlotRange(101, 101),), facts[one.source.name].slots)
    assert_there(client, written)
    whole = SlotMove(facts[one.source.name], facts[one.target.name], (SlotRange(101, 101),))
    assert (await move(masters, whole)).left == ()
    client.delete(name)
    client.close()


async def test_importing_at_a_third_node_gives_its_keys_to_the_owner(masters: Masters) -> None:
    """Two stories at once: the slot has an owner, and another node still holds an older and an extra key of it."""
    client: Any = masters.client()
    one = await the_move(masters)
    slot = one.slots[0].first
    tag = f"{{{key_in((SlotRange(slot, slot),), 'tag')}}}"
    client.set(f"{tag}:0", "of the owner")
    client.delete(f"{tag}:only-there")
    stray = one.target
    await masters.call(stray.name, "CLUSTER", "SETSLOT", slot, "IMPORTING", one.source.id)
    async with await Connection.open((stray.address, stray.port), masters.login, timeout_s=5) as connection:
        for key in ("0", "only-there"):
            assert (await connection.pipeline([("ASKING",), ("SET", f"{tag}:{key}", "of the stray")]))[1] == "OK"
    await masters.mend()
    await until("all agree", masters.all_agree)
    assert client.get(f"{tag}:0") == "of the owner"
    assert client.get(f"{tag}:only-there") == "of the stray"
    assert (await masters.call(stray.name, "CLUSTER", "COUNTKEYSINSLOT", slot)) == 0
    client.close()


async def test_a_slot_without_an_owner_goes_to_the_node_that_has_its_keys(masters: Masters) -> None:
    client: Any = masters.client()
    written = write(client, "orphan")
    one = await the_move(masters)
    slot = one.slots[0].first
    await masters.call(one.target.name, "CLUSTER", "SETSLOT", slot, "IMPORTING", one.source.id)
    await masters.call(one.source.name, "CLUSTER", "SETSLOT", slot, "MIGRATING", one.target.id)
    for node in masters.nodes:
        await masters.call(node.name, "CLUSTER", "DELSLOTS", slot)
    assert key_slot(next(iter(written))) == slot
    await masters.mend()
    await until("all agree", masters.all_agree)
    assert_there(client, written)
    client.close()


async def test_a_slot_stays_open_while_the_other_end_is_away(masters: Masters) -> None:
    client: Any = masters.client()
    one = await the_move(masters)
    slot = one.slots[0].first
    await masters.call(one.target.name, "CLUSTER", "SETSLOT", slot, "IMPORTING", one.source.id)
    await masters.call(one.source.name, "CLUSTER", "SETSLOT", slot, "MIGRATING", one.target.id)
    written = write(client, "away")  # what is new goes to the target
    client.set(f"{{{key_in((SlotRange(slot, slot),), 'tag')}}}:new", "at the target")
    masters.kill(one.target.name)
    try:
        with pytest.raises(RefusedError, match=f"slots {slot} are open") as caught:
            await masters.mend()
        assert one.target.name in caught.value.why or f"{one.target.port}" in caught.value.why
    finally:
        masters.start(one.target.name)
    await until("it is back", masters.all_answer)
    await masters.mend()
    await until("all agree", masters.all_agree)
    assert_there(client, written)
    assert client.get(f"{{{key_in((SlotRange(slot, slot),), 'tag')}}}:new") == "at the target"
    client.close()


async def test_a_target_that_takes_no_more_leaves_nothing_lost(masters: Masters) -> None:
    client: Any = masters.client()
    written = write(client, "full")
    one = await the_move(masters)
    await masters.call(one.target.name, "CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(NodeError) as caught:
            await move(masters, one)
        assert "OOM" in caught.value.why
    finally:
        await masters.call(one.target.name, "CONFIG", "SET", "maxmemory", 1024 * 1024 * 1024)
    await masters.mend()
    await until("all agree", masters.all_agree)
    assert_there(client, written)
    client.close()
