"""How fast slots move, against redis-cli on the same data in the same run."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cores import main_thread
from figure import Figure
from nodes import ports, started_nodes, until_ok
from redisforge.config.load import load
from redisforge.model.facts import NodeFacts
from redisforge.model.slots import SLOT_COUNT, SlotRange, count, key_slot
from redisforge.redis.connection import Connection
from redisforge.redis.moving import SlotMove, move_slots
from redisforge.redis.observe import NodeAsker
from redisforge.runbooks.cluster import Cluster

MASTERS = 4
"""Three with all slots, and one that gets its quarter."""
VALUE_BYTES = 100
_PIPELINE = 2000


class Case(NamedTuple):
    """An engine, how much data it gets, and how many times redis-cli's speed is asked for."""

    version: str
    keys: int
    at_least: float


CASES = (Case("8.6", 1_000_000, 40.0), Case("7.0", 250_000, 2.0))


def moving(folder: Path, tries: int) -> Iterator[Figure]:
    """A quarter of the slots to a new master, in turns with `redis-cli --cluster rebalance`; and p99 meanwhile."""
    for case in CASES:
        ours: list[float] = []
        busy: list[float] = []
        theirs: list[float] = []
        pipelined: list[float] = []
        for number in range(min(tries, 3)):
            for times, pipeline in ((ours, 0), (theirs, 10), (pipelined, 100)):
                home = folder / f"moving-{case.version}-{number}-{pipeline}"
                seconds, target_ran_s = _one_move(case, home, pipeline)
                times.append(seconds)
                if times is ours:
                    busy.append(target_ran_s)
        what = f"a quarter of the slots of {case.keys:,} keys, Redis {case.version}"
        mine, plain, tuned = (statistics.median(times) for times in (ours, theirs, pipelined))
        yield Figure(f"move {what}", mine, "s", None, len(ours))
        yield Figure("… of which the new owner's one thread ran", statistics.median(busy), "s", None, len(ours))
        yield Figure("… redis-cli --cluster rebalance", plain, "s", None, len(ours))
        yield Figure("… redis-cli --cluster rebalance --cluster-pipeline 100", tuned, "s", None, len(ours))
        yield Figure("… times faster than redis-cli", plain / mine, "x", case.at_least, len(ours), at_least=True)
        floor = plain / statistics.median(busy)
        yield Figure("… at most, if nothing but that thread took time", floor, "x", None, len(ours))
        yield Figure("… times faster than redis-cli with a pipeline of 100", tuned / mine, "x", None, len(ours))


def _one_move(case: Case, home: Path, pipeline: int) -> tuple[float, float]:
    """One move on a cluster of its own: by redis-cli with a pipeline (10 is its default), with 0 by us.

    Seconds, and seconds that the thread of the new owner ran meanwhile: no mover can be faster than that one.
    """
    with filled_cluster(case, home) as (cluster, cli_path):
        facts = asyncio.run(look(cluster))
        before = main_thread(facts[-1].pid).ran_s
        began = time.perf_counter()
        if pipeline:
            _with_redis_cli(cluster, cli_path, pipeline)
        else:
            asyncio.run(move_slots(quarter(facts), facts, cluster.operator_login(), "redis"))
        return time.perf_counter() - began, main_thread(facts[-1].pid).ran_s - before


def _with_redis_cli(cluster: Cluster, cli_path: str, pipeline: int) -> None:
    login, node = cluster.operator_login(), cluster.topology.nodes[0]
    argv = [cli_path, "--cluster", "rebalance", f"{node.address}:{node.port}", "--cluster-use-empty-masters"]
    argv += ["--cluster-pipeline", str(pipeline), "--tls", "--cacert", login.ca_path, "--user", login.user]
    variables = {**os.environ, "REDISCLI_AUTH": login.password.reveal()}
    subprocess.run(argv, check=True, capture_output=True, env=variables, timeout=600)


