"""What clients see when nobody is there to hand over: a master hangs, or its whole host is lost.

Redis's own detection decides then: the node timeout until it counts as failed, then an election. Measured from the
event to the last error of eight writers through Envoy, who send one command at a time and leave time-outs to Envoy.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench_handoff import DEADLINE_S, WRITERS, Writers, redisforge, until
from figure import Figure
from nodes import ports
from redisforge.model.facts import Facts
from redisforge.model.topology import Role
from redisforge.plan import gates
from redisforge.runbooks.cluster import Cluster, open_cluster
from redisforge.runbooks.observe import Observer

HOSTS = "".join(f"  - {{name: host-{n}, address: 127.0.0.{10 + n}, zone: zone-{n}}}\n" for n in (1, 2, 3))
CLIENT_TIMEOUT_S = 30.0
ALLOWED_MORE_S = 2.0
"""On top of the node timeout."""


class Loss(NamedTuple):
    """One event. `gap_s` is from the event to the last error."""

    gap_s: float
    errors: int
    lost: int


def lost_windows(folder: Path, tries: int) -> Iterator[Figure]:
    """The figures: medians of `tries` hangs and of as many lost hosts, at most three in each fresh cluster."""
    config = folder / "lost.yaml"
    config.write_text(f"name: bench\n{ports()}hosts:\n{HOSTS}")
    for what, by_host in (("SIGSTOP of a master", False), ("loss of a host (keepers and nodes killed)", True)):
        found: list[Loss] = []
        timeout_s = 0.0
        while len(found) < tries:
            home = folder / f"lost-{by_host}-{len(found)}"
            try:
                redisforge(home, "up", "--config", str(config))
                cluster = open_cluster(home, None)
                timeout_s = cluster.topology.redis.node_timeout_ms / 1000
                found += _losses(cluster, home, config, by_host=by_host, tries=tries - len(found))
            finally:
                redisforge(home, "down", "--purge", "--yes")
        gap_s = statistics.median(loss.gap_s for loss in found)
        limit_s = timeout_s + ALLOWED_MORE_S
        yield Figure(f"{what}: until the last error", gap_s, "s", limit_s, tries)
        yield Figure("… the longest of them", max(loss.gap_s for loss in found), "s", None, tries)
        yield Figure("… beyond the node timeout", gap_s - timeout_s, "s", None, tries)
        yield Figure("… errors", statistics.median(loss.errors for loss in found), "", None, tries)
        yield Figure("… acknowledged keys lost, in all tries", sum(loss.lost for loss in found), "", 0, tries)


def _losses(cluster: Cluster, home: Path, config: Path, *, by_host: bool, tries: int) -> list[Loss]:
    """One loss after another, each on a host that had none yet, with the cluster whole between them."""
    found: list[Loss] = []
    for host in [host.name for host in cluster.topology.hosts][:tries]:
        found.append(asyncio.run(_loss(cluster, host, by_host=by_host)))
        redisforge(home, "up", "--config", str(config))
        redisforge(home, "rebalance", "--roles")  # else the next host may hold most of the masters
    return found


async def _loss(cluster: Cluster, host: str, *, by_host: bool) -> Loss:
    here = {node.name for node in cluster.topology.nodes if node.host == host}
    async with Observer(cluster, with_listing=True) as observer:
        facts = await observer.look(fresh_units=True)
        masters = sorted(name for name in here if facts.nodes[name].role is Role.MASTER)
        if not masters:
            raise SystemExit(f"{host} holds no master")
        units = facts.units
        writers = Writers(cluster)
        writers.timeout_s = CLIENT_TIMEOUT_S
        tasks = [asyncio.create_task(writers.run(number)) for number in range(WRITERS)]
        await until(_acknowledged(writers), "writers at work")
        began = time.perf_counter()
        if by_host:
            for name in here:
                os.kill(units[name].keeper_pid, signal.SIGKILL)
            for name in here:
                os.kill(units[name].pid, signal.SIGKILL)
            down = here
        else:
            os.kill(units[masters[0]].pid, signal.SIGSTOP)
            down = {masters[0]}
        try:
            await until(lambda: _served_without(observer, cluster, down), "the others serve every slot")
            await _quiet(writers)
        finally:
            if not by_host:
                os.kill(units[masters[0]].pid, signal.SIGCONT)
        writers.stopping = True
        await asyncio.gather(*tasks)
        lost = await writers.lost()
    gap_s = writers.errors[-1] - began if writers.errors else 0.0
    return Loss(gap_s, len(writers.errors), lost)


def _acknowledged(writers: Writers) -> Callable[[], Awaitable[bool]]:
    async def enough() -> bool:
        return len(writers.acknowledged) > 1000

    return enough


async def _served_without(observer: Observer, cluster: Cluster, down: set[str]) -> bool:
    facts: Facts = await observer.look(fresh_units=True)
    others = [node for node in facts.reachable_nodes() if node.name not in down]
    return (
        not gates.slots_assigned(cluster.topology, facts)
        and sum(slots.last - slots.first + 1 for node in others if node.role is Role.MASTER for slots in node.slots)
        == 16384
    )


async def _quiet(writers: Writers) -> None:
    """Until every writer has been answered many times since the last error."""
    deadline = time.monotonic() + DEADLINE_S
    errors, answered = -1, 0
    while time.monotonic() < deadline:
        if len(writers.errors) != errors:
            errors, answered = len(writers.errors), writers.answers
        elif writers.answers - answered > 20_000:
            return
        await asyncio.sleep(0.01)
    raise SystemExit("the writers' errors do not end")
