"""A runtime runs Units on a host: here as supervised local processes, one keeper each (fleet/keeper.py)."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from redisforge.errors import HostError
from redisforge.fleet.transport import LocalTransport, Transport
from redisforge.model.facts import Stray, UnitFacts
from redisforge.model.layout import ClusterLayout
from redisforge.model.unit import Unit, UnitFile

_COMMAND_LIMIT_S = 900.0
"""A node without AOF saves its whole data set while it stops; that may take minutes."""


UNITS_FOLDER = "units"
"""The folder of all Units in a cluster's folder (model/layout.py)."""
PERMIT = UnitFile("permit-blank", "granted by redisforge\n")
"""In a Unit's folder: it may start without data, once."""
KEEPER_PROGRAMS = ("peers.py", "handoff.py", "keeper.py")
"""What a host needs to keep Units, all in one folder (fleet/keeper.py loads the others from beside it)."""


class Runtime(Protocol):
    """What every runtime can do. Every method raises HostError when the host does not do what is asked."""

    async def check(self, units: Sequence[Unit]) -> None:
        """See that nothing on the host keeps Units from being started, and change nothing that runs there."""
        ...

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        """Place the files of Units and see that each runs; one that runs already is left alone.

        `permit_blank` names those that may start without data (model/unit.py, DataGuard).
        """
        ...

    async def place(self, units: Sequence[Unit]) -> None:
        """Place the files of Units, whether they run or not. What runs goes on with what it has read."""
        ...

    async def tell_keepers(self, units: Sequence[Unit]) -> tuple[str, ...]:
        """Place what only a Unit's keeper reads, the hand-off, for those Units that have been placed before.

        Nothing is restarted for it. Returns the names of the Units for which something changed.
        """
        ...

    async def note_applied(self, unit: Unit, told: UnitFacts) -> None:
        """Record that the process which was observed as `told` goes by the configuration of `unit` from now on.

        It is forgotten with that process: the next one goes by what it is started with.
        """
        ...

    async def stop(self, names: Sequence[str]) -> None:
        """End Units and whatever keeps them; returns when they are gone. Data and logs stay."""
        ...

    async def observe(self) -> dict[str, UnitFacts]:
        """The state of every Unit that this runtime knows on the host."""
        ...

    async def note_election(self, elected: str, replaced: str) -> None:
        """Note that an election has made `elected` the master in place of `replaced` (Unit names; "" if not ours): the
        next one of the shard needs some time between (plan/handover.py)."""
        ...

    async def remove(self, names: Sequence[str]) -> None:
        """Delete everything of stopped Units, their data included."""
        ...

    def log_path(self, name: str) -> str:
        """Where a Unit's output goes, for messages."""
        ...

    def log_command(self, name: str) -> tuple[str, ...]:
        """The command that prints the whole of it on the Unit's host."""
        ...

    def as_stray(self, unit: UnitFacts) -> Stray:
        """A Unit that was observed here and should not run: where that is, and the command that stops it there, as
        `stop` does."""
        ...


