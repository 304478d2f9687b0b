"""Nodes for a measurement, as RedisForge itself would run them."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from redisforge.errors import NodeError
from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy
from redisforge.fleet.ports import bind_problem
from redisforge.model.topology import RedisNode, Topology
from redisforge.redis.connection import Connection
from redisforge.runbooks.cluster import Cluster, cluster_layout, make_cluster
from redisforge.runbooks.units import Programs, build_units, certificate_names
from redisforge.security.certificates import ensure_certificates
from redisforge.security.secrets import resolve_credentials


@contextmanager
def started_nodes(topology: Topology, home: Path) -> Generator[tuple[Cluster, str]]:
    """The nodes of `topology`, started and blank, without an Envoy; past their first two seconds."""
    layout = cluster_layout(home, topology.name)
    Path(layout.folder).mkdir(parents=True)
    cache = cache_folder(os.environ)
    engine = ensure_engine(topology.engine, cache, lambda _: None, os.environ)
    envoy = ensure_envoy(topology.envoy.version, topology.envoy.path, cache, lambda _: None, os.environ)
    credentials, _ = resolve_credentials(topology, {}, layout)
    ensure_certificates(layout, certificate_names(topology), topology.tls, datetime.now(UTC))
    units = build_units(topology, layout, credentials, Programs(engine, envoy))
    cluster = make_cluster(topology, layout, credentials)
    names = [node.name for node in topology.nodes]
    try:
        asyncio.run(cluster.runtime.start([units[name] for name in names], permit_blank=names))
        asyncio.run(until_old(cluster))
        yield cluster, engine.cli_path
    finally:
        asyncio.run(cluster.runtime.stop(names))
        shutil.rmtree(home)


async def until_old(cluster: Cluster) -> None:
    """Wait until every node has run for three seconds: then the delay of a fresh master is behind it."""
    await asyncio.gather(*(until(cluster, n, "INFO", lambda info: uptime_s(info) >= 3) for n in cluster.topology.nodes))


async def until_ok(cluster: Cluster) -> None:
    """Wait until every node holds the cluster to be ok."""
    is_ok: Callable[[str], bool] = lambda info: "cluster_state:ok" in info  # noqa: E731
    await asyncio.gather(*(until(cluster, n, "CLUSTER INFO", is_ok) for n in cluster.topology.nodes))


async def until(cluster: Cluster, node: RedisNode, question: str, holds: Callable[[str], bool]) -> None:
    """Ask a node until its answer is as wanted, for at most 30 s."""
    deadline = time.monotonic() + 30
    while True:
        try:
            async with await Connection.open(
                (node.address, node.port), cluster.operator_login(), timeout_s=2
            ) as connection:
                while not holds(str(await connection.call(*question.split()))):
                    if time.monotonic() > deadline:
                        raise SystemExit(f"{node.name} did not get there within 30 s")
                    await asyncio.sleep(0.01)
                return
        except NodeError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


def uptime_s(info: str) -> int:
    """uptime_in_seconds of an answer to INFO."""
    return int(info.partition("uptime_in_seconds:")[2].partition("\r")[0])


def ports() -> str:
    """The port options of a block of free ports, as YAML."""
    for first in random.sample(range(20000, 30000, 200), 50):
        wanted = [*range(first, first + 6), *range(first + 10000, first + 10006), *range(first + 100, first + 106)]
        if not any(bind_problem("127.0.0.1", port) for port in wanted):
            names = ("primary", "primary-resp3", "reader", "pubsub")
            endpoints = ", ".join(f"{name}: {{port: {first + 100 + n}}}" for n, name in enumerate(names))
            return f"ports: {{redis: {first}}}\nenvoy: {{admin_port: {first + 105}}}\nendpoints: {{{endpoints}}}\n"
    raise SystemExit("no free block of ports")
