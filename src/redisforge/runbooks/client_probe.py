"""`--probe`: what clients notice of a verb, seen by a light writer and reader in a process of its own.

The probe never makes a verb fail. What it cannot do (start, reach the endpoint, read back) becomes a notice of its
report; only `check_budget`, which is `--abort-over`, ends a verb.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from types import TracebackType

import msgspec

from redisforge.errors import AbortedError
from redisforge.model.report import ProbeReport
from redisforge.model.topology import Endpoint, EndpointKind, UserRole
from redisforge.redis.probe_messages import ProbeDoor, ProbeEvent, ProbeSettings
from redisforge.runbooks.cluster import Cluster

PROGRAM = (sys.executable, "-m", "redisforge.redis.probe_process")
KEY_PREFIX = "redisforge:client:"
_MOST_WRITERS = 4
_START_PATIENCE_S = 10.0
"""The program itself gives its clients 3 s to begin."""
_FINISH_PATIENCE_S = 45.0
"""Requests under way (5 s), reading back and deleting (10 s each, only while the endpoint fails)."""
_END_PATIENCE_S = 2.0
_LINE_LIMIT_BYTES = 1 << 20
_NOTHING = ProbeEvent(event="seen", longest_gap_ms=0.0, errors=0, error_window_ms=0.0, writes=0, reads=0, seconds=0.0)


class ClientProbe:
    """Clients at work on the primary endpoint of a cluster. Use as an async context manager.

    `longest_gap_ms` and `errors` are live, at most 0.1 s old while the event loop runs.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._seen = _NOTHING
        self._ready = asyncio.Event()
        self._final = False
        self._notices: list[str] = []
        self._report: ProbeReport | None = None

    @property
    def longest_gap_ms(self) -> float:
        """The longest time between two successes of one client so far, in milliseconds."""
        return self._seen.longest_gap_ms

    @property
    def errors(self) -> int:
        """How many requests have failed so far."""
        return self._seen.errors

    @property
    def writes(self) -> int:
        """How many writes have been acknowledged (at most a second old)."""
        return self._seen.writes

    @property
    def pid(self) -> int | None:
        """The process of the clients, if there is one."""
        return self._process.pid if self._process else None

    @property
    def notices(self) -> tuple[str, ...]:
        """What the probe itself could not do."""
        return (*self._notices, *self._seen.notices)

    def over_budget(self, limit_ms: float) -> bool:
        """Whether some client has waited longer than `limit_ms`."""
        return self.longest_gap_ms > limit_ms

    def check_budget(self, limit_ms: float) -> None:
        """For safe points, with `--abort-over`. Raises AbortedError if a client has waited longer."""
        if self.over_budget(limit_ms):
            raise AbortedError(
                f"stopped: clients had to wait {self.longest_gap_ms:.0f} ms, and {limit_ms:g} ms were allowed",
                where=self._cluster.topology.name,
                why="\n".join(
                    (
                        f"longest gap {self.longest_gap_ms:.0f} ms, {self.errors} errors in {self._seen.seconds:.1f} s",
                        *self._seen.first_errors[:3],
                    )
                ),
                next_step="nothing is half done, and what had been taken out of the reader endpoints is back; "
                "the same command goes on from here",
            )

    async def __aenter__(self) -> ClientProbe:
        settings = probe_settings(self._cluster)
        if settings is None:
            self._notices.append("there is no primary endpoint that speaks commands: nothing was probed")
            return self
        try:
            # A session of its own: Ctrl-C at the terminal is for the verb alone.
            self._process = await asyncio.create_subprocess_exec(
                *PROGRAM,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=_LINE_LIMIT_BYTES,
            )
        except OSError as error:
            self._notices.append(f"the probe could not be started: {error.strerror or error}")
            return self
        self._listening = asyncio.create_task(self._listen(self._process))
        await self._send(msgspec.json.encode(settings))
        try:
            async with asyncio.timeout(_START_PATIENCE_S):
                await self._ready.wait()
        except TimeoutError:
            self._notices.append(f"the probe did not begin within {_START_PATIENCE_S:g} s")
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def finish(self) -> ProbeReport:
        """End the clients, read back what was acknowledged, delete the keys, and report. Again: the same report."""
        if self._report is None:
            await self._send(b"finish")
            if self._listening:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FINISH_PATIENCE_S):
                        await asyncio.shield(self._listening)
            if self._process and not self._final:
                self._notices.append("the probe ended early: its figures are not complete and nothing was read back")
            self._report = self._made_report()
        return self._report

    def _made_report(self) -> ProbeReport:
        seen = self._seen
        return ProbeReport(
            longest_gap_ms=seen.longest_gap_ms,
            errors=seen.errors,
            error_window_ms=seen.error_window_ms,
            writes=seen.writes,
            reads=seen.reads,
            lost=seen.lost,
            seconds=seen.seconds,
            first_errors=seen.first_errors,
            first_lost=seen.first_lost,
            notices=self.notices,
        )

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Take what the program tells until it ends."""
        assert process.stdout
        assert process.stderr
        try:
            while line := await process.stdout.readline():
                self._seen = msgspec.json.decode(line, type=ProbeEvent)
                self._final = self._final or self._seen.event == "final"
                if self._seen.event != "seen":
                    self._ready.set()
            if not self._final and (words := (await process.stderr.read()).decode(errors="replace").strip()):
                self._notices.append(f"the probe said: {words.splitlines()[-1]}")
        except (ValueError, OSError) as error:  # msgspec.DecodeError is a ValueError
            self._notices.append(f"the probe cannot be understood: {error}")
        finally:
            self._ready.set()  # nobody need wait for a program that has ended

    async def _send(self, line: bytes) -> None:
        """Send a line; a program that has ended is noticed where it is listened to."""
        if self._process and self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.write(line + b"\n")
                await self._process.stdin.drain()

    async def _end(self) -> None:
        """The program ends at the end of its input; if it does not, it is killed."""
        if self._process is None or self._process.returncode is not None:
            return
        if self._process.stdin:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_PATIENCE_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._listening:
            await self._listening


def probe_settings(cluster: Cluster) -> ProbeSettings | None:
    """What the probe of this cluster does; None without an endpoint called primary that speaks commands."""
    topology = cluster.topology
    primary = topology.endpoint("primary")
    if primary is None or primary.kind is not EndpointKind.COMMANDS:
        return None
    reading = {user.name for user in topology.users if user.role is UserRole.READONLY}
    readers = [door for door in topology.endpoints if door.prefer_replicas and door.user in reading]
    clients = max(2, min(_MOST_WRITERS, topology.shards, len(topology.nodes)))
    return ProbeSettings(
        prefix=f"{KEY_PREFIX}{secrets.token_hex(4)}:",
        primary=_doors(cluster, primary),
        reader=_doors(cluster, readers[0]) if readers else (),
        writers=clients,
        readers=2,
        may_evict=topology.redis.max_memory_policy != "noeviction",
    )


def _doors(cluster: Cluster, endpoint: Endpoint) -> tuple[ProbeDoor, ...]:
    login = cluster.user_login(endpoint.user)
    return tuple(
        ProbeDoor(
            address=listener.address,
            port=listener.port,
            user=login.user,
            password=login.password.reveal(),
            ca_path=login.ca_path,
            protocol=3 if endpoint.protocol == "RESP3" else 2,
        )
        for listener in endpoint.listeners
    )
