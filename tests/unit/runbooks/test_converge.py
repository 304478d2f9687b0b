"""The loop of the verbs: what it makes of a node that refuses a step."""

from __future__ import annotations

from typing import cast

import pytest

from redisforge.errors import AbortedError, LockedError
from redisforge.model.facts import Facts
from redisforge.model.steps import Gate, MendSlots, Phase, Promote
from redisforge.redis.connection import ReplyError
from redisforge.runbooks.converge import converge
from redisforge.runbooks.run import Runner


def wants(name: str) -> Phase:
    step = MendSlots(node=name, why="") if name == "mend" else Promote(node=name, mode="handover", why="")
    return Phase(title=name, steps=(step,), gate=Gate("took_over", 1.0))


class RefusedRunner:
    """Refuses every phase of `refused`; each look is a second later than the one before."""

    def __init__(self, *refused: str) -> None:
        self._refused = refused
        self.asked: list[str] = []
        self.looks = 0
        self.given_back = False

    async def carry_out(self, phase: Phase, facts: Facts) -> Facts:
        self.asked.append(phase.title)
        if phase.title in self._refused:
            raise ReplyError(f"{phase.title} refused", where="127.0.0.1:1", why="ERR not now")
        return Facts(observed_at_s=facts.observed_at_s + 1)

    async def give_reads_back(self, facts: Facts) -> None:
        del facts
        self.given_back = True

    async def look_again(self) -> Facts:
        self.looks += 1
        return Facts(observed_at_s=float(self.looks))


async def run(runner: RefusedRunner, *plans: str) -> list[str]:
    """`plans`: what the planner wants at each second; nothing at last."""

    def planner(facts: Facts) -> Phase | None:
        second = int(facts.observed_at_s)
        return wants(plans[second]) if second < len(plans) else None

    phases, _ = await converge(cast("Runner", runner), planner, Facts(observed_at_s=0.0), lambda: None)
    return [title for title, _ in phases]


async def test_what_is_not_wanted_any_more_may_have_been_refused() -> None:
    runner = RefusedRunner("redis-4")
    assert await run(runner, "redis-4", "redis-5") == ["redis-5"]
    assert runner.asked == ["redis-4", "redis-5"]


async def test_nothing_is_left_to_do_after_a_refusal() -> None:
    assert await run(RefusedRunner("redis-4"), "redis-4") == []


async def test_a_refusal_of_what_is_still_wanted_is_an_error() -> None:
    runner = RefusedRunner("redis-4")
    with pytest.raises(ReplyError, match="redis-4 refused"):
        await run(runner, "redis-4", "redis-4")
    assert runner.asked == ["redis-4"]


async def test_nobody_is_asked_without_end() -> None:
    runner = RefusedRunner("a", "b", "c", "d", "e")
    with pytest.raises(ReplyError, match="d refused"):
        await run(runner, "a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("reason", "puts_back"),
    [
        (KeyboardInterrupt(), True),
        (AbortedError("clients have waited"), True),
        (LockedError("the cluster's lock was lost"), False),
    ],
)
async def test_reads_are_given_back_when_it_is_to_stop_and_may_still_act(
    reason: BaseException, puts_back: bool
) -> None:
    runner = RefusedRunner()

    def stop() -> None:
        raise reason

    with pytest.raises(type(reason)):
        await converge(cast("Runner", runner), lambda _: wants("redis-4"), Facts(observed_at_s=0.0), stop)
    assert (runner.asked, runner.given_back) == ([], puts_back)


async def test_the_mover_has_tried_again_by_itself() -> None:
    with pytest.raises(ReplyError, match="mend refused"):
        await run(RefusedRunner("mend"), "mend", "redis-4")
