"""The load itself: a program of its own, so that neither the test's waiting nor its GIL distorts what is measured.

Standard input: one line of JSON (`Settings`), then commands, one a line: `state`, `verify`, `stop`. Standard output:
one line of JSON for each, and `{"ready": true}` once every worker has succeeded. End of input ends the program.

What a writer does, over and over: SET of its own keys (several sizes, every fourth key with a hash tag), INCR of its
counters, RPUSH to its lists. Each write of a key carries that key's next number. So a value that is read back is right
when its number lies between the last acknowledged and the last attempted one, whatever failed in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import msgspec

from redisforge.errors import NodeError
from redisforge.model.secret import Secret
from redisforge.redis.connection import Connection, Login, ReplyError

SIZES_BYTES = (16, 16, 100, 100, 1000, 8000)
COUNTERS = 8
LISTS = 4
PIPELINE = 200
ERROR_PAUSE_S = 0.005
READ_BACK_S = 20.0
FIRST_ERRORS = 20


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. Rates are per worker; `limit_s` and `limit_ops` bound a load that nobody stops."""

    url: str
    reader_url: str = ""
    writers: int = 4
    readers: int = 4
    rate_per_s: float = 100.0
    keys_per_writer: int = 1000
    timeout_s: float = 5.0
    limit_s: float = 300.0
    limit_ops: int = 1_000_000
    keep_keys: bool = True
    run: str = "run"


class Door:
    """Where to connect, from a URL as `redisforge url` prints it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self._address = (parts.hostname or "", parts.port or 6379)
        self._protocol = int(options.get("protocol", "2"))
        self._timeout_s = timeout_s
        self._login = Login(
            ca_path=options.get("ssl_ca_certs", ""),
            certificate_path=options.get("ssl_certfile", ""),
            key_path=options.get("ssl_keyfile", ""),
            user=unquote(parts.username or ""),
            password=Secret(unquote(parts.password or "")),
        )
        self._tls = self._login.ssl_context()

    async def open(self) -> Connection:
        """A new connection, logged in."""
        return await Connection.open(
            self._address, self._login, timeout_s=self._timeout_s, tls=self._tls, protocol=self._protocol
        )


class Ledger:
    """What was attempted and what was acknowledged, by key."""

    def __init__(self) -> None:
        self.attempted: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}
        self.elements: dict[str, list[int]] = {}
        """Acknowledged elements of lists."""

    def begin(self, key: str) -> int:
        """The number of the next write of `key`."""
        number = self.attempted.get(key, 0) + 1
        self.attempted[key] = number
        return number

    def acknowledge(self, key: str, number: int) -> None:
        """The server said that it has it. A counter's acknowledged effect is how many INCRs succeeded."""
        kind = kind_of(key)
        if kind == "list":
            self.elements.setdefault(key, []).append(number)
        elif kind == "counter":
            number = self.acknowledged.get(key, 0) + 1
        self.acknowledged[key] = number


def kind_of(key: str) -> str:
    """value, counter or list."""
    return key.partition(":")[2].partition(":")[0]


def value_of(key: str, number: int) -> str:
    """The value of the key's write `number`: the number, and letters up to the size."""
    head = f"{number}:{key}:"
    return head + "x" * (SIZES_BYTES[number % len(SIZES_BYTES)] - len(head))


class Worker:
    """One client: a connection at a time, one request at a time, at a bounded rate."""

    def __init__(self, name: str, load: LoadProgram, door: Door, act: Callable[[Connection], Awaitable[None]]) -> None:
        self.name = name
        self._load = load
        self._door = door
        self._act = act
        self.done = 0
        self.last_success_s = 0.0
        self.longest_gap_s = 0.0
        self.gap_began_s = 0.0

    async def run(self) -> None:
        """Work until the load stops."""
        pause_s = 1.0 / self._load.settings.rate_per_s
        connection: Connection | None = None
        due_s = time.monotonic() + random.random() * pause_s  # so that workers do not march in step
        while not self._load.is_over():
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            due_s = max(due_s + pause_s, time.monotonic())  # after a gap: no burst to catch up
            try:
                connection = connection or await self._door.open()
                await self._act(connection)
            except NodeError as error:
                self._load.note(self.name, f"{error.what}: {error.why}")
                if not isinstance(error, ReplyError):
                    connection = None
                await asyncio.sleep(ERROR_PAUSE_S)
            else:
                self._succeeded()
        if connection:
            connection.abort()

    def _succeeded(self) -> None:
        now_s = time.monotonic()
        self._widen(now_s)
        self.last_success_s = now_s
        self.done += 1
        self._load.worker_is_ready(self)

    def _widen(self, until_s: float) -> None:
        began_s = max(self.last_success_s, self._load.began_s)
        if self._load.is_ready and until_s - began_s > self.longest_gap_s:
            self.longest_gap_s, self.gap_began_s = until_s - began_s, began_s

    def close_gap(self, now_s: float) -> None:
        """Count the time since the last success too."""
        self._widen(now_s)


