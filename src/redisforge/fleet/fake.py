"""A host in memory, for tests of everything above the transport: same contract, no disk, no process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from redisforge.errors import HostError
from redisforge.fleet.transport import CommandResult, Incoming, Outgoing
from redisforge.model.facts import Stray, UnitFacts, UnitState
from redisforge.model.unit import Unit, UnitFile

Answer = Callable[[tuple[str, ...]], CommandResult]


class FakeTransport:
    """Files in a dictionary; commands are answered by a function and recorded in `commands`."""

    host = "fake"

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.files: dict[str, UnitFile] = {}
        self.commands: list[tuple[str, ...]] = []
        self.fed: dict[tuple[str, ...], bytes] = {}
        """The standard input that a command was given, by command."""
        self.carried: dict[str, str] = {}
        """The folder that was carried, by where it lies."""

    async def open(self) -> None:
        """See Transport.open. There is nothing to do."""

    async def run(self, argv: Sequence[str], *, timeout_s: float, check: bool = True) -> CommandResult:
        """See Transport.run."""
        del timeout_s
        self.commands.append(tuple(argv))
        result = self._answer(tuple(argv))
        if check and result.exit_status:
            what = f"{argv[0]} failed with exit status {result.exit_status}"
            raise HostError(what, where=self.host, why=result.stderr)
        return result

    async def feed(
        self, argv: Sequence[str], given: Iterable[bytes], *, timeout_s: float, check: bool = True
    ) -> CommandResult:
        """See Transport.feed. What was given is kept in `fed`, by command."""
        self.fed[tuple(argv)] = b"".join(given)
        return await self.run(argv, timeout_s=timeout_s, check=check)

    async def place(self, folder: str, files: Sequence[UnitFile]) -> tuple[str, ...]:
        """See Transport.place."""
        changed: list[str] = []
        for file in files:
            path = f"{folder}/{file.path}"
            if self.files.get(path) != file:
                self.files[path] = file
                changed.append(file.path)
        return tuple(changed)

    async def read(self, path: str) -> str | None:
        """See Transport.read."""
        return self.files[path].text() if path in self.files else None

    async def remove(self, path: str) -> None:
        """See Transport.remove."""
        for known in [known for known in self.files if known == path or known.startswith(f"{path}/")]:
            del self.files[known]

    async def free_bytes(self, path: str) -> int:
        """See Transport.free_bytes."""
        del path
        return 1 << 40

    async def carry(self, source: str, target: str) -> bool:
        """See Transport.carry. Only which folder went where is kept, in `carried`."""
        if target in self.carried:
            return False
        self.carried[target] = source
        return True

    async def connect(self, address: str, port: int) -> tuple[Incoming, Outgoing]:
        """See Transport.connect. Nothing listens on a host in memory."""
        raise ConnectionRefusedError(f"{address}:{port}")


class FakeRuntime:
    """Units that run as soon as they are started and stop when they are told to."""

    def __init__(self) -> None:
        self.units: dict[str, UnitFacts] = {}
        self.placed: dict[str, str] = {}
        """The configuration hash of the files that lie there, by Unit."""
        self.elections: list[tuple[str, str]] = []
        """(elected, replaced) of every election that was noted."""
        self.strangers: set[str] = set()
        """Names that somebody else has taken: `check` refuses their Units."""
        self._next_pid = 1000

    async def check(self, units: Sequence[Unit]) -> None:
        """See Runtime.check."""
        if stranger := next((unit.name for unit in units if unit.name in self.strangers), ""):
            raise HostError(f"something else is called {stranger} here", next_step="rename it")

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        """See Runtime.start."""
        del permit_blank
        await self.place(units)
        for unit in units:
            if self.units.get(unit.name, _absent(unit.name)).state is not UnitState.RUNNING:
                self._next_pid += 2
                self.units[unit.name] = UnitFacts(
                    name=unit.name, state=UnitState.RUNNING, pid=self._next_pid, keeper_pid=self._next_pid + 1,
                    config_hash=unit.config_hash, placed_hash=unit.placed_hash,
                )  # fmt: skip

    async def place(self, units: Sequence[Unit]) -> None:
        """See Runtime.place."""
        for unit in units:
            self.placed[unit.name] = unit.config_hash
            if unit.name in self.units:
                self.units[unit.name] = msgspec.structs.replace(self.units[unit.name], placed_hash=unit.placed_hash)

    async def tell_keepers(self, units: Sequence[Unit]) -> tuple[str, ...]:
        """See Runtime.tell_keepers. There are no keepers here."""
        del units
        return ()

    async def note_applied(self, unit: Unit, told: UnitFacts) -> None:
        """See Runtime.note_applied."""
        if self.units[unit.name].pid == told.pid:
            self.units[unit.name] = msgspec.structs.replace(
                self.units[unit.name], config_hash=unit.config_hash, applied_at_s=time.time()
            )

    async def stop(self, names: Sequence[str]) -> None:
        """See Runtime.stop."""
        for name in names:
            if name in self.units:
                self.units[name] = UnitFacts(name=name, state=UnitState.STOPPED)

    async def observe(self) -> dict[str, UnitFacts]:
        """See Runtime.observe."""
        return dict(self.units)

    async def note_election(self, elected: str, replaced: str) -> None:
        """See Runtime.note_election."""
        self.elections.append((elected, replaced))

    async def remove(self, names: Sequence[str]) -> None:
        """See Runtime.remove."""
        for name in names:
            self.units.pop(name, None)

    def log_path(self, name: str) -> str:
        """See Runtime.log_path."""
        return f"fake:{name}"

    def log_command(self, name: str) -> tuple[str, ...]:
        """See Runtime.log_command."""
        return ("true", name)

    def as_stray(self, unit: UnitFacts) -> Stray:
        """See Runtime.as_stray. There is no command that would reach it."""
        return Stray(unit=unit, host=FakeTransport.host, stop_command=("true", unit.name))


def _absent(name: str) -> UnitFacts:
    return UnitFacts(name=name, state=UnitState.ABSENT)