class UnitFolders:
    """What Units have on a disk, whoever runs them."""

    def __init__(self, transport: Transport, layout: ClusterLayout) -> None:
        self._transport = transport
        self._layout = layout

    async def place(self, units: Sequence[Unit]) -> None:
        """See Runtime.place. All files of all Units in one exchange."""
        files = [file for unit in units for file in (*unit.beside, *self._files(unit))]
        if files:
            await self._put(list(dict.fromkeys(files)))

    async def tell_keepers(self, units: Sequence[Unit]) -> tuple[str, ...]:
        """See Runtime.tell_keepers."""

        async def tell(unit: Unit) -> bool:
            if unit.handoff is None or await self._transport.read(f"{unit.folder}/handoff.json") is None:
                return False
            return bool(await self._put(self._below(unit.name, _handoff_json(unit))))

        changed = await asyncio.gather(*(tell(unit) for unit in units))
        return tuple(unit.name for unit, is_changed in zip(units, changed, strict=True) if is_changed)

    async def note_applied(self, unit: Unit, told: UnitFacts) -> None:
        """See Runtime.note_applied."""
        process = {"pid": told.pid, "started_at": told.started_at_s}
        note = {**process, "config_hash": unit.config_hash, "applied_at": time.time()}
        await self._put(self._below(unit.name, [UnitFile("applied.json", msgspec.json.encode(note).decode())]))

    async def note_election(self, elected: str, replaced: str) -> None:
        """See Runtime.note_election. The keepers note the same when they see it, about a second later."""
        noted = ((elected, "elected"), (replaced, "last-election"))
        files = [file for name, path in noted if name for file in self._below(name, [_stamp(path)])]
        if files:
            await self._put(files)

    async def remove(self, names: Sequence[str]) -> None:
        """See Runtime.remove. On another host the Unit's certificate and key go, too; here they are the operator's."""
        paths = [self._layout.unit(name) for name in names]
        if not isinstance(self._transport, LocalTransport):
            paths += [path for name in names for path in (self._layout.key(name), self._layout.certificate(name))]
        await asyncio.gather(*(self._transport.remove(path) for path in paths))

    def _files(self, unit: Unit) -> list[UnitFile]:
        """What lies in the Unit's folder, as paths below the cluster's."""
        files = [*unit.files, *_handoff_json(unit), _unit_json(unit)]
        if unit.guard:
            files.append(UnitFile("data/.keep", ""))
        return self._below(unit.name, files)

    def _below(self, unit_name: str, files: Iterable[UnitFile]) -> list[UnitFile]:
        return [msgspec.structs.replace(file, path=f"{UNITS_FOLDER}/{unit_name}/{file.path}") for file in files]

    def _stray(self, unit: UnitFacts, stop_command: tuple[str, ...]) -> Stray:
        host = "this machine" if isinstance(self._transport, LocalTransport) else self._transport.host
        return Stray(unit=unit, host=host, stop_command=stop_command)

    async def _put(self, files: Sequence[UnitFile]) -> tuple[str, ...]:
        return await self._transport.place(self._layout.folder, files)


class ProcessRuntime(UnitFolders):
    """Units as processes of this user, each watched by a keeper that outlives the command."""

    def __init__(self, transport: Transport, layout: ClusterLayout, *, python: str = sys.executable) -> None:
        super().__init__(transport, layout)
        self._python = python
        self._keeper_path = f"{layout.folder}/keeper.py"

    async def check(self, units: Sequence[Unit]) -> None:
        """See Runtime.check. Ports and room are looked at for every runtime alike."""
        del units

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        """See Runtime.start."""
        for folder in dict.fromkeys(folder for unit in units for folder in unit.carried):
            await self._transport.carry(folder.source, folder.target)
        await self._place_programs()
        await self.place(units)
        await self._permit(units, frozenset(permit_blank))
        await self._keeper("start", *(unit.folder for unit in units))

    async def _permit(self, units: Sequence[Unit], permitted: frozenset[str]) -> None:
        """Who may start without data; what an interrupted start left unused was granted on what was known then."""
        if granted := [file for unit in units if unit.name in permitted for file in self._below(unit.name, [PERMIT])]:
            await self._put(granted)
        others = [unit for unit in units if unit.guard and unit.name not in permitted]
        await asyncio.gather(*(self._transport.remove(f"{unit.folder}/{PERMIT.path}") for unit in others))

    async def stop(self, names: Sequence[str]) -> None:
        """See Runtime.stop."""
        if names:
            await self._keeper("stop", *(self._layout.unit(name) for name in names))

    async def observe(self) -> dict[str, UnitFacts]:
        """See Runtime.observe."""
        if await self._transport.read(self._keeper_path) is None:
            return {}
        output = await self._keeper("state", self._layout.units)
        try:
            found = msgspec.json.decode(output, type=list[UnitFacts])
        except msgspec.DecodeError as error:
            raise HostError("the keeper's report cannot be read", where=self._layout.units, why=str(error)) from error
        return {unit.name: unit for unit in found}

    def log_path(self, name: str) -> str:
        """See Runtime.log_path."""
        return f"{self._layout.unit(name)}/log"

    def log_command(self, name: str) -> tuple[str, ...]:
        """See Runtime.log_command."""
        return ("cat", self.log_path(name))

    def as_stray(self, unit: UnitFacts) -> Stray:
        """See Runtime.as_stray."""
        return self._stray(unit, (self._python, "-I", self._keeper_path, "stop", self._layout.unit(unit.name)))

    async def _place_programs(self) -> None:
        """The keeper last: it needs the others."""
        programs = [
            UnitFile(name, Path(__file__).with_name(name).read_text(encoding="utf-8")) for name in KEEPER_PROGRAMS
        ]
        await self._transport.place(self._layout.folder, programs)

    async def _keeper(self, *arguments: str) -> str:
        argv = (self._python, "-I", "-S", self._keeper_path, *arguments)
        return (await self._transport.run(argv, timeout_s=_COMMAND_LIMIT_S)).stdout