class LoadProgram:
    """All workers, what they saw, and the answers to commands."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ledger = Ledger()
        self.began_s = time.monotonic()
        self.is_ready = False
        self._ready = asyncio.Event()
        self._waited_for: set[str] = set()
        self._stopping = False
        self._ended_s = 0.0
        self._errors: list[str] = []
        self._error_count = 0
        self._error_times_s: list[float] = []
        self._stale_reads: list[str] = []
        self._primary = Door(settings.url, settings.timeout_s)
        reader = Door(settings.reader_url, settings.timeout_s) if settings.reader_url else self._primary
        self._writers = [
            Worker(f"writer-{number}", self, self._primary, self._writing(number)) for number in range(settings.writers)
        ]
        self._readers = [
            Worker(f"reader-{number}", self, reader, self._reading(number)) for number in range(settings.readers)
        ]
        self._waited_for.update(worker.name for worker in (*self._writers, *self._readers))

    def is_over(self) -> bool:
        """Whether workers have to end."""
        return self._stopping or self.limit_reached()

    def limit_reached(self) -> bool:
        """Whether the load ended by itself: then it proves nothing about what came later."""
        done = sum(worker.done for worker in (*self._writers, *self._readers))
        return time.monotonic() - self.began_s > self.settings.limit_s or done >= self.settings.limit_ops

    def worker_is_ready(self, worker: Worker) -> None:
        """Note a success; the clock starts when every worker has had one."""
        if not self.is_ready:
            self._waited_for.discard(worker.name)
            if not self._waited_for:
                self.is_ready, self.began_s = True, time.monotonic()
                self._ready.set()

    def note(self, worker: str, what: str) -> None:
        """Note an error."""
        offset_s = time.monotonic() - self.began_s
        self._error_count += 1
        self._error_times_s = [self._error_times_s[0] if self._error_times_s else offset_s, offset_s]
        if len(self._errors) < FIRST_ERRORS:
            self._errors.append(f"{offset_s:.3f} s {worker}: {what}")

    # --- what workers do ---

    def _writing(self, number: int) -> Callable[[Connection], Awaitable[None]]:
        prefix, turn, run = f"w{number}", 0, self.settings.run

        async def act(connection: Connection) -> None:
            nonlocal turn
            turn += 1
            if turn % 10 == 0:
                key = f"load:counter:{run}:{prefix}:{turn // 10 % COUNTERS}"
                await self._write(connection, key, ("INCR", key))
            elif turn % 10 == 5:
                key = f"load:list:{run}:{prefix}:{turn // 10 % LISTS}"
                await self._write(connection, key, ("RPUSH", key))
            else:
                place = turn % self.settings.keys_per_writer
                tagged = f"{{{prefix}-{place % 50}}}:{place}" if place % 4 == 0 else f"{prefix}:{place}"
                key = f"load:value:{run}:{tagged}"
                await self._write(connection, key, ("SET", key))

        return act

    async def _write(self, connection: Connection, key: str, command: tuple[str, str]) -> None:
        number = self.ledger.begin(key)
        argument = {"SET": (value_of(key, number),), "RPUSH": (str(number),)}.get(command[0], ())
        await connection.call(*command, *argument)
        self.ledger.acknowledge(key, number)

    def _reading(self, number: int) -> Callable[[Connection], Awaitable[None]]:
        choice, at_replicas = random.Random(number), bool(self.settings.reader_url)

        async def act(connection: Connection) -> None:
            if not self.settings.writers:
                await connection.call("GET", f"load:value:{self.settings.run}:none:{choice.random()}")
                return
            place = choice.randrange(1, self.settings.keys_per_writer)
            key = f"load:value:{self.settings.run}:w{choice.randrange(self.settings.writers)}:{place}"
            before = self.ledger.acknowledged.get(key, 0)
            value = await connection.call("GET", key)
            found = number_in(value)
            if not at_replicas and found < before:
                self._stale_reads.append(f"{key}: write {before} was acknowledged, and then {found} was read")

        return act

    # --- reading back ---

    async def lost(self) -> list[str]:
        """Read every acknowledged write back through the primary endpoint; what is wrong, by key."""
        acknowledged = dict(self.ledger.acknowledged)
        elements = {key: list(numbers) for key, numbers in self.ledger.elements.items()}
        keys = sorted(acknowledged)
        found: list[str] = []
        for first in range(0, len(keys), PIPELINE):
            part = keys[first : first + PIPELINE]
            commands = [("LRANGE", key, "0", "-1") if kind_of(key) == "list" else ("GET", key) for key in part]
            for key, reply in zip(part, await self._read_back(commands), strict=True):
                found += self._compared(key, reply, acknowledged[key], elements.get(key, []))
        return found

    def _compared(self, key: str, reply: Any, acknowledged: int, elements: list[int]) -> list[str]:
        if isinstance(reply, Exception):
            return [f"{key}: cannot be read back: {reply}"]
        if kind_of(key) == "list":
            present = {int(element) for element in reply}
            missing = [number for number in elements if number not in present]
            twice = len(reply) - len(present)
            return [f"{key}: lost elements {missing[:10]} ({len(missing)})"] * bool(missing) + [
                f"{key}: {twice} elements are there twice"
            ] * bool(twice)
        number = int(reply or 0) if kind_of(key) == "counter" else number_in(reply)
        if number < acknowledged:
            was = "is missing" if reply is None else f"has write {number}"
            return [f"{key}: {was}; acknowledged was {acknowledged}"]
        if number > self.ledger.attempted[key]:
            return [f"{key}: has {number}, more than the {self.ledger.attempted[key]} that were attempted"]
        if kind_of(key) == "value" and reply != value_of(key, number):
            return [f"{key}: write {number} has another content than was written"]
        return []

    async def _read_back(self, commands: list[tuple[str, ...]]) -> list[Any]:
        """The replies; an error is tried again for a while, since it says nothing about the data."""
        deadline_s = time.monotonic() + READ_BACK_S
        while True:
            replies: list[Any] = []
            try:
                async with await self._primary.open() as connection:
                    replies = await connection.pipeline(commands)
            except NodeError as error:
                replies = [error] * len(commands)
            failed = any(isinstance(reply, NodeError | hiredis.ReplyError) for reply in replies)
            if not failed or time.monotonic() > deadline_s:
                return replies
            await asyncio.sleep(0.1)

    async def _delete_keys(self) -> None:
        keys = sorted(self.ledger.attempted)
        for first in range(0, len(keys), PIPELINE):
            await self._read_back([("DEL", key) for key in keys[first : first + PIPELINE]])

    # --- commands ---

    def state(self) -> dict[str, Any]:
        """What happened so far."""
        now_s = self._ended_s or time.monotonic()
        workers = [*self._writers, *self._readers]
        for worker in workers:
            worker.close_gap(now_s)
        widest = max(workers, key=lambda worker: worker.longest_gap_s, default=None)
        times_s = self._error_times_s
        return {
            "writes": sum(worker.done for worker in self._writers),
            "reads": sum(worker.done for worker in self._readers),
            "errors": self._errors,
            "error_count": self._error_count,
            "longest_gap_s": widest.longest_gap_s if widest else 0.0,
            "longest_gap_at": f"{widest.gap_began_s - self.began_s:.3f} s {widest.name}" if widest else "",
            "error_window_s": times_s[-1] - times_s[0] if times_s else 0.0,
            "stale_reads": self._stale_reads[:FIRST_ERRORS],
            "seconds": now_s - self.began_s,
            "limit_reached": self.limit_reached() and not self._stopping,
        }

    async def serve(self, lines: asyncio.StreamReader) -> None:
        """Work and answer until `stop` or the end of the input."""
        workers = [asyncio.create_task(worker.run()) for worker in (*self._writers, *self._readers)]
        ready = asyncio.create_task(self._say_ready())
        while command := (await lines.readline()).decode().strip():
            if command == "state":
                say(self.state())
            elif command == "verify":
                say({"lost": await self.lost()})
            elif command == "stop":
                limit_reached = self.limit_reached()
                self._stopping = True
                self._ended_s = time.monotonic()
                await asyncio.gather(*workers)
                report = self.state() | {"limit_reached": limit_reached, "lost": await self.lost()}
                say(report | {"acknowledged": self.ledger.acknowledged})
                if not self.settings.keep_keys:
                    await self._delete_keys()
                break
        for task in (ready, *workers):
            task.cancel()
        await asyncio.gather(ready, *workers, return_exceptions=True)

    async def _say_ready(self) -> None:
        await self._ready.wait()
        say({"ready": True})


def number_in(value: Any) -> int:
    """The number that a value begins with; 0 without a value."""
    head = str(value or "").partition(":")[0]
    return int(head) if head.isdigit() else 0


def say(document: dict[str, Any]) -> None:
    """One line to whoever started this."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Read the settings and work."""
    lines = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    settings = msgspec.json.decode(await lines.readline(), type=Settings)
    await LoadProgram(settings).serve(lines)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
