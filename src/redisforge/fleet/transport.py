"""A transport carries commands and files to a host. A command is a tuple of arguments, never a shell line.

`LocalTransport` is this machine; `FakeTransport` (fleet/fake.py) is a host in memory. All pass the contract suite in
tests/contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from redisforge.disk import write_file
from redisforge.errors import HostError
from redisforge.model.unit import UnitFile

_LAST_WORDS_S = 1.0
"""For the streams of a killed command to end."""


class CommandResult(msgspec.Struct, frozen=True):
    """How a command ended; the streams are decoded, undecodable bytes replaced."""

    argv: tuple[str, ...]
    exit_status: int
    stdout: str
    stderr: str


class Transport(Protocol):
    """One host. Every method raises HostError when the host does not do what is asked."""

    @property
    def host(self) -> str:
        """The host's name, for messages."""
        ...

    async def open(self) -> None:
        """Make the way to the host, unless it is there. Raises HostError, mostly UnreachableError."""
        ...

    async def run(self, argv: Sequence[str], *, timeout_s: float, check: bool = True) -> CommandResult:
        """Run a command to its end. With `check`, an exit status other than 0 is a HostError."""
        ...

    async def feed(
        self, argv: Sequence[str], given: Iterable[bytes], *, timeout_s: float, check: bool = True
    ) -> CommandResult:
        """As `run`, with a standard input: pieces that are taken when there is room for them, then the end.

        Taken in a thread, so making a piece may block. A command that ends early is not given the rest.
        """
        ...

    async def place(self, folder: str, files: Sequence[UnitFile]) -> tuple[str, ...]:
        """Write files below `folder` atomically, each only if it differs; returns the paths that changed."""
        ...

    async def read(self, path: str) -> str | None:
        """The text of a file, or None if there is none."""
        ...

    async def remove(self, path: str) -> None:
        """Delete a file or a folder with everything in it; nothing there is fine."""
        ...

    async def free_bytes(self, path: str) -> int:
        """Free space of the file system that `path` lies on, or would lie on."""
        ...

    async def carry(self, source: str, target: str) -> bool:
        """Copy the folder `source` of the operator's machine to `target` on the host, whole or not at all.

        A folder that is there already is left as it is. Returns whether anything was copied.
        """
        ...

    async def connect(self, address: str, port: int) -> tuple[Incoming, Outgoing]:
        """A TCP connection made on the host, to what may listen there on loopback only.

        Raises OSError as asyncio.open_connection does, and HostError when the host itself cannot be reached.
        """
        ...


class Incoming(Protocol):
    """What is read from a connection; asyncio.StreamReader is one."""

    async def read(self, n: int = -1, /) -> bytes:
        """Up to `n` bytes; all until the end with -1."""
        ...

    async def readline(self) -> bytes:
        """A line with its end."""
        ...

    async def readexactly(self, n: int, /) -> bytes:
        """`n` bytes. Raises EOFError."""
        ...

    async def readuntil(self, separator: bytes, /) -> bytes:
        """Until `separator`, which is included. Raises EOFError."""
        ...