class NoRuntime:
    """For nodes that somebody else runs (init-cluster): nothing to observe, nothing that could be started."""

    async def check(self, units: Sequence[Unit]) -> None:
        """See Runtime.check. What could be in the way is not known."""
        del units

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        """Raises HostError: these nodes are not ours to start."""
        del permit_blank
        if not units:
            return
        raise HostError("these nodes are not run by RedisForge", next_step="start them by what runs them")

    async def place(self, units: Sequence[Unit]) -> None:
        """Raises HostError: these nodes have their files from elsewhere."""
        await self.start(units)

    async def tell_keepers(self, units: Sequence[Unit]) -> tuple[str, ...]:
        """Nothing: there are no keepers."""
        del units
        return ()

    async def note_applied(self, unit: Unit, told: UnitFacts) -> None:
        """Raises HostError: these nodes have their configuration from elsewhere."""
        del told
        await self.start([unit])

    async def stop(self, names: Sequence[str]) -> None:
        """Raises HostError: these nodes are not ours to stop."""
        if not names:
            return
        raise HostError("these nodes are not run by RedisForge", next_step="stop them by what runs them")

    async def note_election(self, elected: str, replaced: str) -> None:
        """Nowhere to note it."""
        del elected, replaced

    async def observe(self) -> dict[str, UnitFacts]:
        """Nothing: there are no Units."""
        return {}

    async def remove(self, names: Sequence[str]) -> None:
        """Raises HostError: these nodes are not ours to delete."""
        await self.stop(names)

    def log_path(self, name: str) -> str:
        """Unknown, so empty."""
        del name
        return ""

    def log_command(self, name: str) -> tuple[str, ...]:
        """Nothing that could be printed."""
        del name
        return ("true",)

    def as_stray(self, unit: UnitFacts) -> Stray:
        """Nobody knows how it would be stopped."""
        return Stray(unit=unit, host="", stop_command=())


def _stamp(path: str) -> UnitFile:
    return UnitFile(path, f"{time.time()}\n")


def _handoff_json(unit: Unit) -> list[UnitFile]:
    """In a file of its own: it may change while the process goes on with what it was started with."""
    if unit.handoff is None:
        return []
    content = msgspec.json.format(msgspec.json.encode(unit.handoff), indent=1).decode() + "\n"
    return [UnitFile("handoff.json", content)]


def _unit_json(unit: Unit) -> UnitFile:
    document = {
        "name": unit.name,
        "argv": unit.argv,
        "stop_grace_s": unit.stop_grace_s,
        "open_files": unit.open_files,
        "config_hash": unit.config_hash,
        "placed_hash": unit.placed_hash,
        **({"container_hash": unit.container.hash, "image": unit.container.image} if unit.container else {}),
        "guard": unit.guard,
    }
    return UnitFile("unit.json", msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n")
