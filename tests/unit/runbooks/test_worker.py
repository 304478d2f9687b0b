"""Which refusals of a node are no failure of a step. That real nodes refuse so: test_failover_restart.py."""

from __future__ import annotations

from typing import cast

import pytest
from test_status_report import TOPOLOGY

from redisforge.fleet.fake import FakeRuntime
from redisforge.model.facts import Facts
from redisforge.model.layout import ClusterLayout
from redisforge.model.steps import NodeStep, Promote, Reset
from redisforge.model.topology import Credentials
from redisforge.redis.connection import Reply, ReplyError
from redisforge.redis.observe import NodeAsker
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.work import Worker


class RefusingAsker:
    """A node of this role that refuses everything but ROLE."""

    def __init__(self, role: str) -> None:
        self._role = role

    async def call(self, address: tuple[str, int], *command: str | int) -> Reply:
        if command == ("ROLE",):
            return [self._role, 0, []]
        raise ReplyError("refused", where=f"{address[0]}:{address[1]}", why="ERR not now")


async def do(step: NodeStep, role: str) -> None:
    cluster = Cluster(TOPOLOGY, ClusterLayout("/nowhere"), Credentials({}), {}, FakeRuntime())
    asker = cast("NodeAsker", RefusingAsker(role))
    await Worker(cluster, asker, {}).do(step, Facts(observed_at_s=0.0))


@pytest.mark.parametrize("mode", ["handover", "force", "takeover"])
async def test_who_became_a_master_meanwhile_needs_no_failover(mode: str) -> None:
    step = Promote(node="redis-4", mode=mode, why="a test")  # pyright: ignore[reportArgumentType]
    await do(step, "master")
    with pytest.raises(ReplyError, match="refused"):
        await do(step, "slave")


async def test_no_other_refusal_is_passed_over() -> None:
    with pytest.raises(ReplyError, match="refused"):
        await do(Reset(node="redis-4", why="a test"), "master")
