"""What clients of a real Envoy see when nodes die or stall; each test breaks a cluster of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from envoy_stack import Stack, until

from redisforge.model.topology import RedisNode
from redisforge.redis.connection import ReplyError
from redisforge.runbooks.smoke import Door, Doors, SmokeTest

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def own_stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with Stack(tmp_path) as started:
        yield started


async def test_a_killed_master_is_followed_after_its_replica_takes_over(own_stack: Stack) -> None:
    master, replica = await own_stack.master_of("failover:key")
    await own_stack.endpoint_call("primary", "SET", "failover:key", "before")
    await own_stack.call(master, "WAIT", "1", "2000")

    own_stack.kill(master.name)
    await own_stack.call(replica, "CLUSTER", "FAILOVER", "FORCE")
    await until(lambda: _is_master(own_stack, replica), "the replica is a master", 10)

    async def writes() -> bool:
        return await own_stack.endpoint_call("primary", "SET", "failover:key", "after") == "OK"

    await until(writes, "primary writes to the new master", 10)
    assert await own_stack.call(replica, "GET", "failover:key") == "after"


async def _is_master(stack: Stack, node: RedisNode) -> bool:
    return "role:master" in await stack.call(node, "INFO", "replication")


async def test_reads_go_on_when_a_replica_dies(own_stack: Stack) -> None:
    await own_stack.endpoint_call("primary", "SET", "dead:key", "value")
    master, replica = await own_stack.master_of("dead:key")
    await own_stack.call(master, "WAIT", "1", "2000")
    own_stack.kill(replica.name)

    async def ten_reads() -> bool:
        for _ in range(10):
            await own_stack.endpoint_call("reader", "GET", "dead:key")
        return True

    await until(ten_reads, "the reader has turned to the master", 10)


async def test_a_master_that_stalled_is_used_again_at_once(own_stack: Stack) -> None:
    """Outlier detection must never cut off the only owner of a slot.

    What was asked while it stalled is answered late, or fails when Envoy needed a new connection and the stall
    outlasted the connect timeout (1 s): both are right. What is asked after the stall must be answered.
    """
    master, _ = await own_stack.master_of("stall:key")
    process = own_stack.processes[master.name]
    process.send_signal(signal.SIGSTOP)
    stalled = [asyncio.ensure_future(_get(own_stack)) for _ in range(4)]
    _, waiting = await asyncio.wait(stalled, timeout=1.0)
    process.send_signal(signal.SIGCONT)
    during = await asyncio.gather(*stalled, return_exceptions=True)
    after = await asyncio.gather(*(_get(own_stack) for _ in range(4)), return_exceptions=True)
    assert waiting or any(isinstance(answer, ReplyError) for answer in during), "nothing noticed the stall"
    assert all(answer is None or isinstance(answer, ReplyError) for answer in during), during
    assert after == [None] * 4


async def _get(stack: Stack) -> object:
    return await stack.endpoint_call("primary", "GET", "stall:key")


async def test_an_envoy_that_knows_no_slot_survives_the_smoke_test(tmp_path: Path) -> None:
    """No node runs, so every key is refused with `no upstream host`; a MULTI would crash it."""
    stack = Stack(tmp_path)
    try:
        await stack.start_envoy()
        door = Door("primary", *stack.address("primary"), stack.login("app_user"))

        async def answers() -> bool:
            return await stack.endpoint_call("primary", "PING") == "PONG"

        await until(answers, "Envoy answers")
        for _ in range(2):
            report = await SmokeTest(Doors(primary=door, may_be_node=True), "1").run("envoy")
            checks = {check.name: check for check in report.checks}
            assert "no upstream host" in checks["SET/GET"].detail
            assert checks["transaction on one hash tag"].skipped
            assert checks["PING"].passed
        assert stack.processes[stack.envoy.name].returncode is None
    finally:
        await stack.stop()
