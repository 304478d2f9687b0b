"""`logs`: what the Units wrote, the end of it or as it comes, from every host that they run on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from redisforge.errors import HostError, NotFoundError, UsageError
from redisforge.fleet.transport import Transport
from redisforge.model.topology import RedisNode, Topology
from redisforge.plan.log_place import log_command, log_place
from redisforge.runbooks.cluster import Cluster

_FOLLOW_PAUSE_S = 0.2
_REMOTE_LIMIT_S = 15.0
_TAIL_BYTES_PER_LINE = 400
_ONCE_BYTES = 1 << 20
"""As much is fetched at a time while a log is followed; the rest comes with the next look."""


_SIZE = '"$@" 2>/dev/null | wc -c'
_LAST = 'count=$1; shift; "$@" 2>/dev/null | tail -n "$count"'
_PART = 'from=$1 count=$2; shift 2; "$@" 2>/dev/null | tail -c "+$from" | head -c "$count"'


class Log(Protocol):
    """A log file somewhere. An absent one is empty."""

    def last_lines(self, line_count: int) -> list[str]:
        """The last lines of a file of any size."""
        ...

    def size_bytes(self) -> int:
        """How long it is now."""
        ...

    def read(self, offset: int, byte_count: int) -> bytes:
        """Bytes from `offset` on."""
        ...


class LocalLog:
    """A log on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def last_lines(self, line_count: int) -> list[str]:
        """See Log.last_lines."""
        size = self.size_bytes()
        start = max(0, size - line_count * _TAIL_BYTES_PER_LINE)
        text = self.read(start, size - start).decode("utf-8", errors="replace")
        return text.splitlines()[-line_count:] if line_count else []

    def size_bytes(self) -> int:
        """See Log.size_bytes."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, offset: int, byte_count: int) -> bytes:
        """See Log.read."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(offset)
                return stream.read(byte_count)
        except FileNotFoundError:
            return b""


class PrintedLog:
    """What a command on a host prints, from its beginning each time: a container's log, which has a limit."""

    def __init__(self, transport: Transport, command: tuple[str, ...], runner: asyncio.Runner) -> None:
        self._transport = transport
        self._command = command
        self._runner = runner

    def last_lines(self, line_count: int) -> list[str]:
        """See Log.last_lines. A host that cannot be reached says so in the place of its lines."""
        try:
            return self._output(_LAST, str(line_count)).splitlines() if line_count else []
        except HostError as error:
            return [f"({error.where}: {error.what}: {error.why})"]

    def size_bytes(self) -> int:
        """See Log.size_bytes. Raises HostError."""
        return int(self._output(_SIZE).strip() or 0)

    def read(self, offset: int, byte_count: int) -> bytes:
        """See Log.read. Raises HostError."""
        return self._output(_PART, str(offset + 1), str(byte_count)).encode()

    def _output(self, script: str, *arguments: str) -> str:
        argv = ("sh", "-c", script, "redisforge-logs", *arguments, *self._command)
        return self._runner.run(self._transport.run(argv, timeout_s=_REMOTE_LIMIT_S)).stdout


class RemoteLog:
    """A log on another host, read by commands that every Linux has. `runner` keeps the connection between them."""

    def __init__(self, transport: Transport, path: str, runner: asyncio.Runner) -> None:
        self._transport = transport
        self._path = path
        self._runner = runner

    def last_lines(self, line_count: int) -> list[str]:
        """See Log.last_lines. A host that cannot be reached says so in the place of its lines."""
        try:
            return self._output("tail", "-n", str(line_count), self._path).splitlines() if line_count else []
        except HostError as error:
            return [f"({error.where}: {error.what}: {error.why})"]

    def size_bytes(self) -> int:
        """See Log.size_bytes. Raises HostError."""
        text = self._output("stat", "-c", "%s", self._path).strip()
        return int(text) if text.isdigit() else 0

    def read(self, offset: int, byte_count: int) -> bytes:
        """See Log.read. Raises HostError."""
        end = ("iflag=skip_bytes,count_bytes", f"skip={offset}", f"count={byte_count}", "status=none")
        return self._output("dd", f"if={self._path}", *end).encode()

    def _output(self, *argv: str) -> str:
        """What the command says; nothing if it fails, which it does for a file that is not there."""
        result = self._runner.run(self._transport.run(argv, timeout_s=_REMOTE_LIMIT_S, check=False))
        return result.stdout if result.exit_status == 0 else ""


def unit_logs(cluster: Cluster, unit_name: str | None, runner: asyncio.Runner) -> dict[str, Log]:
    """The log of one Unit, or of all, by Unit name.

    Raises:
        NotFoundError: an unknown Unit.
        UsageError: RedisForge has no log of it: somebody else runs it.
    """
    names = cluster.unit_names()
    others = [node for node in cluster.topology.nodes if not node.managed and unit_name in (None, node.name)]
    if others and (unit_name is not None or not names):
        raise _not_here(cluster.topology, others)
    if unit_name is not None and unit_name not in names:
        raise NotFoundError(
            f"no unit called {unit_name!r}",
            where=cluster.topology.name,
            next_step=f"the units are: {', '.join(names)}",
        )
    return {name: _log_of(cluster, name, runner) for name in ([unit_name] if unit_name else names)}


def _not_here(topology: Topology, nodes: Sequence[RedisNode]) -> UsageError:
    places = [f"{node.name}: {log_place(node)}" for node in nodes if log_command(node)]
    if len(places) < len(nodes):
        rest = "for the others see" if places else "see"
        places.append(f"{rest} the logs of what runs the nodes; `redisforge status` names those that do not answer")
    return UsageError(
        f"the logs of {topology.name if len(nodes) > 1 else nodes[0].name} are with what runs it, and not RedisForge's",
        where=topology.source or topology.name,
        why="somebody else runs it (external.nodes)" if topology.access else "it was not started here",
        next_step="\n".join(places),
    )


def _log_of(cluster: Cluster, name: str, runner: asyncio.Runner) -> Log:
    path = cluster.runtime.log_path(name)
    if not path.startswith("/"):
        return PrintedLog(cluster.site_of(name).transport, cluster.runtime.log_command(name), runner)
    if cluster.is_here(name):
        return LocalLog(Path(path))
    return RemoteLog(cluster.site_of(name).transport, path, runner)


def follow(logs: Mapping[str, Log]) -> Iterator[tuple[str, str]]:
    """(Unit, line) for every line written from now on, until the caller stops. A file cut short is read anew."""
    offsets = {name: log.size_bytes() for name, log in logs.items()}
    rests = dict.fromkeys(logs, b"")
    while True:
        quiet = True
        for name, log in logs.items():
            size = log.size_bytes()
            if size < offsets[name]:
                offsets[name], rests[name] = 0, b""
            if size > offsets[name]:
                quiet = False
                chunk = log.read(offsets[name], min(size - offsets[name], _ONCE_BYTES))
                offsets[name] += min(size - offsets[name], _ONCE_BYTES)
                *lines, rests[name] = (rests[name] + chunk).split(b"\n")
                yield from ((name, line.decode("utf-8", errors="replace")) for line in lines)
        if quiet:
            time.sleep(_FOLLOW_PAUSE_S)
