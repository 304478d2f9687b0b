"""Envoy's admin port: what it runs and which nodes it sends commands to.

The admin interface speaks plain HTTP/1.1 on loopback
(https://www.envoyproxy.io/docs/envoy/latest/operations/admin). Three lines of HTTP are spoken here instead of
importing an HTTP library, which alone would take a good part of the half second that `redisforge status` may
take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from redisforge.errors import HostError
from redisforge.model.facts import EnvoyFacts
from redisforge.model.topology import EnvoyInstance

_ADMIN_ADDRESS = "127.0.0.1"
_MAX_BODY_BYTES = 32 << 20
DEFAULT_TIMEOUT_S = 1.0


class _SocketAddress(msgspec.Struct):
    address: str
    port_value: int


class _Address(msgspec.Struct):
    socket_address: _SocketAddress | None = None


class _HealthStatus(msgspec.Struct):
    failed_active_health_check: bool = False


class _HostStatus(msgspec.Struct):
    address: _Address
    health_status: _HealthStatus = msgspec.field(default_factory=_HealthStatus)


class _ClusterStatus(msgspec.Struct):
    name: str
    host_statuses: list[_HostStatus] = []


class _Clusters(msgspec.Struct):
    cluster_statuses: list[_ClusterStatus] = []


class _ServerInfo(msgspec.Struct):
    version: str = ""
    state: str = ""


Connect = Callable[[str, int], Awaitable[tuple[Any, Any]]]
"""Opens a connection to (address, port) on the Envoy's host (fleet/transport.py); a reader and a writer."""


async def observe_envoy(
    envoy: EnvoyInstance,
    clusters: Sequence[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    connect: Connect = asyncio.open_connection,
) -> EnvoyFacts:
    """Ask an Envoy for its version, state and the hosts of `clusters` (redis_cluster_names).

    Never raises for what an Envoy does or fails to do: `problem` says it. `hosts` is the union over
    `clusters`; when these do not agree with each other, `problem` says which one lags behind.
    """
    where = f"{_ADMIN_ADDRESS}:{envoy.admin_port}"
    try:
        async with asyncio.timeout(timeout_s):
            info_body, clusters_body = await asyncio.gather(
                _get(connect, envoy.admin_port, "/server_info"),
                _get(connect, envoy.admin_port, "/clusters?format=json"),
            )
    except TimeoutError:
        return EnvoyFacts(name=envoy.name, problem=f"admin port {where}: no answer within {timeout_s:g} s")
    except ConnectionRefusedError:
        return EnvoyFacts(name=envoy.name, problem=f"admin port {where}: connection refused, it does not run")
    except (OSError, ValueError, EOFError, HostError) as error:
        return EnvoyFacts(name=envoy.name, problem=f"admin port {where}: {error}")
    try:
        return _facts(envoy.name, clusters, info_body, clusters_body)
    except msgspec.MsgspecError as error:
        return EnvoyFacts(name=envoy.name, problem=f"admin port {where}: not Envoy's answer: {error}")


def _facts(name: str, clusters: Sequence[str], info_body: bytes, clusters_body: bytes) -> EnvoyFacts:
    info = msgspec.json.decode(info_body, type=_ServerInfo)
    statuses = msgspec.json.decode(clusters_body, type=_Clusters).cluster_statuses
    views = {status.name: _addresses(status.host_statuses) for status in statuses if status.name in clusters}
    hosts = {address for view in views.values() for address in view}
    failed = [
        host
        for status in statuses
        if status.name in clusters
        for host in status.host_statuses
        if host.health_status.failed_active_health_check
    ]
    behind = [cluster for cluster in clusters if views.get(cluster, set()) != hosts]
    problem = ""
    if info.state != "LIVE":
        problem = f"state is {info.state or 'unknown'}, not LIVE"
    elif not hosts and clusters:
        problem = "knows no Redis node yet: no node has told it the topology"
    elif behind:
        problem = f"{', '.join(behind)}: does not know all nodes that its other clusters know"
    return EnvoyFacts(
        name=name,
        problem=problem,
        version=_version(info.version),
        state=info.state,
        hosts=tuple(sorted(hosts)),
        unhealthy=tuple(sorted(_addresses(failed))),
    )


def _addresses(hosts: Iterable[_HostStatus]) -> set[tuple[str, int]]:
    sockets = (host.address.socket_address for host in hosts)
    return {(socket.address, socket.port_value) for socket in sockets if socket}


def _version(text: str) -> str:
    """`HASH/1.40.0/Clean/RELEASE/BoringSSL` -> `1.40.0`."""
    parts = text.split("/")
    return parts[1] if len(parts) > 1 else text


async def _get(connect: Connect, port: int, path: str) -> bytes:
    """GET `path` and return the body. Raises OSError, or ValueError for anything but status 200."""
    reader, writer = await connect(_ADMIN_ADDRESS, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {_ADMIN_ADDRESS}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status_line, _, headers = head.partition("\r\n")
        if status_line.split(" ")[1:2] != ["200"]:
            raise ValueError(f"{path} answered {status_line!r}")
        if "transfer-encoding: chunked" in headers:
            return await _chunks(reader)
        return await reader.read(_MAX_BODY_BYTES)
    except asyncio.LimitOverrunError as error:
        raise ValueError("it does not speak HTTP") from error
    finally:
        writer.close()


async def _chunks(reader: Any) -> bytes:
    """A body in chunks (RFC 9112, 7.1): size in hex, CRLF, bytes, CRLF; size 0 ends it."""
    body = bytearray()
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        if size == 0:
            return bytes(body)
        if len(body) + size > _MAX_BODY_BYTES:
            raise ValueError(f"answer longer than {_MAX_BODY_BYTES} bytes")
        body += await reader.readexactly(size)
        await reader.readline()
