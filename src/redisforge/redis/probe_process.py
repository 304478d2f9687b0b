"""The clients of `--probe`: a program of its own, so that the verb's work does not distort what they see.

    python -m redisforge.redis.probe_process

Standard input: one line of JSON (`ProbeSettings`; a password never travels in arguments), then `finish`. The end of
the input ends the program: it does not outlive the verb. Standard output, one JSON line each (`ProbeEvent`): `ready`
once every worker has succeeded or has had its time to, `seen` when a figure has changed, `final` after `finish`.

A writer gives each of its keys the next number, over and over. So what is read back at the end is right when it lies
between the last acknowledged and the last attempted number. The keys expire by themselves if nobody deletes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import ssl
import sys
import time
from typing import Literal

import hiredis
import msgspec

from redisforge.errors import CertificateError, NodeError
from redisforge.model.secret import Secret
from redisforge.redis.connection import Connection, Login, Reply, ReplyError
from redisforge.redis.probe_messages import ProbeDoor, ProbeEvent, ProbeSettings

KEYS_PER_WRITER = 256
FIRST_COUNT = 10
"""This many errors, and lost writes, are told in words."""
_EXPIRY_S = 900
_REFRESH_S = 0.1
_ERROR_PAUSE_S = 0.005
_READ_BACK_S = 10.0
_PIPELINE_KEYS = 128
_DENIALS = ("NOPERM", "WRONGPASS", "NOAUTH")
"""The user of this endpoint may not do what the probe does; that says nothing about the verb."""


class _Site:
    """A door made ready: the TLS context is loaded once for all its connections."""

    def __init__(self, door: ProbeDoor, timeout_s: float) -> None:
        self.door = door
        self._timeout_s = timeout_s
        self._login = Login(ca_path=door.ca_path, user=door.user, password=Secret(door.password))
        self._tls: ssl.SSLContext | None = self._login.ssl_context()

    async def open(self) -> Connection:
        door = self.door
        return await Connection.open(
            (door.address, door.port), self._login, timeout_s=self._timeout_s, tls=self._tls, protocol=door.protocol
        )


class _Worker:
    """One client: one request at a time, at a bounded rate, with a connection that it renews when it breaks."""

    def __init__(self, clients: ProbeClients, site: _Site, name: str) -> None:
        self.name = name
        self._clients = clients
        self._site = site
        self.done = 0
        self.is_denied = False
        self.longest_gap_s = 0.0
        self._last_success_s = 0.0

    async def act(self, connection: Connection) -> None:
        """One request. Raises NodeError."""
        raise NotImplementedError

    async def run(self) -> None:
        """Work until cancelled, or until it turns out that this user may not."""
        pause_s = 1.0 / self._clients.settings.rate_per_s
        connection: Connection | None = None
        due_s = time.monotonic() + random.random() * pause_s  # noqa: S311  so that workers do not march in step
        try:
            while not self._clients.is_over:
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                due_s = max(due_s + pause_s, time.monotonic())  # after a gap there is no burst to catch up
                try:
                    connection = connection or await self._site.open()
                    await self.act(connection)
                except NodeError as error:
                    connection = connection if isinstance(error, ReplyError) else None
                    if self._notes_denial(error):
                        break
                    self._clients.note_error(self.name, f"{error.what}: {error.why}")
                    await asyncio.sleep(_ERROR_PAUSE_S)
                else:
                    self._succeeded()
        finally:
            if connection:
                connection.abort()

    def _notes_denial(self, error: NodeError) -> bool:
        if not isinstance(error, ReplyError) or error.code not in _DENIALS or self.done:
            return False
        self.is_denied = True
        self._clients.notices.append(f"{self._site.door.user} may not do what {self.name} does: {error.why}")
        self._clients.is_through(self)
        return True

    def _succeeded(self) -> None:
        now_s = time.monotonic()
        self.widen_gap(now_s)
        self._last_success_s = now_s
        self.done += 1
        self._clients.is_through(self)

    def widen_gap(self, now_s: float) -> None:
        """Count the time from the last success to `now_s`."""
        if not self.is_denied:
            self.longest_gap_s = max(self.longest_gap_s, now_s - max(self._last_success_s, self._clients.began_s))


class _Writer(_Worker):
    """Writes its keys in turn; they lie all over the slots."""

    def __init__(self, clients: ProbeClients, site: _Site, name: str) -> None:
        super().__init__(clients, site, name)
        self._turn = 0
        self.attempted: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}

    async def act(self, connection: Connection) -> None:
        key = f"{self._clients.settings.prefix}{self.name}:{self._turn % KEYS_PER_WRITER}"
        self._turn += 1
        number = self.attempted[key] = self.attempted.get(key, 0) + 1
        await connection.call("SET", key, number, "EX", _EXPIRY_S)
        self.acknowledged[key] = number


class _Reader(_Worker):
    """Reads keys of the writers, whether they are there or not: what counts is that there is an answer."""

    async def act(self, connection: Connection) -> None:
        number = random.randrange(KEYS_PER_WRITER)  # noqa: S311
        await connection.call("GET", f"{self._clients.settings.prefix}writer-1:{number}")


class ProbeClients:
    """All workers and what they saw."""

    def __init__(self, settings: ProbeSettings) -> None:
        self.settings = settings
        self.began_s = time.monotonic()
        self.is_over = False
        self.notices: list[str] = []
        self._errors: list[str] = []
        self._error_count = 0
        self._first_error_s = self._last_error_s = 0.0
        self._waited_for: set[str] = set()
        self._sites = [_Site(door, settings.timeout_s) for door in settings.primary]
        # The reader endpoint is watched by a reader of its own; the others read where the writers write.
        reading = [_Site(door, settings.timeout_s) for door in settings.reader[:1]] + self._sites * settings.readers
        self._writers = [
            _Writer(self, self._sites[number % len(self._sites)], f"writer-{number + 1}")
            for number in range(settings.writers)
        ]
        self._readers = [
            _Reader(self, site, f"reader-{number + 1}") for number, site in enumerate(reading[: settings.readers])
        ]
        self._workers = [*self._writers, *self._readers]
        self._waited_for.update(worker.name for worker in self._workers)

    def is_through(self, worker: _Worker) -> None:
        """A worker has succeeded (or never will). Once all have, they are measured: connecting is no gap."""
        if self._waited_for:
            self._waited_for.discard(worker.name)
            if not self._waited_for:
                self._begin()

    def _begin(self) -> None:
        """What was before does not count: it is not the verb's doing."""
        self.began_s = time.monotonic()
        self._errors, self._error_count = [], 0
        self._first_error_s = self._last_error_s = 0.0
        for worker in self._workers:
            worker.longest_gap_s = 0.0
        say(self.seen("ready"))

    async def _begin_at_the_latest(self) -> None:
        await asyncio.sleep(self.settings.start_limit_s)
        if self._waited_for:
            why = f": {self._errors[0].partition(': ')[2]}" if self._errors else ""
            self.notices.append(
                f"before the verb began, {len(self._waited_for)} of {len(self._workers)} clients of the probe "
                f"could not reach the endpoint within {self.settings.start_limit_s:g} s{why}"
            )
            self._waited_for.clear()
            self._begin()

    def note_error(self, worker: str, what: str) -> None:
        """A request failed."""
        self._last_error_s = time.monotonic()
        self._first_error_s = self._first_error_s or self._last_error_s
        self._error_count += 1
        if len(self._errors) < FIRST_COUNT:
            self._errors.append(f"{self._last_error_s - self.began_s:.3f} s {worker}: {what}")

    def seen(self, event: Literal["ready", "seen", "final"]) -> ProbeEvent:
        """The figures of this moment."""
        now_s = time.monotonic()
        if not self.is_over:
            for worker in self._workers:
                worker.widen_gap(now_s)
        return ProbeEvent(
            event=event,
            longest_gap_ms=round(1000 * max((worker.longest_gap_s for worker in self._workers), default=0.0), 1),
            errors=self._error_count,
            error_window_ms=round(1000 * (self._last_error_s - self._first_error_s), 1),
            writes=sum(worker.done for worker in self._writers),
            reads=sum(worker.done for worker in self._readers),
            seconds=round(now_s - self.began_s, 3),
            first_errors=tuple(self._errors),
            notices=tuple(self.notices),
        )

    async def work(self, commands: asyncio.StreamReader) -> None:
        """Work until `finish` or the end of the input."""
        tasks = [asyncio.create_task(worker.run()) for worker in self._workers]
        aside = [asyncio.create_task(self._begin_at_the_latest()), asyncio.create_task(self._tell_changes())]
        command = await commands.readline()
        self.seen("seen")  # the present gaps count
        self.is_over = True
        await asyncio.wait(tasks, timeout=self.settings.timeout_s)
        for task in (*tasks, *aside):
            task.cancel()
        if command:
            seen = self.seen("final")
            lost, unread = await self._lost()
            unsure = [f"{unread} writes could not be read back at the end"] if unread else []
            await self._delete()
            say(
                msgspec.structs.replace(
                    seen, lost=len(lost), first_lost=tuple(lost[:FIRST_COUNT]), notices=(*seen.notices, *unsure)
                )
            )

    async def _tell_changes(self) -> None:
        told: tuple[float, int, int] | None = None
        while True:
            await asyncio.sleep(_REFRESH_S)
            seen = self.seen("seen")
            news = (seen.longest_gap_ms, seen.errors, int(seen.seconds))  # without any news once a second
            if told != news:
                told = news
                say(seen)

    # --- reading back ---

    async def _lost(self) -> tuple[list[str], int]:
        """(what is lost, in words; how many writes could not be read back)."""
        acknowledged = {key: number for writer in self._writers for key, number in writer.acknowledged.items()}
        attempted = {key: number for writer in self._writers for key, number in writer.attempted.items()}
        lost: list[str] = []
        unread = 0
        for key, reply in (await self._replies("GET", sorted(acknowledged))).items():
            if isinstance(reply, hiredis.ReplyError | NodeError):
                unread += 1
            elif reply is None:
                if not self.settings.may_evict:
                    lost.append(f"{key}: write {acknowledged[key]} was acknowledged and the key is missing")
            elif not (str(reply).isdigit() and acknowledged[key] <= int(reply) <= attempted[key]):
                lost.append(f"{key}: write {acknowledged[key]} was acknowledged and write {reply} is there")
        return lost, unread

    async def _delete(self) -> None:
        able = [writer for writer in self._writers if not writer.is_denied]
        await self._replies("DEL", sorted(key for writer in able for key in writer.attempted))

    async def _replies(self, command: str, keys: list[str]) -> dict[str, Reply]:
        """One reply per key; errors are tried again for a while, at every door: they say nothing about the data."""
        deadline_s = time.monotonic() + _READ_BACK_S
        replies: dict[str, Reply] = {}
        left: list[str] = keys
        turn = 0
        while left:
            site = self._sites[turn % len(self._sites)]
            turn += 1
            try:
                async with await site.open() as connection:
                    for first in range(0, len(left), _PIPELINE_KEYS):
                        part = left[first : first + _PIPELINE_KEYS]
                        answers = await connection.pipeline([(command, key) for key in part])
                        replies.update(zip(part, answers, strict=True))
            except NodeError as error:
                replies.update({key: error for key in left if key not in replies})
            left = [key for key in left if isinstance(replies[key], hiredis.ReplyError | NodeError)]
            if time.monotonic() > deadline_s:
                break
            if left:
                await asyncio.sleep(_REFRESH_S)
        return replies


def say(event: ProbeEvent) -> None:
    """One line to the verb. If nobody reads any more, the end of the input is near too."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()


async def _main() -> int:
    commands = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    settings = msgspec.json.decode(await commands.readline(), type=ProbeSettings)
    try:
        clients = ProbeClients(settings)
    except CertificateError as error:
        sys.stderr.write(f"{error.what}: {error.where}: {error.why}\n")
        return error.exit_status
    await clients.work(commands)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the verb, which then ends this
    sys.exit(asyncio.run(_main()))
