"""Masters on loopback with the rendered redis.conf and users.acl, TLS only: what slots are moved between.

Formation here is the shortest that works (it is the runbooks' job elsewhere). Nodes can be killed and started again.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from cluster_tool import ADDRESS, Ports

from redisforge.errors import NodeError
from redisforge.fleet.binaries import EngineBinary, cache_folder, ensure_engine
from redisforge.model.facts import NodeFacts
from redisforge.model.secret import Secret
from redisforge.model.slots import SLOT_COUNT, SlotRange, count
from redisforge.model.topology import Engine, EngineKind, Persistence, RedisNode, RedisSettings, Role, User, UserRole
from redisforge.redis.connection import Connection, Login
from redisforge.redis.moving import mend_open_slots
from redisforge.redis.observe import NodeAsker
from redisforge.render.acl import render_users_acl
from redisforge.render.redis_conf import RedisConfContext, render_redis_conf
from redisforge.security.certificates import ensure_issued

USERS = {role: User(f"{role.value}_user", role) for role in UserRole}
PASSWORDS = {role: Secret(f"{role.value}-Password-1 #'é") for role in UserRole}
SETTINGS = RedisSettings(
    max_memory_bytes=1024 * 1024 * 1024,
    max_memory_policy="noeviction",
    persistence=Persistence("aof", "everysec"),
    node_timeout_ms=5000,
    max_clients=500,
    tcp_backlog=128,
    io_threads=1,
    log_level="notice",
)
DEADLINE_S = 30.0


def even(masters: int, empty: int = 0) -> tuple[tuple[SlotRange, ...], ...]:
    """All slots over `masters` nodes, and `empty` nodes more."""
    bounds = [SLOT_COUNT * number // masters for number in range(masters + 1)]
    owned = tuple((SlotRange(first, last - 1),) for first, last in itertools.pairwise(bounds))
    return (*owned, *(() for _ in range(empty)))


class Masters:
    """Running masters; `slots` says who begins with what. Node n is called `redis-n`, from 1."""

    def __init__(
        self,
        folder: Path,
        engine: tuple[EngineKind, str],
        slots: Sequence[tuple[SlotRange, ...]],
        directives: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.folder, self.slots = folder, slots
        self.kind = engine[0]
        self.engine: EngineBinary = ensure_engine(Engine(*engine), cache_folder(os.environ), print, os.environ)
        self._settings = msgspec.structs.replace(SETTINGS, directives=directives)
        self._ports = Ports()
        first = self._ports.first
        self.nodes = tuple(
            RedisNode(f"redis-{n}", "h", ADDRESS, "z", first + n, first + 50 + n, n - 1, Role.MASTER)
            for n in range(1, len(slots) + 1)
        )
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    async def __aenter__(self) -> Masters:
        try:
            ensure_issued(self.folder / "tls", {n.name: (ADDRESS,) for n in self.nodes}, 30, datetime.now(UTC))
            for node in self.nodes:
                self.prepare(node)
                self.start(node.name)
            await self._form()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # --- processes ---

    def prepare(self, node: RedisNode) -> None:
        """Write a node's files."""
        home, tls = self.folder / node.name, self.folder / "tls"
        (home / "data").mkdir(parents=True, exist_ok=True)
        hashes = {USERS[role].name: hashlib.sha256(PASSWORDS[role].reveal().encode()).hexdigest() for role in USERS}
        context = RedisConfContext(
            node=node, node_count=4, settings=self._settings,
            engine_kind=self.engine.kind, engine_version=self.engine.version,
            require_client_certificates=False, data_path=str(home / "data"), ca_path=str(tls / "ca.crt"),
            certificate_path=str(tls / f"{node.name}.crt"), key_path=str(tls / f"{node.name}.key"),
            acl_path=str(home / "users.acl"), replication_user=USERS[UserRole.REPLICATION].name,
            replication_password=PASSWORDS[UserRole.REPLICATION],
        )  # fmt: skip
        users = render_users_acl(tuple(USERS.values()), hashes, self.engine.kind, self.engine.version)
        (home / "users.acl").write_text(users)
        (home / "redis.conf").write_text(render_redis_conf(context).reveal())

    def start(self, name: str) -> None:
        """Start a node's process."""
        home = self.folder / name
        with (home / "log").open("ab") as stream:
            self.processes[name] = subprocess.Popen(
                [self.engine.server_path, str(home / "redis.conf")], stdout=stream, stderr=subprocess.STDOUT
            )

    def kill(self, name: str) -> None:
        """kill -9 of a node."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """Stop everything."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self._ports.close()

    # --- talking ---

    def node(self, name: str) -> RedisNode:
        """A node by name."""
        return next(node for node in self.nodes if node.name == name)

    @property
    def login(self) -> Login:
        """The operator's."""
        return self.login_of(UserRole.OPERATOR)

    def login_of(self, role: UserRole, password: Secret | None = None) -> Login:
        """A user's."""
        ca_path = str(self.folder / "tls" / "ca.crt")
        return Login(ca_path=ca_path, user=USERS[role].name, password=password or PASSWORDS[role])

    async def call(self, name: str, *command: str | int | bytes) -> Any:
        """One command to one node over a connection of its own."""
        node = self.node(name)
        async with await Connection.open((node.address, node.port), self.login, timeout_s=20.0) as connection:
            return await connection.call(*command)

    async def facts(self) -> dict[str, NodeFacts]:
        """Every node as it sees itself and the others."""
        async with NodeAsker(self.login, timeout_s=10.0) as asker:
            return await asker.observe_all([(node.name, (node.address, node.port)) for node in self.nodes])

    def client(self, **options: Any) -> Any:
        """redis-py's cluster client as the application."""
        from redis.cluster import ClusterNode, RedisCluster

        return RedisCluster(
            startup_nodes=[ClusterNode(node.address, node.port) for node in self.nodes],
            username=USERS[UserRole.APPLICATION].name, password=PASSWORDS[UserRole.APPLICATION].reveal(), ssl=True,
            ssl_ca_certs=str(self.folder / "tls" / "ca.crt"), decode_responses=True, **options,
        )  # fmt: skip

    def redis_cli(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """(argv, environment) of the engine's own redis-cli as the operator."""
        tls = ("--tls", "--cacert", str(self.folder / "tls" / "ca.crt"), "--user", USERS[UserRole.OPERATOR].name)
        password = PASSWORDS[UserRole.OPERATOR].reveal()
        return [self.engine.cli_path, *arguments, *tls], {**os.environ, "REDISCLI_AUTH": password}

    async def mend(self) -> tuple[str, ...]:
        """mend_open_slots of all nodes."""
        return await mend_open_slots(list((await self.facts()).values()), self.login, self.kind)

    # --- formation ---

    async def _form(self) -> None:
        for node in self.nodes:
            await until(f"{node.name} answers", lambda node=node: self._answers(node.name))
        for number, (node, slots) in enumerate(zip(self.nodes, self.slots, strict=True), start=1):
            await self.call(node.name, "CLUSTER", "SET-CONFIG-EPOCH", number)
            if slots:
                bounds = [bound for current in slots for bound in (current.first, current.last)]
                await self.call(node.name, "CLUSTER", "ADDSLOTSRANGE", *bounds)
        for node in self.nodes[1:]:
            await self.call("redis-1", "CLUSTER", "MEET", node.address, node.port, node.bus_port)
        await until("all know all", self.all_agree)

    async def _answers(self, name: str) -> bool:
        assert self.processes[name].poll() is None, (self.folder / name / "log").read_text()[-2000:]
        return bool(await self.call(name, "PING") == "PONG")

    async def all_answer(self) -> bool:
        """All nodes answer and hold the cluster to be ok."""
        return all(not node.problem and node.cluster_state == "ok" for node in (await self.facts()).values())

    async def all_agree(self) -> bool:
        """Everybody knows everybody, all slots are served, all see the same owners, and no slot is open."""
        facts = await self.facts()
        views: set[tuple[object, ...]] = set()
        for node in facts.values():
            if node.problem or node.cluster_state != "ok" or len(node.peers) != len(self.nodes):
                return False
            if any(peer.in_handshake or peer.migrating or peer.importing or not peer.link_up for peer in node.peers):
                return False
            views.add(tuple(sorted((peer.id, peer.slots) for peer in node.peers)))
        return len(views) == 1 and sum(count(node.slots) for node in facts.values()) == SLOT_COUNT


async def until(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition; a node that does not answer is a no."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if await condition():
                return
        except NodeError:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {DEADLINE_S:g} s: {what}")