class Outgoing(Protocol):
    """What is written to a connection; asyncio.StreamWriter is one."""

    def write(self, data: bytes, /) -> None:
        """Queue bytes."""
        ...

    async def drain(self) -> None:
        """Wait until there is room for more."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class LocalTransport:
    """This machine."""

    host = "local"

    async def open(self) -> None:
        """See Transport.open. There is nothing to do."""

    async def run(self, argv: Sequence[str], *, timeout_s: float, check: bool = True) -> CommandResult:
        """See Transport.run. The command gets no standard input and is killed when its time is over."""
        return await self._do(tuple(argv), None, timeout_s, check=check)

    async def feed(
        self, argv: Sequence[str], given: Iterable[bytes], *, timeout_s: float, check: bool = True
    ) -> CommandResult:
        """See Transport.feed."""
        return await self._do(tuple(argv), given, timeout_s, check=check)

    async def _do(
        self, argv: tuple[str, ...], given: Iterable[bytes] | None, timeout_s: float, *, check: bool
    ) -> CommandResult:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise HostError(f"cannot run {argv[0]}", where=self.host, why=str(error.strerror)) from error
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await _talk(process, given)
        except TimeoutError as error:
            await _kill(process)
            raise HostError(
                f"{argv[0]} did not end",
                where=self.host,
                why=f"no end within {timeout_s:g} s: {' '.join(argv)}",
            ) from error
        except BaseException:
            if given is not None:  # half of what it was to get must not pass for the whole
                await asyncio.shield(_kill(process))
            raise
        result = CommandResult(
            argv,
            process.returncode or 0,
            stdout.decode(errors="replace"),
            stderr.decode(errors="replace"),
        )
        if check and result.exit_status:
            raise HostError(
                f"{argv[0]} failed with exit status {result.exit_status}",
                where=self.host,
                why=result.stderr[-2000:] or " ".join(argv),
            )
        return result

    async def place(self, folder: str, files: Sequence[UnitFile]) -> tuple[str, ...]:
        """See Transport.place."""
        return tuple(file.path for file in files if _place(Path(folder, file.path), file))

    async def read(self, path: str) -> str | None:
        """See Transport.read."""
        try:
            return Path(path).read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError("cannot read a file", where=f"{self.host}: {path}", why=str(error.strerror)) from error

    async def remove(self, path: str) -> None:
        """See Transport.remove."""
        try:
            if Path(path).is_dir() and not Path(path).is_symlink():
                shutil.rmtree(path)
            else:
                Path(path).unlink(missing_ok=True)
        except OSError as error:
            raise HostError("cannot delete", where=f"{self.host}: {path}", why=str(error.strerror)) from error

    async def free_bytes(self, path: str) -> int:
        """See Transport.free_bytes."""
        existing = Path(path)
        while not existing.exists():
            existing = existing.parent
        return shutil.disk_usage(existing).free

    async def carry(self, source: str, target: str) -> bool:
        """See Transport.carry."""
        return await asyncio.to_thread(_carry, source, target)

    async def connect(self, address: str, port: int) -> tuple[Incoming, Outgoing]:
        """See Transport.connect."""
        return await asyncio.open_connection(address, port)


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its children too: they would hold the streams open
    with contextlib.suppress(TimeoutError, RuntimeError):  # RuntimeError: somebody reads already
        async with asyncio.timeout(_LAST_WORDS_S):
            await process.communicate()  # a pipe that nobody reads to its end is never closed
    await process.wait()


async def _talk(process: asyncio.subprocess.Process, given: Iterable[bytes] | None) -> tuple[bytes, bytes]:
    """Give it its standard input and take its two streams, all at the same time."""
    if given is None or process.stdin is None or process.stdout is None or process.stderr is None:
        return await process.communicate()
    _, stdout, stderr = await asyncio.gather(_give(process.stdin, given), process.stdout.read(), process.stderr.read())
    await process.wait()
    return stdout, stderr


async def _give(stream: asyncio.StreamWriter, given: Iterable[bytes]) -> None:
    pieces = iter(given)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it does not want the rest
        while piece := await asyncio.to_thread(next, pieces, b""):
            stream.write(piece)
            await stream.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.close()


def _carry(source: str, target: str) -> bool:
    """Raises HostError."""
    import tarfile
    import tempfile

    from redisforge.fleet.carry import beside, write_archive

    if Path(target).exists():
        return False
    unfinished = Path(beside(target))
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with tempfile.TemporaryFile() as archive:
            write_archive(source, target, archive)
            archive.seek(0)
            with tarfile.open(fileobj=archive) as packed:
                packed.extractall(unfinished, filter="tar")
        unfinished.rename(target)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise HostError("cannot copy a folder", where=f"{LocalTransport.host}: {target}", why=str(error)) from error
    return True


def _place(path: Path, file: UnitFile) -> bool:
    """Write one file if its text or mode differs; returns whether it did. Raises HostError."""
    content = file.text().encode()
    with contextlib.suppress(OSError):  # absent: written below
        if path.read_bytes() == content and path.stat().st_mode & 0o777 == file.mode:
            return False
    return write_file(path, content, file.mode)
