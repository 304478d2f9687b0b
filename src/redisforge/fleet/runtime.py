"""A runtime runs Units on a host: here as supervised local processes, one keeper each (fleet/keeper.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from redisforge.errors import HostError
from redisforge.fleet.transport import Transport
from redisforge.model.facts import UnitFacts
from redisforge.model.layout import ClusterLayout
from redisforge.model.unit import Unit, UnitFile

_COMMAND_LIMIT_S = 900.0
"""A node without AOF saves its whole data set while it stops; that may take minutes."""


class Runtime(Protocol):
    """What every runtime can do. Every method raises HostError when the host does not do what is asked."""

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        """Place the files of Units and see that each runs; one that runs already is left alone.

        `permit_blank` names those that may start without data (model/unit.py, DataGuard).
        """
        ...

    async def place(self, units: Sequence[Unit]) -> None:
        """Place the files of Units, whether they run or not. What runs goes on with what it has read."""
        ...

    async def stop(self, names: Sequence[str]) -> None:
        """End Units and whatever keeps them; returns when they are gone. Data and logs stay."""
        ...

    async def observe(self) -> dict[str, UnitFacts]:
        """The state of every Unit that this runtime knows on the host."""
        ...

    async def remove(self, names: Sequence[str]) -> None:
        """Delete everything of stopped Units, their data included."""
        ...

    def log_path(self, name: str) -> str:
        """Where a Unit's output goes."""
        ...


class ProcessRuntime:
    """Units as processes of this user, each watched by a keeper that outlives the command."""

    def __init__(self, transport: Transport, layout: ClusterLayout, *, python: str = sys.executable) -> None:
        self._transport = transport
        self._layout = layout
        self._python = python
        self._keeper_path = f"{layout.folder}/keeper.py"

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        """See Runtime.start."""
        keeper = UnitFile("keeper.py", Path(__file__).with_name("keeper.py").read_text(encoding="utf-8"))
        await self._transport.place(self._layout.folder, [keeper])
        await self.place(units)
        permitted = set(permit_blank)
        permit = UnitFile("permit-blank", "granted by redisforge\n")
        for unit in units:
            if unit.name in permitted:
                await self._transport.place(unit.folder, [permit])
            elif unit.guard:  # what an interrupted start left unused was granted on what was known then
                await self._transport.remove(f"{unit.folder}/{permit.path}")
        await self._keeper("start", *(unit.folder for unit in units))

    async def place(self, units: Sequence[Unit]) -> None:
        """See Runtime.place."""
        for unit in units:
            files = [*unit.files, _unit_json(unit)]
            if unit.guard:
                files.append(UnitFile("data/.keep", ""))
            await self._transport.place(unit.folder, files)

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

    async def remove(self, names: Sequence[str]) -> None:
        """See Runtime.remove."""
        for name in names:
            await self._transport.remove(self._layout.unit(name))

    def log_path(self, name: str) -> str:
        """See Runtime.log_path."""
        return f"{self._layout.unit(name)}/log"

    async def _keeper(self, *arguments: str) -> str:
        argv = (self._python, "-I", "-S", self._keeper_path, *arguments)
        return (await self._transport.run(argv, timeout_s=_COMMAND_LIMIT_S)).stdout


class NoRuntime:
    """For nodes that somebody else runs (init-cluster): nothing to observe, nothing that could be started."""

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        """Raises HostError: these nodes are not ours to start."""
        del units, permit_blank
        raise HostError("these nodes are not run by RedisForge", next_step="start them by what runs them")

    async def place(self, units: Sequence[Unit]) -> None:
        """Raises HostError: these nodes have their files from elsewhere."""
        await self.start(units)

    async def stop(self, names: Sequence[str]) -> None:
        """Raises HostError: these nodes are not ours to stop."""
        del names
        raise HostError("these nodes are not run by RedisForge", next_step="stop them by what runs them")

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


def _unit_json(unit: Unit) -> UnitFile:
    document = {
        "name": unit.name,
        "argv": unit.argv,
        "stop_grace_s": unit.stop_grace_s,
        "open_files": unit.open_files,
        "config_hash": unit.config_hash,
        "placed_hash": unit.placed_hash,
        "guard": unit.guard,
    }
    return UnitFile("unit.json", msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n")
