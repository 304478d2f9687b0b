"""Signals that end a verb: the first at its next safe point, the second where it is."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from redisforge.runbooks.control import Control


def test_the_first_signal_asks_and_the_second_interrupts_a_verb_at_work() -> None:
    said: list[str] = []
    reached: list[str] = []

    async def work() -> None:
        control = Control(said.append)
        with control.listening():
            os.kill(os.getpid(), signal.SIGINT)
            async with asyncio.timeout(10):
                while not control.stop_requested():  # noqa: ASYNC110 - it is asked, as verbs ask it
                    await asyncio.sleep(0)
            reached.append("asked")
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)
            reached.append("never")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(work())
    assert reached == ["asked"]
    assert len(said) == 1


def test_a_verb_that_is_cancelled_otherwise_is_not_taken_for_interrupted() -> None:
    async def work() -> None:
        with Control(print).listening():
            await asyncio.sleep(30)

    async def cancelled() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
