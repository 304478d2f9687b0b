"""What only atomic movers have: tasks that outlive the tool, and reasons that only the engine knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from moving_data import read_data, write_data
from moving_stack import Masters, even, until

from redisforge.errors import NodeError
from redisforge.model.slots import SlotRange, subtract
from redisforge.model.topology import EngineKind
from redisforge.redis.moving import SlotMove, move_slots

pytestmark = pytest.mark.integration

ENGINES: tuple[tuple[EngineKind, str], ...] = (("redis", "8.6"), ("valkey", "9.1"))
SOME = SlotRange(0, 2000)


@pytest.fixture(params=ENGINES, ids=lambda engine: f"{engine[0]}-{engine[1]}")
def masters(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Masters]:
    """Two masters with slots, the first half and the second, and one without."""
    stack = Masters(tmp_path_factory.mktemp("atomic"), request.param, even(2, 1))
    asyncio.run(stack.__aenter__())
    try:
        yield stack
    finally:
        stack.close()


async def begin(masters: Masters) -> None:
    """A migration that nobody waits for, of SOME from redis-1 to redis-3: as if the tool had been killed."""
    if masters.kind == "redis":
        await masters.call("redis-3", "CLUSTER", "MIGRATION", "IMPORT", SOME.first, SOME.last)
        return
    target = (await masters.facts())["redis-3"].id
    await masters.call("redis-1", "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", SOME.first, SOME.last, "NODE", target)


async def test_a_task_of_an_earlier_run_is_waited_for(masters: Masters) -> None:
    data = await write_data(masters, 70_000)
    await begin(masters)
    said = await masters.mend()  # the task may have ended by itself before that looks: then there is nothing to say
    assert all("waited for an earlier migration" in words for words in said), said
    assert not subtract((SOME,), (await masters.facts())["redis-3"].slots)  # at once: the task has ended
    await until("all agree", masters.all_agree)
    assert await read_data(masters, data) == data
    assert await masters.mend() == ()


async def test_a_task_of_an_earlier_run_that_fails_is_cancelled(masters: Masters) -> None:
    """The other end is dead: Redis tries again and again, Valkey gives up by itself."""
    data = await write_data(masters, 700)
    other = "redis-1" if masters.kind == "redis" else "redis-3"
    masters.kill(other)
    await begin_at_dead(masters)
    said = await masters.mend()
    masters.start(other)
    await until("all agree", masters.all_agree)
    if masters.kind == "redis":
        assert any("cancelled an earlier migration of slots 0-2000" in words for words in said)
    assert await masters.mend() == ()
    facts = await masters.facts()
    await move_slots(
        [SlotMove(facts["redis-1"], facts["redis-3"], (SOME,))], list(facts.values()), masters.login, masters.kind
    )
    assert await read_data(masters, data) == data


async def begin_at_dead(masters: Masters) -> None:
    if masters.kind == "redis":
        await begin(masters)

        async def failed() -> bool:
            tasks = await masters.call("redis-3", "CLUSTER", "MIGRATION", "STATUS", "ALL")
            return "failed" in tasks[0]

        await until("the task has failed", failed)
        return
    nodes = await masters.call("redis-1", "CLUSTER", "NODES")
    target = next(line.split()[0] for line in nodes.splitlines() if f":{masters.node('redis-3').port}@" in line)
    await masters.call("redis-1", "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", SOME.first, SOME.last, "NODE", target)


async def test_the_engines_reason_is_told(masters: Masters) -> None:
    """The engine refuses the task, or the two nodes do not get along."""
    data = await write_data(masters, 700)
    facts = await masters.facts()
    one = SlotMove(facts["redis-1"], facts["redis-3"], (SOME,))
    if masters.kind == "valkey":  # it logs in at the target as its replication user
        await masters.call("redis-1", "CONFIG", "SET", "masterauth", "wrong")
        expected = "WRONGPASS"
    else:  # an open slot anywhere on the node
        await masters.call("redis-3", "CLUSTER", "SETSLOT", 9000, "IMPORTING", facts["redis-2"].id)
        expected = "STABLE"
    with pytest.raises(NodeError, match="slots 0-2000 could not be moved from redis-1 to redis-3") as caught:
        await move_slots([one], list(facts.values()), masters.login, masters.kind)
    assert expected in caught.value.why
    await masters.mend()
    assert await masters.all_agree()
    assert await read_data(masters, data) == data
