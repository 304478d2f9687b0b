"""Six real Redis processes with TLS and one real Envoy in front, on free loopback ports, for the Envoy tests.

Formation here is the shortest that works (it is the runbooks' job elsewhere); every wait is a condition with
a deadline. `REDISFORGE_TEST_SERVER`, `_CLI` and `_ENVOY` name other binaries than those that RedisForge finds or
fetches.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from envoy_certificates import ADDRESS, Certificates

from port_shares import SINGLE
from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy
from redisforge.fleet.transport import LocalTransport
from redisforge.model.secret import Secret
from redisforge.model.topology import (
    Credentials,
    Endpoint,
    EndpointKind,
    Engine,
    EnvoyInstance,
    EnvoySettings,
    Host,
    Listener,
    Persistence,
    RedisNode,
    RedisSettings,
    Role,
    TlsSettings,
    Topology,
    User,
    UserRole,
)
from redisforge.redis.connection import Connection, Login
from redisforge.render.envoy import EnvoyContext, envoy_argv, render_envoy

APP_PASSWORD = "p@ss/w:rd #1 & 100% 'quoted' \"é\""  # every character that a URL or a shell could trip over
READONLY_PASSWORD = "readonly-secret-Xy7"
USERS_ACL = """\
user default off nopass resetchannels
user operator_user on >operator-secret-Zz1 ~* &* +@all
user app_user on {app} ~* &* +@all -@admin -@dangerous {discovery}
user readonly_user on {readonly} ~* &* +@read +@connection +@pubsub -@dangerous {discovery}
"""
DISCOVERY = "+cluster|slots +cluster|nodes +cluster|info +cluster|keyslot +cluster|shards +info +readonly"


@functools.cache
def binary(name: str) -> str:
    """The path of redis-server, redis-cli or envoy for these tests; fetched into the cache when need be."""
    variable = "REDISFORGE_TEST_" + {"redis-server": "SERVER", "redis-cli": "CLI"}.get(name, name.upper())
    if path := os.environ.get(variable):
        return path
    cache = cache_folder(os.environ)
    if name == "envoy":
        return ensure_envoy(">=1.40", "", cache, print, os.environ).path
    engine = ensure_engine(Engine(version=">=8.6"), cache, print, os.environ)
    return engine.server_path if name == "redis-server" else engine.cli_path


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, and whose port + 10000 (the cluster bus) nobody uses either."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in random.sample(SINGLE, len(SINGLE)):
            with contextlib.suppress(OSError):
                for candidate in (port, port + 10000):
                    stack.enter_context(socket.socket()).bind((ADDRESS, candidate))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise AssertionError(f"no {count} free ports")


async def until(condition: Callable[[], Awaitable[bool]], what: str, deadline_s: float = 20.0) -> float:
    """Wait for `condition`; return the seconds that it took, or fail with `what`."""
    started = time.monotonic()
    while True:
        with contextlib.suppress(Exception):
            if await condition():
                return time.monotonic() - started
        if time.monotonic() - started > deadline_s:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        await asyncio.sleep(0.01)


def build_topology(ports: list[int], *, refresh_s: float = 1.0, max_connections: int = 1000) -> Topology:
    """3 masters, 3 replicas, one Envoy with the four standard endpoints; `ports` are 11 free ones."""
    nodes = tuple(
        RedisNode(
            name=f"redis-{index + 1}",
            host="local",
            address=ADDRESS,
            zone="local",
            port=ports[index],
            bus_port=ports[index] + 10000,
            shard=index % 3,
            intended_role=Role.MASTER if index < 3 else Role.REPLICA,
        )
        for index in range(6)
    )

    def endpoint(name: str, port: int, **changes: Any) -> Endpoint:
        values: dict[str, Any] = {
            "name": name,
            "kind": EndpointKind.COMMANDS,
            "protocol": "RESP2",
            "user": "app_user",
            "prefer_replicas": False,
            "listeners": (Listener(envoy="envoy-1", address=ADDRESS, port=port),),
        }
        return Endpoint(**{**values, **changes})

    return Topology(
        name="test",
        engine=Engine(),
        shards=3,
        replicas=1,
        hosts=(Host(name="local", address=ADDRESS, zone="local"),),
        nodes=nodes,
        envoys=(EnvoyInstance(name="envoy-1", host="local", address=ADDRESS, zone="local", admin_port=ports[6]),),
        endpoints=(
            endpoint("primary", ports[7]),
            endpoint("primary-resp3", ports[8], protocol="RESP3"),
            endpoint("reader", ports[9], user="readonly_user", prefer_replicas=True),
            endpoint("pubsub", ports[10], kind=EndpointKind.PUBSUB),
        ),
        users=(
            User(name="operator_user", role=UserRole.OPERATOR),
            User(name="app_user", role=UserRole.APPLICATION),
            User(name="readonly_user", role=UserRole.READONLY),
        ),
        redis=RedisSettings(
            max_memory_bytes=64 << 20,
            max_memory_policy="noeviction",
            persistence=Persistence(mode="none"),
            node_timeout_ms=2000,
            max_clients=1000,
            tcp_backlog=128,
            io_threads=1,
            log_level="notice",
        ),
        envoy=EnvoySettings(
            version="",
            path="",
            max_connections=max_connections,
            max_pending_requests=1000,
            refresh_s=refresh_s,
            operation_timeout_ms=5000,
            connect_timeout_ms=1000,
        ),
        tls=TlsSettings(
            ca_path="",
            certificate_path="",
            key_path="",
            validity_days=1,
            extra_names=(),
            require_client_certificates=False,
        ),
    )


CREDENTIALS = Credentials(
    {
        "operator_user": Secret("operator-secret-Zz1"),
        "app_user": Secret(APP_PASSWORD),
        "readonly_user": Secret(READONLY_PASSWORD),
    }
)


class Stack:
    """The processes of one test cluster. `async with Stack(folder)` forms it and takes it down."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.topology = build_topology(free_ports(11), **settings)
        self.certificates = Certificates(folder / "tls with space")
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    @property
    def ca_path(self) -> str:
        return str(self.certificates.ca)

    @property
    def envoy(self) -> EnvoyInstance:
        return self.topology.envoys[0]

    def url_parts(self, name: str) -> tuple[Endpoint, Listener, Secret, str]:
        """What the functions of render/connect.py take first."""
        endpoint = self.topology.endpoint(name)
        assert endpoint is not None
        return endpoint, endpoint.listeners[0], CREDENTIALS.password(endpoint.user), self.ca_path

    def address(self, name: str) -> tuple[str, int]:
        """(address, port) of an endpoint."""
        _, listener, _, _ = self.url_parts(name)
        return listener.address, listener.port

    def login(self, user: str = "operator_user") -> Login:
        return Login(ca_path=self.ca_path, user=user, password=CREDENTIALS.password(user))

    async def call(self, node: RedisNode, *words: str) -> Any:
        """One command to one node, as the operator."""
        async with await Connection.open((node.address, node.port), self.login(), timeout_s=2) as connection:
            return await connection.call(*words)

    async def endpoint_call(self, name: str, *words: str) -> Any:
        """One command through an endpoint of Envoy."""
        endpoint, listener, _, _ = self.url_parts(name)
        async with await Connection.open(
            (listener.address, listener.port),
            self.login(endpoint.user),
            timeout_s=6,
            protocol=3 if endpoint.protocol == "RESP3" else 2,
        ) as connection:
            return await connection.call(*words)

    async def start_node(self, node: RedisNode) -> None:
        folder = self.folder / node.name
        folder.mkdir(exist_ok=True)
        self.certificates.issue(node.name)
        acl = USERS_ACL.format(app=_acl_hash(APP_PASSWORD), readonly=_acl_hash(READONLY_PASSWORD), discovery=DISCOVERY)
        (folder / "users.acl").write_text(acl)
        tls = self.certificates.folder
        lines = [
            f"bind {ADDRESS}", "port 0", f"tls-port {node.port}", "tls-cluster yes", "tls-replication yes",
            "tls-auth-clients optional", f'tls-ca-cert-file "{self.ca_path}"',
            f'tls-cert-file "{tls / node.name}.crt"', f'tls-key-file "{tls / node.name}.key"',
            "cluster-enabled yes", f"cluster-node-timeout {self.topology.redis.node_timeout_ms}",
            "masteruser operator_user", "masterauth operator-secret-Zz1", "aclfile users.acl", 'save ""',
            "repl-diskless-sync-delay 0",
            # CLUSTER SLOTS lists a replica once it has received anything; in an empty cluster that is this ping.
            "repl-ping-replica-period 1",
        ]  # fmt: skip
        (folder / "redis.conf").write_text("\n".join(lines) + "\n")
        await self._spawn(node.name, binary("redis-server"), "redis.conf")

    async def start_envoy(self) -> None:
        self.certificates.issue(self.envoy.name)
        await self.place_envoy(self.topology.nodes)
        folder = self.folder / self.envoy.name
        await self._spawn(self.envoy.name, *envoy_argv(binary("envoy"), str(folder)))

    async def place_envoy(self, nodes: tuple[RedisNode, ...]) -> None:
        """Write the files of an Envoy in front of `nodes`, whether it runs or not."""
        folder = self.folder / self.envoy.name
        tls = self.certificates.folder
        context = EnvoyContext(
            topology=msgspec.structs.replace(self.topology, nodes=nodes),
            envoy=self.envoy,
            folder=str(folder),
            ca_path=self.ca_path,
            certificate_path=str(tls / f"{self.envoy.name}.crt"),
            key_path=str(tls / f"{self.envoy.name}.key"),
            credentials=CREDENTIALS,
        )
        await LocalTransport().place(str(folder), render_envoy(context))

    async def _spawn(self, name: str, *argv: str) -> None:
        folder = self.folder / name
        with (folder / "log").open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *argv, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )

    async def form(self) -> None:
        """Slots, MEET, REPLICATE; returns when every node agrees and every replica is in sync."""
        nodes = self.topology.nodes
        for node in nodes:
            await until(lambda node=node: self._pings(node), f"{node.name} answers")
        bounds = [0, 5461, 10923, 16384]
        for index, node in enumerate(nodes[:3]):
            await self.call(node, "CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
            await self.call(node, "CLUSTER", "ADDSLOTSRANGE", str(bounds[index]), str(bounds[index + 1] - 1))
        for node in nodes:
            for other in nodes:
                if other is not node:
                    await self.call(node, "CLUSTER", "MEET", other.address, str(other.port))
        for node in nodes:
            await until(lambda node=node: self._knows(node, 6), f"{node.name} knows all")
        for index, node in enumerate(nodes[3:]):
            master_id = await self.call(nodes[index], "CLUSTER", "MYID")
            await self.call(node, "CLUSTER", "REPLICATE", master_id)
        for node in nodes:
            await until(lambda node=node: self.in_order(node), f"{node.name} is in order")

    async def _pings(self, node: RedisNode) -> bool:
        return await self.call(node, "PING") == "PONG"

    async def _knows(self, node: RedisNode, count: int) -> bool:
        return f"cluster_known_nodes:{count}" in await self.call(node, "CLUSTER", "INFO")

    async def in_order(self, node: RedisNode) -> bool:
        """cluster_state:ok, a replica listed for every shard and, on a replica, the link up."""
        state = "cluster_state:ok" in await self.call(node, "CLUSTER", "INFO")
        shards = await self.call(node, "CLUSTER", "SLOTS")
        replication = await self.call(node, "INFO", "replication")
        linked = "role:master" in replication or "link_status:up" in replication
        return state and linked and [len(shard) for shard in shards] == [4, 4, 4]

    async def master_of(self, key: str) -> tuple[RedisNode, RedisNode]:
        """(master, its replica) of the slot of `key`, as the cluster itself says now."""
        slot = int(await self.call(self.topology.nodes[0], "CLUSTER", "KEYSLOT", key))
        for first, last, master, *replicas in await self.call(self.topology.nodes[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                by_port = {node.port: node for node in self.topology.nodes}
                return by_port[master[1]], by_port[replicas[0][1]]
        raise AssertionError(f"nobody owns slot {slot}")

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)

    async def __aenter__(self) -> Stack:
        try:
            for node in self.topology.nodes:
                await self.start_node(node)
            await self.start_envoy()
            await self.form()
            for name in ("primary", "reader", "primary-resp3"):
                await until(lambda name=name: self._serves(name), f"{name} serves every shard")
            await until(self._hands_over, "pubsub hands over to a node")
        except BaseException as error:
            error.add_note("\n".join(self.logs()))
            await self.stop()
            raise
        return self

    async def _serves(self, name: str) -> bool:
        for tag in ("a", "b", "c", "d", "e", "f"):
            await self.endpoint_call(name, "GET", tag)
        return True

    async def _hands_over(self) -> bool:
        return await self.endpoint_call("pubsub", "PING") == "PONG"

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
            await process.wait()

    def logs(self) -> Iterator[str]:
        for name in self.processes:
            yield f"--- {name}\n" + (self.folder / name / "log").read_text(errors="replace")[-3000:]


def _acl_hash(password: str) -> str:
    return "#" + hashlib.sha256(password.encode()).hexdigest()
