"""What clients see when a master's process is killed: from the first error to the last, through Envoy.

Eight writers send one command at a time, over all slots; a write that fails is counted and the next one is sent. Each
master of a fresh cluster of three shards is killed once, since Redis holds no second election in a shard soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from figure import Figure
from nodes import ports
from redisforge.errors import NodeError
from redisforge.model.facts import NodeFacts
from redisforge.model.topology import Role, UserRole
from redisforge.redis.connection import Connection, ReplyError
from redisforge.runbooks.cluster import Cluster, open_cluster
from redisforge.runbooks.observe import Observer

WRITERS = 8
KEYS = 5000
WATCH_S = 2.0
"""How long errors are waited for after a kill."""
DEADLINE_S = 60.0


class Crash(NamedTuple):
    """One kill -9. `takeover_s` is the keeper's share: from the death until the replica was a master."""

    error_window_s: float
    errors: int
    takeover_s: float
    lost: int


class Writers:
    """Eight clients of the primary endpoint. `acknowledged` is the last value of each key that was acknowledged."""

    def __init__(self, cluster: Cluster) -> None:
        endpoint = cluster.topology.endpoint("primary")
        assert endpoint
        self.address = (endpoint.listeners[0].address, endpoint.listeners[0].port)
        self.login = cluster.user_login(cluster.topology.user(UserRole.APPLICATION).name)
        self.tls = self.login.ssl_context()
        self.acknowledged: dict[str, int] = {}
        self.answers = 0
        self.errors: list[float] = []
        self.stopping = False
        self.timeout_s = 5.0

    async def run(self, number: int) -> None:
        """Write until told to stop; a key belongs to one writer alone."""
        connection: Connection | None = None
        for turn in range(1 << 30):
            if self.stopping:
                break
            key = f"bench:{number}:{turn % KEYS}"
            try:
                connection = connection or await self.open()
                await connection.call("SET", key, turn)
                self.acknowledged[key] = turn
                self.answers += 1
            except NodeError as error:
                self.errors.append(time.perf_counter())
                if not isinstance(error, ReplyError):  # Envoy's answers leave the connection as it is
                    connection = None
                await asyncio.sleep(0.002)
        if connection:
            connection.abort()

    async def open(self) -> Connection:
        """A connection to Envoy."""
        return await Connection.open(self.address, self.login, timeout_s=self.timeout_s, tls=self.tls)

    async def lost(self) -> int:
        """How many keys hold less than was acknowledged."""
        async with await self.open() as connection:
            keys = sorted(self.acknowledged)
            values: list[object] = []
            for first in range(0, len(keys), 500):
                values += await connection.pipeline([("GET", key) for key in keys[first : first + 500]])
        return sum(int(str(value or -1)) < self.acknowledged[key] for key, value in zip(keys, values, strict=True))


def handoff_windows(folder: Path, tries: int) -> Iterator[Figure]:
    """The figures: medians of `tries` kills, three in each fresh cluster."""
    found: list[Crash] = []
    config = folder / "handoff.yaml"
    config.write_text(f"name: bench\n{ports()}")
    while len(found) < tries:
        home = folder / f"handoff-{len(found)}"
        try:
            redisforge(home, "up", "--config", str(config))
            found += asyncio.run(_crashes(open_cluster(home, None), tries - len(found)))
        finally:
            redisforge(home, "down", "--purge", "--yes")
    window_s, errors, takeover_s, _ = (statistics.median(column) for column in zip(*found, strict=True))
    yield Figure("kill -9 of a master, 8 writers: clients' error window", window_s, "s", 0.3, tries)
    yield Figure("… of it until its replica was a master", takeover_s, "s", None, tries)
    yield Figure("… errors", errors, "", None, tries)
    yield Figure("… acknowledged keys lost, in all tries", sum(crash.lost for crash in found), "", 0, tries)


def redisforge(home: Path, *arguments: str) -> None:
    """Run a command on the clusters below `home`; its failure ends the measurement with what it said."""
    variables = {**os.environ, "REDISFORGE_HOME": str(home)}
    command = (sys.executable, "-m", "redisforge", *arguments)
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"redisforge {' '.join(arguments)}: exit status {ended.returncode}\n{ended.stderr}")


async def _crashes(cluster: Cluster, tries: int) -> list[Crash]:
    found: list[Crash] = []
    async with Observer(cluster, with_listing=True) as observer:
        masters = [node for node in (await observer.look()).reachable_nodes() if node.role is Role.MASTER]
        for master in masters[:tries]:
            await until(lambda name=master.name: _is_watched(cluster, name), f"its keeper looks at {master.name}")
            found.append(await _crash(cluster, observer, master))
    return found


async def _crash(cluster: Cluster, observer: Observer, master: NodeFacts) -> Crash:
    said = len(await _log(cluster, master.name))
    pid = (await cluster.runtime.observe())[master.name].pid
    writers = Writers(cluster)
    tasks = [asyncio.create_task(writers.run(number)) for number in range(WRITERS)]
    await until(_async(lambda: len(writers.acknowledged) > 1000), "writers at work")
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(WATCH_S)
    writers.stopping = True
    await asyncio.gather(*tasks)
    says = (await _log(cluster, master.name))[said:]
    taken = re.search(r"handed off to \S+ in ([\d.]+) s", says)
    if taken is None or not writers.errors:
        raise SystemExit(f"{master.name} was killed and not handed off:\n{says}")
    await until(lambda: _is_whole(observer), "all replicas in sync")
    window_s = writers.errors[-1] - writers.errors[0]
    return Crash(window_s, len(writers.errors), float(taken[1]), await writers.lost())


async def _log(cluster: Cluster, name: str) -> str:
    return await cluster.site_of(name).transport.read(cluster.runtime.log_path(name)) or ""


async def _is_watched(cluster: Cluster, name: str) -> bool:
    """Whether the node's keeper has looked at it twice: AUTH, INFO, INFO."""
    node, user = cluster.topology.node(name), cluster.topology.user(UserRole.HANDOFF).name
    async with await Connection.open((node.address, node.port), cluster.operator_login(), timeout_s=2) as connection:
        clients = str(await connection.call("CLIENT", "LIST"))
    counts = re.findall(rf" user={re.escape(user)} .*?tot-cmds=(\d+)", clients)
    return any(int(count) >= 3 for count in counts)


async def _is_whole(observer: Observer) -> bool:
    with contextlib.suppress(NodeError):
        facts = await observer.look()
        nodes = facts.reachable_nodes()
        replicas = [node for node in nodes if node.role is Role.REPLICA]
        return len(nodes) == 2 * len(replicas) == len(facts.nodes) and all(node.master_link_up for node in replicas)
    return False


def _async(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return condition()

    return ask


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition; the measurement ends if it does not come."""
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {DEADLINE_S:g} s: {what}")
        await asyncio.sleep(0.05)
