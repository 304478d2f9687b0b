"""`deploy --dry-run` in words."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from redisforge.cli.deploy import plan_text
from redisforge.model.deploy_report import DeployPlan, ImagePlan, ProgramPlan
from redisforge.model.steps import Gate, Phase, StartUnit

IDLE = DeployPlan(
    cluster="shop", unit="redis-7001", address="10.0.0.1", port=7001, outcome="runs already",
    programs=(ProgramPlan(program="redis", asked=">=8.2", version="8.6.3", action="nothing"),),
    image=ImagePlan(name="redisforge/redis:8.6.3", host="this machine", action="nothing"), phases=(), learns=(),
    notices=(),
)  # fmt: skip
START = Phase(
    title="start redis-7001",
    steps=(StartUnit(unit="redis-7001", permit_blank=True, why="it does not run"),),
    gate=Gate("nodes_answer", 30.0),
)


def test_nothing_to_do() -> None:
    assert plan_text(IDLE).splitlines() == [
        "redis-7001 of cluster shop at 10.0.0.1:7001",
        "Nothing to do: it runs as .env says.",
    ]


def test_everything_in_the_order_in_which_it_is_done() -> None:
    image = ImagePlan(
        name="redisforge/redis:8.6.3", host="this machine", action="build", base="debian", about_bytes=100 * 2**20
    )
    fetched = ProgramPlan(program="envoy", asked="newest", version="", action="fetch")
    plan = replace(
        IDLE, programs=(*IDLE.programs, fetched), image=image, phases=(START,), learns=("10.0.0.9:7001",),
        notices=("a word",),
    )  # fmt: skip
    assert plan_text(plan).splitlines() == [
        "note: a word",
        "redis-7001 of cluster shop at 10.0.0.1:7001",
        "1. fetch envoy newest into the cache  (it is not here)",
        "2. build redisforge/redis:8.6.3 on this machine, on debian  (about 100M)",
        "3. start redis-7001  [then: nodes_answer, within 30 s]",
        "     start redis-7001  (it does not run)",
        "4. record the cluster's other members: 10.0.0.9:7001",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"action": "pull"}, "pull redisforge/redis:8.6.3 to this machine"),
        ({"action": "build", "base": "b", "is_base_here": False}, "on b, which is pulled  (how large is known when"),
    ],
)
def test_images_that_cannot_be_measured(changes: dict[str, Any], words: str) -> None:
    assert IDLE.image is not None
    assert words in plan_text(replace(IDLE, image=replace(IDLE.image, **changes)))
