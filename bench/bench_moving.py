"""How fast slots move, against redis-cli on the same data in the same run, and what a client notices of it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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
QUIET_S = 4.0
MOVES_UNDER_LOAD = 8
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
        theirs: list[float] = []
        pipelined: list[float] = []
        for number in range(min(tries, 3)):
            for times, pipeline in ((ours, 0), (theirs, 10), (pipelined, 100)):
                home = folder / f"moving-{case.version}-{number}-{pipeline}"
                times.append(_one_move(case, home, pipeline))
        what = f"a quarter of the slots of {case.keys:,} keys, Redis {case.version}"
        mine, plain, tuned = (statistics.median(times) for times in (ours, theirs, pipelined))
        yield Figure(f"move {what}", mine, "s", None, len(ours))
        yield Figure("… redis-cli --cluster rebalance", plain, "s", None, len(ours))
        yield Figure("… redis-cli --cluster rebalance --cluster-pipeline 100", tuned, "s", None, len(ours))
        yield Figure("… times faster than redis-cli", plain / mine, "x", case.at_least, len(ours), at_least=True)
        yield Figure("… times faster than redis-cli with a pipeline of 100", tuned / mine, "x", None, len(ours))
    yield from _latency(CASES[0], folder / "moving-latency")


def _one_move(case: Case, home: Path, pipeline: int) -> float:
    """Seconds of one move on a cluster of its own: by redis-cli with a pipeline (10 is its default), with 0 by us."""
    with _cluster(case, home) as (cluster, cli_path):
        if pipeline:
            return _with_redis_cli(cluster, cli_path, pipeline)
        facts = asyncio.run(_facts(cluster))
        began = time.perf_counter()
        asyncio.run(move_slots(_quarter(facts), facts, cluster.operator_login(), "redis"))
        return time.perf_counter() - began


def _with_redis_cli(cluster: Cluster, cli_path: str, pipeline: int) -> float:
    login, node = cluster.operator_login(), cluster.topology.nodes[0]
    argv = [cli_path, "--cluster", "rebalance", f"{node.address}:{node.port}", "--cluster-use-empty-masters"]
    argv += ["--cluster-pipeline", str(pipeline), "--tls", "--cacert", login.ca_path, "--user", login.user]
    variables = {**os.environ, "REDISCLI_AUTH": login.password.reveal()}
    began = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True, env=variables, timeout=600)
    return time.perf_counter() - began


class _cluster:  # noqa: N801  # used as a context manager
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
    while any(len(node.peers) < MASTERS or count(node.slots) == 0 for node in (await _facts(cluster))[:-1]):
        if time.monotonic() > deadline:
            raise SystemExit("the nodes did not meet within 30 s")
        await asyncio.sleep(0.05)


async def _facts(cluster: Cluster) -> list[NodeFacts]:
    async with NodeAsker(cluster.operator_login(), timeout_s=10) as asker:
        nodes = [(node.name, (node.address, node.port)) for node in cluster.topology.nodes]
        return list((await asker.observe_all(nodes)).values())


async def _fill(cluster: Cluster, keys: int) -> None:
    """The same incompressible values each time."""
    facts = await _facts(cluster)
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


def _quarter(facts: Sequence[NodeFacts]) -> list[SlotMove]:
    """What makes four masters even: a quarter of each one's slots to the last."""
    moves: list[SlotMove] = []
    for node in facts[:-1]:
        first = node.slots[0].first
        moves.append(SlotMove(node, facts[-1], (SlotRange(first, first + count(node.slots) // MASTERS - 1),)))
    return moves


def _back(moves: Sequence[SlotMove], facts: Sequence[NodeFacts]) -> list[SlotMove]:
    by_id = {node.id: node for node in facts}
    return [SlotMove(by_id[move.target.id], by_id[move.source.id], move.slots) for move in moves]


# --- what a client notices ---


def _latency(case: Case, home: Path) -> Iterator[Figure]:
    """p99 of a light load through the nodes: quiet, and while a quarter of the slots goes there and back."""
    with _cluster(case, home) as (cluster, _):
        login = cluster.operator_login()
        nodes = [(node.address, node.port) for node in cluster.topology.nodes]
        settings = {
            "nodes": nodes, "user": login.user, "password": login.password.reveal(), "ca": login.ca_path,
            "keys": case.keys,
        }  # fmt: skip
        argv = [sys.executable, str(Path(__file__).with_name("light_load.py"))]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load_process:
            assert load_process.stdin
            assert load_process.stdout
            print(json.dumps(settings), file=load_process.stdin, flush=True)
            load_process.stdout.readline()  # it has begun
            quiet = (time.time(), time.sleep(QUIET_S), time.time())
            windows = asyncio.run(_there_and_back(cluster))
            answer = json.loads(load_process.communicate("stop\n")[0])
    samples: list[tuple[float, float]] = answer["samples"]
    quiet_s = _p99([(quiet[0], quiet[2])], samples)
    moving_s = _p99(windows, samples)
    yield Figure("light load through the nodes, p99 while nothing moves", quiet_s * 1000, "ms", None, 1)
    yield Figure("… while slots move", moving_s * 1000, "ms", None, len(windows))
    yield Figure("… moving : quiet", moving_s / quiet_s, "x", 3.0, len(windows))
    yield Figure("… errors", float(answer["errors"]), "", 0.0, 1)


async def _there_and_back(cluster: Cluster) -> list[tuple[float, float]]:
    """Move a quarter there and back again; the times (since the epoch) in which something moved."""
    windows: list[tuple[float, float]] = []
    facts = await _facts(cluster)
    moves = _quarter(facts)
    for number in range(MOVES_UNDER_LOAD):
        facts = await _facts(cluster)
        wanted = _back(moves, facts) if number % 2 else _back(_back(moves, facts), facts)
        began = time.time()
        await move_slots(wanted, facts, cluster.operator_login(), "redis")
        windows.append((began, time.time()))
        await asyncio.sleep(0.5)
    return windows


def _p99(windows: Sequence[tuple[float, float]], samples: Sequence[tuple[float, float]]) -> float:
    """Of the samples (began, seconds) that began within a window."""
    chosen = sorted(s for at, s in samples if any(first <= at <= last for first, last in windows))
    if len(chosen) < 200:
        raise SystemExit(f"only {len(chosen)} samples: too few for a p99")
    return chosen[int(len(chosen) * 0.99)]
