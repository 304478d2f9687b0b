"""The loop of every verb that changes something: plan the next phase from the facts, carry it out, look again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from redisforge.errors import AbortedError, GateError
from redisforge.model.facts import Facts
from redisforge.model.steps import MendSlots, MoveSlots
from redisforge.plan.predict import Planner
from redisforge.redis.connection import ReplyError
from redisforge.runbooks.run import Runner

_ROUND_LIMIT = 60
"""More phases than any healing of six nodes needs; a planner that never ends is a defect and must not spin."""
_ROUNDS_PER_NODE = 12
_REFUSALS = 3


async def converge(
    runner: Runner, planner: Planner, facts: Facts, safe_point: Callable[[], Awaitable[None] | None]
) -> tuple[tuple[tuple[str, float], ...], Facts]:
    """Carry out phases until the planner has no more; returns (title, seconds) of each, and the last facts.

    `safe_point` is called before every phase, when nothing is half done: it raises to stop the verb there. A node that
    was taken out of the reader endpoints for the next phase is put back first.

    A node that refuses a step may have changed since it was looked at: an election or a keeper is not ours to hold. So
    the planner is asked again, and only a refusal of what it still wants is an error.

    Raises:
        GateError: a gate did not hold in time, or there is no end.
        RedisForgeError: a step failed, or the planner refused.
    """
    done: list[tuple[str, float]] = []
    refusals = 0
    for _ in range(max(_ROUND_LIMIT, _ROUNDS_PER_NODE * len(facts.nodes))):
        phase = planner(facts)
        if phase is None:
            return tuple(done), facts
        try:
            if (waiting := safe_point()) is not None:
                await waiting
        except (KeyboardInterrupt, AbortedError):
            await runner.give_reads_back(facts)
            raise
        began = time.monotonic()
        try:
            facts = await runner.carry_out(phase, facts)
        except ReplyError:
            if any(isinstance(step, MoveSlots | MendSlots) for step in phase.steps):
                raise  # the mover knows what it may try again
            refusals += 1
            facts = await runner.look_again()
            if refusals > _REFUSALS or planner(facts) == phase:
                raise
            continue
        done.append((phase.title, round(time.monotonic() - began, 3)))
    raise GateError(
        f"no end after {len(done)} phases",
        why=f"the last one was: {done[-1][0]}",
        next_step="`redisforge status` shows the state; please report this with the cluster's journal.jsonl",
    )