class filled_cluster:  # noqa: N801  # used as a context manager
    """Four masters, three of them with all slots and `case.keys` keys."""

    def __init__(self, case: Case, home: Path) -> None:
        self._case, self._home = case, home
        config = home.with_suffix(".yaml")
        text = f"name: bench\nengine: {{version: '{case.version}'}}\nshards: {MASTERS}\nreplicas: 0\n"
        config.write_text(f"{text}memory: {{max: 2gb}}\n{ports()}")
        self._nodes = started_nodes(load(config, {}, config.parent).topology, home)

    def __enter__(self) -> tuple[Cluster, str]:
        cluster, cli_path = self._nodes.__enter__()
        try:
            asyncio.run(_form(cluster))
            asyncio.run(until_ok(cluster))
            asyncio.run(_fill(cluster, self._case.keys))
        except BaseException:
            self._nodes.__exit__(*sys.exc_info())
            raise
        return cluster, cli_path

    def __exit__(self, *error: object) -> None:
        self._nodes.__exit__(None, None, None)


async def _form(cluster: Cluster) -> None:
    login, nodes = cluster.operator_login(), cluster.topology.nodes
    bounds = [SLOT_COUNT * number // (MASTERS - 1) for number in range(MASTERS)]
    for number, node in enumerate(nodes):
        async with await Connection.open((node.address, node.port), login, timeout_s=5) as connection:
            await connection.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < MASTERS - 1:
                await connection.call("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            for other in nodes[:number]:
                await connection.call("CLUSTER", "MEET", other.address, other.port, other.bus_port)
    deadline = time.monotonic() + 30
    while any(len(node.peers) < MASTERS or count(node.slots) == 0 for node in (await look(cluster))[:-1]):
        if time.monotonic() > deadline:
            raise SystemExit("the nodes did not meet within 30 s")
        await asyncio.sleep(0.05)


async def look(cluster: Cluster) -> list[NodeFacts]:
    """What each node says, in the order of their names."""
    async with NodeAsker(cluster.operator_login(), timeout_s=10) as asker:
        nodes = [(node.name, (node.address, node.port)) for node in cluster.topology.nodes]
        return list((await asker.observe_all(nodes)).values())


async def _fill(cluster: Cluster, keys: int) -> None:
    """The same incompressible values each time."""
    facts = await look(cluster)
    owners = {slot: n for n, node in enumerate(facts) for r in node.slots for slot in range(r.first, r.last + 1)}
    values = random.Random(1).randbytes(65536)
    by_node: dict[int, list[int]] = {}
    for number in range(keys):
        by_node.setdefault(owners[key_slot(f"key:{number}")], []).append(number)

    async def fill(node: NodeFacts, numbers: Sequence[int]) -> None:
        login = cluster.operator_login()
        async with await Connection.open((node.address, node.port), login, timeout_s=60) as connection:
            for start in range(0, len(numbers), _PIPELINE):
                await connection.pipeline(
                    [
                        ("SET", f"key:{number}", values[number % 65000 : number % 65000 + VALUE_BYTES])
                        for number in numbers[start : start + _PIPELINE]
                    ]
                )

    await asyncio.gather(*(fill(facts[n], numbers) for n, numbers in by_node.items()))


def quarter(facts: Sequence[NodeFacts]) -> list[SlotMove]:
    """What makes four masters even: a quarter of each one's slots to the last."""
    moves: list[SlotMove] = []
    for node in facts[:-1]:
        first = node.slots[0].first
        moves.append(SlotMove(node, facts[-1], (SlotRange(first, first + count(node.slots) // MASTERS - 1),)))
    return moves


def back(moves: Sequence[SlotMove], facts: Sequence[NodeFacts]) -> list[SlotMove]:
    """The same slots the other way."""
    by_id = {node.id: node for node in facts}
    return [SlotMove(by_id[move.target.id], by_id[move.source.id], move.slots) for move in moves]
