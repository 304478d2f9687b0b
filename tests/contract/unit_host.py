"""Small real programs under real keepers, for tests: started through ProcessRuntime, seen from outside in /proc."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from redisforge.fleet import keeper
from redisforge.fleet.runtime import ProcessRuntime
from redisforge.fleet.transport import LocalTransport
from redisforge.model.facts import UnitFacts, UnitState
from redisforge.model.layout import ClusterLayout
from redisforge.model.unit import Unit
from waiting import until

KEEPER = Path(keeper.__file__)
PYTHON = (sys.executable, "-I", "-S")
SLEEP = ("/bin/sh", "-c", "echo ready; exec sleep 300")
"""Says that it is ready, and ends by itself if a test should forget it."""
STUBBORN = ("/bin/sh", "-c", "trap '' TERM; echo ready; exec sleep 300")
"""Does not end on SIGTERM."""


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid: int) -> None:
    """kill -9, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), f"the end of process {pid}")


def has_open(pid: int, name: str) -> bool:
    """Whether the process has a file of this name open."""
    try:
        return any(link.readlink().name == name for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def processes_below(folder: Path) -> dict[int, str]:
    """Command lines by pid of every process that works in `folder` or was started for it."""
    found: dict[int, str] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command and (str(folder) in command or process.joinpath("cwd").readlink().is_relative_to(folder)):
                    found[int(process.name)] = command.strip()
    return found


class UnitHost:
    """A cluster's folder on this machine with a ProcessRuntime; `close` shows that no process is left."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.layout = ClusterLayout(str(folder))
        self.runtime = ProcessRuntime(LocalTransport(), self.layout)

    def unit(self, name: str = "worker", argv: tuple[str, ...] = SLEEP, **more: Any) -> Unit:
        """A Unit; `more` are other fields of it."""
        fields: dict[str, Any] = {"kind": "redis", "host": "local", "files": (), "ports": (), "stop_grace_s": 5.0}
        return Unit(name=name, folder=self.layout.unit(name), argv=argv, **{**fields, **more})

    def folder(self, name: str = "worker") -> Path:
        """The Unit's folder."""
        return Path(self.layout.unit(name))

    def start(self, *units: Unit, permit_blank: Iterable[str] = ()) -> None:
        """See Runtime.start."""
        asyncio.run(self.runtime.start(units, permit_blank=permit_blank))

    def stop(self, *names: str) -> None:
        """See Runtime.stop."""
        asyncio.run(self.runtime.stop(names or ("worker",)))

    def facts(self, name: str = "worker") -> UnitFacts:
        """The Unit's state now, as `keeper.py state` prints it (test_runtimes.py reads it from the script)."""
        return msgspec.convert(keeper.describe(self.layout.unit(name)), UnitFacts)

    def reach(self, state: UnitState, name: str = "worker") -> UnitFacts:
        """Wait until the Unit is in `state`."""
        seen: list[UnitFacts] = []

        def reached() -> bool:
            seen.append(self.facts(name))
            return seen[-1].state is state

        with contextlib.suppress(AssertionError):
            until(reached, "")
        assert seen[-1].state is state, f"{name} is not {state} but {seen[-1]}; its log:\n{self.log(name)}"
        return seen[-1]

    def start_ready(self, unit: Unit | None = None, *, permit_blank: Iterable[str] = ()) -> UnitFacts:
        """Start a Unit of SLEEP or STUBBORN and wait until its program has said that it is ready."""
        unit = unit or self.unit()
        said = self.log(unit.name).count("ready\n")
        self.start(unit, permit_blank=permit_blank)
        self.await_log("ready\n", unit.name, count=said + 1)
        return self.reach(UnitState.RUNNING, unit.name)

    def log(self, name: str = "worker") -> str:
        """What the Unit and its keeper have printed."""
        path = Path(self.runtime.log_path(name))
        return path.read_text() if path.exists() else ""

    def await_log(self, text: str, name: str = "worker", *, count: int = 1) -> None:
        """Wait until the log holds `text`, `count` times."""
        until(lambda: self.log(name).count(text) >= count, f"{count} times {text!r} in the log of {name}")

    def keepers(self, name: str = "worker") -> list[int]:
        """The pids of all keepers of the Unit, also of one that has only just been started."""
        wanted = f" keep {self.layout.unit(name)}"
        return [pid for pid, command in processes_below(self.path).items() if command.endswith(wanted)]

    def run_keeper(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run keeper.py as a script, to its end."""
        return subprocess.run(
            (*PYTHON, str(KEEPER), *arguments), capture_output=True, text=True, timeout=60, check=False
        )

    def close(self) -> None:
        """Stop everything, and fail if a process is left."""
        units = Path(self.layout.units)
        folders = [path for path in units.iterdir() if path.is_dir()] if units.is_dir() else []
        for folder in folders:  # a second keeper that has not left yet would take over from the stopped one
            until(lambda name=folder.name: len(self.keepers(name)) <= 1, f"one keeper of {folder.name}")
        self.run_keeper("stop", *map(str, folders))
        left = processes_below(self.path)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"still running after stop: {left}"
