"""Two masters and a replica on loopback with the rendered users.acl and redis.conf, for the tests of ACLs.

TLS only, with passwords and paths full of characters that a parser could trip over. Formation here is the shortest
that works (it is the runbooks' job elsewhere); every wait is a condition with a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from redisforge.errors import NodeError
from redisforge.fleet.binaries import EngineBinary, cache_folder, ensure_engine
from redisforge.model.secret import Secret
from redisforge.model.topology import (
    Engine,
    EngineKind,
    Persistence,
    RedisNode,
    RedisSettings,
    Role,
    User,
    UserRole,
)
from redisforge.redis.connection import Connection, Login
from redisforge.render.acl import render_users_acl
from redisforge.render.redis_conf import RedisConfContext, render_redis_conf
from redisforge.security.certificates import ensure_issued

ENGINES: tuple[tuple[EngineKind, str], ...] = (
    ("redis", "7.0"),
    ("redis", "8.0"),
    ("redis", "8.6"),
    ("valkey", "9.1"),
)
USERS = {role: User(f"{role.value}_user", role) for role in UserRole}
PASSWORDS = {role: Secret(f"{role.value} #1 \"q\" 'é' \\ % $") for role in UserRole}
SETTINGS = RedisSettings(
    max_memory_bytes=64 * 1024 * 1024,
    max_memory_policy="noeviction",
    persistence=Persistence("aof", "everysec"),
    node_timeout_ms=2000,
    max_clients=500,
    tcp_backlog=128,
    io_threads=1,
    log_level="notice",
    directives=(("slowlog-max-len", "77"), ("latency-tracking-info-percentiles", '50 "99"')),
)
DEADLINE_S = 30.0


class Node(NamedTuple):
    """A running server."""

    node: RedisNode
    process: subprocess.Popen[bytes]
    log: Path


class Trio(NamedTuple):
    """Two masters (halves of the slots) and a replica of the first."""

    engine: EngineBinary
    series: str
    folder: Path
    nodes: tuple[Node, Node, Node]

    def login(self, role: UserRole, password: Secret | None = None) -> Login:
        return Login(
            ca_path=str(self.folder / "tls" / "ca.crt"),
            user=USERS[role].name,
            password=password or PASSWORDS[role],
        )

    @contextlib.asynccontextmanager
    async def open(self, index: int, role: UserRole = UserRole.OPERATOR) -> AsyncGenerator[Connection]:
        node = self.nodes[index].node
        async with await Connection.open((node.address, node.port), self.login(role), timeout_s=10.0) as connection:
            yield connection


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def start(engine: EngineBinary, folder: Path, number: int) -> Node:
    address = f"127.0.77.{number}"
    home = folder / f"node {number}"
    (home / "data").mkdir(parents=True)
    tls = folder / "tls"
    ensure_issued(tls, {f"node-{number}": (address,)}, 30, datetime.now(UTC))
    hashes = {USERS[role].name: hashlib.sha256(PASSWORDS[role].reveal().encode()).hexdigest() for role in USERS}
    node = RedisNode(f"node-{number}", "h", address, "z", free_port(address), free_port(address), 0, Role.MASTER)
    context = RedisConfContext(
        node=node,
        node_count=3,
        settings=SETTINGS,
        engine_kind=engine.kind,
        engine_version=engine.version,
        require_client_certificates=False,
        data_path=str(home / "data"),
        ca_path=str(tls / "ca.crt"),
        certificate_path=str(tls / f"node-{number}.crt"),
        key_path=str(tls / f"node-{number}.key"),
        acl_path=str(home / "users.acl"),
        replication_user=USERS[UserRole.REPLICATION].name,
        replication_password=PASSWORDS[UserRole.REPLICATION],
    )
    (home / "users.acl").write_text(render_users_acl(tuple(USERS.values()), hashes, engine.kind, engine.version))
    (home / "redis.conf").write_text(render_redis_conf(context).reveal())
    log = home / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [engine.server_path, str(home / "redis.conf")], stdout=stream, stderr=subprocess.STDOUT
        )
    return Node(node, process, log)


async def until(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(NodeError):
            if await condition():
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {DEADLINE_S:g} s: {what}")


def words(reply: object) -> str:
    return str(reply)


async def form(trio: Trio) -> None:
    """The shortest formation; the replica's master and everybody's view are waited for."""

    async def answers(index: int) -> bool:
        dead = trio.nodes[index].process.poll()
        assert dead is None, trio.nodes[index].log.read_text()[-2000:]
        async with trio.open(index) as connection:
            return bool(await connection.call("PING") == "PONG")

    for index in range(3):
        await until(f"node {index} answers", lambda index=index: answers(index))
    async with trio.open(0) as first, trio.open(1) as second, trio.open(2) as third:
        for epoch, (connection, slots) in enumerate(((first, (0, 8191)), (second, (8192, 16383))), start=1):
            await connection.call("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            await connection.call("CLUSTER", "ADDSLOTSRANGE", *slots)
        for node in (trio.nodes[1].node, trio.nodes[2].node):
            await first.call("CLUSTER", "MEET", node.address, node.port, node.bus_port)

        async def all_know_all() -> bool:
            views = [words(await one.call("CLUSTER", "NODES")) for one in (first, second, third)]
            states = [words(await one.call("CLUSTER", "INFO")) for one in (first, second, third)]
            return all(view.count("connected") == 3 and "handshake" not in view for view in views) and all(
                "cluster_state:ok" in state for state in states
            )

        await until("all know all", all_know_all)
        await third.call("CLUSTER", "REPLICATE", words(await first.call("CLUSTER", "MYID")))

        async def replicates() -> bool:
            views = [words(await one.call("CLUSTER", "NODES")) for one in (first, second)]
            return "master_link_status:up" in words(await third.call("INFO", "replication")) and all(
                "slave" in view for view in views
            )

        await until("the replica is in sync", replicates)


@contextlib.contextmanager
def run_trio(kind: EngineKind, series: str) -> Generator[Trio]:
    """Start, form, and in the end stop and remove a Trio."""
    engine = ensure_engine(Engine(kind, series), cache_folder(os.environ), print, os.environ)
    folder = Path(tempfile.mkdtemp(prefix="acl matrix "))
    nodes: list[Node] = []
    try:
        for number in (1, 2, 3):
            nodes.append(start(engine, folder, number))
        made = Trio(engine, f"{kind} {series}", folder, (nodes[0], nodes[1], nodes[2]))
        asyncio.run(form(made))
        yield made
    finally:
        for node in nodes:
            node.process.kill()  # SIGTERM is refused while a replica writes its first AOF
        for node in nodes:
            node.process.wait(20)
        shutil.rmtree(folder)
