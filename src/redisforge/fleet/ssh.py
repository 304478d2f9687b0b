"""A host over SSH: commands and files, over one shared connection.

    what is asked          sequential exchanges
    a connection           CONNECT_ROUND_TRIPS, once
    run, read, remove …    2   the channel; the command and its answer
    feed                   3   the channel; the command; what it is given, and the answer
    place                  3   the channel; the command; all files in one stream, and the answer

`round_trips` counts them along the longest chain: what ran at the same time counts once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from redisforge.errors import HostError
from redisforge.fleet import ssh_errors, ssh_scripts
from redisforge.fleet.carry import archive_chunks, beside
from redisforge.fleet.ssh_connection import CONNECT_ROUND_TRIPS, SshConnection
from redisforge.fleet.transport import CommandResult, Incoming, Outgoing
from redisforge.model.unit import UnitFile

if TYPE_CHECKING:
    import asyncssh

FILE_LIMIT_S = 60.0
"""For what is done with files: no configuration file takes that long."""
CARRY_LIMIT_S = 900.0
"""For a folder of programs over a slow line."""
_UNPACK = """
umask 022
rm -rf -- "$1" && mkdir -p -- "$1" && tar -xf - -C "$1" && mv -- "$1" "$2" && exit 0
rm -rf -- "$1"
exit 1
"""
_REMOTE_SLACK_S = 5
"""The host itself ends a command that much later than we do: only if we cannot any more."""
_KILL_LIMIT_S = 10.0
_NO_ROOM = (2, 4)
"""SSH_OPEN_CONNECT_FAILED, as OpenSSH says beyond its MaxSessions, and SSH_OPEN_RESOURCE_SHORTAGE (RFC 4254, 5.1)."""
_ROOM_PAUSE_S = 0.02
_ENGLISH = ("env", "LC_ALL=C")
"""Messages that are compared with ours."""


class Ended(msgspec.Struct, frozen=True):
    """How a command ended, bytes as they came. `exit_status` is -N for a death by signal N."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class SshTransport:
    """See Transport. Not one command is retried once it was sent: whether it ran is not known after a loss."""

    def __init__(self, connection: SshConnection) -> None:
        self._connection = connection
        self.round_trips = 0
        """Exchanges one after the other since the transport was made."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns = asyncio.Semaphore(connection.limits.commands)
        self._kill_turns = asyncio.Semaphore(2)

    @property
    def host(self) -> str:
        """See Transport.host."""
        return self._connection.target.name

    @property
    def connection(self) -> SshConnection:
        """The connection that all commands share."""
        return self._connection

    async def open(self) -> None:
        """See Transport.open."""
        await self._connection.get()

    async def close(self) -> None:
        """End the connection; the next command opens another one."""
        await self._connection.close()

    async def run(self, argv: Sequence[str], *, timeout_s: float, check: bool = True) -> CommandResult:
        """See Transport.run. No standard input; the command and its children are killed when its time is over."""
        return self._result(tuple(argv), await self._do(tuple(argv), timeout_s=timeout_s), check=check)

    async def feed(
        self, argv: Sequence[str], given: Iterable[bytes], *, timeout_s: float, check: bool = True
    ) -> CommandResult:
        """See Transport.feed."""
        return self._result(tuple(argv), await self._do(tuple(argv), timeout_s=timeout_s, given=given), check=check)

    def _result(self, argv: tuple[str, ...], ended: Ended, *, check: bool) -> CommandResult:
        """Raises HostError if it is to be checked and failed."""
        result = CommandResult(
            argv, ended.exit_status, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
        )
        if check and result.exit_status:
            raise HostError(
                f"{argv[0]} failed with exit status {result.exit_status}",
                where=self.host,
                why=result.stderr[-2000:] or " ".join(argv),
            )
        return result

    async def place(self, folder: str, files: Sequence[UnitFile]) -> tuple[str, ...]:
        """See Transport.place. If one file cannot be written, none of them is changed."""
        if not files:
            return ()
        nonce = secrets.token_hex(6)
        argv = ("sh", "-c", ssh_scripts.PLACE, "sh", folder, nonce, str(len(files)))
        ended = await self._do(
            argv, timeout_s=FILE_LIMIT_S, given=[ssh_scripts.placing_stream(folder, files, nonce)], title="place files"
        )
        said = (ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))
        return ssh_scripts.read_placed(self.host, folder, files, said)

    async def read(self, path: str) -> str | None:
        """See Transport.read."""
        result = await self.run((*_ENGLISH, "cat", "--", path), timeout_s=FILE_LIMIT_S, check=False)
        if not result.exit_status:
            return result.stdout
        why = result.stderr.strip().rpartition(": ")[2]
        if why == "No such file or directory":
            return None
        raise HostError("cannot read a file", where=f"{self.host}: {path}", why=why)

    async def remove(self, path: str) -> None:
        """See Transport.remove."""
        result = await self.run((*_ENGLISH, "rm", "-rf", "--", path), timeout_s=FILE_LIMIT_S, check=False)
        if result.exit_status:
            raise HostError("cannot delete", where=f"{self.host}: {path}", why=result.stderr[-2000:])

    async def free_bytes(self, path: str) -> int:
        """See Transport.free_bytes."""
        argv = ("sh", "-c", ssh_scripts.FREE, "sh", path)
        blocks, size_bytes = (await self.run(argv, timeout_s=FILE_LIMIT_S)).stdout.split()
        return int(blocks) * int(size_bytes)

    async def carry(self, source: str, target: str) -> bool:
        """See Transport.carry. The host needs tar."""
        if not (await self.run(("test", "-e", target), timeout_s=FILE_LIMIT_S, check=False)).exit_status:
            return False
        argv = ("sh", "-c", _UNPACK, "sh", beside(target), target)
        ended = await self._do(
            argv, timeout_s=CARRY_LIMIT_S, given=archive_chunks(source, target), title="copy a folder"
        )
        if ended.exit_status:
            why = ended.stderr.decode(errors="replace")[-2000:]
            raise HostError(
                "cannot copy a folder",
                where=f"{self.host}: {target}",
                why=why,
                next_step="Nothing was left there. Make room, or mend what it says, and run the same command again.",
            )
        return True

    async def connect(self, address: str, port: int) -> tuple[Incoming, Outgoing]:
        """See Transport.connect: through the shared connection, so that the host need not open a port for it."""
        connection = await self._connection.get()
        import asyncssh

        try:
            return await connection.open_connection(address, port)  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
        except asyncssh.ChannelOpenError as error:
            raise ConnectionRefusedError(f"{self.host}: {address}:{port}: {error}") from error
        except (OSError, asyncssh.Error) as error:
            raise ssh_errors.lost(self._connection.target, f"a connection to {address}:{port}", str(error)) from error

    async def _do(
        self, argv: tuple[str, ...], *, timeout_s: float, given: Iterable[bytes] = (), title: str = ""
    ) -> Ended:
        """Run a command to its end, in its turn; `title` stands for the command in messages. Raises HostError.

        `given` is its standard input, taken piece by piece as the host takes it; what a command that ends early did
        not want is dropped.
        """
        self._follow_loop()
        async with self._turns:
            before = self.round_trips
            process, mark, exchanges = await self._start(argv, timeout_s)
            stdout, stderr = bytearray(), bytearray()
            try:
                async with asyncio.timeout(timeout_s):
                    await asyncio.gather(
                        _give(process.stdin, given),
                        _gather(process.stdout, stdout),
                        _gather(process.stderr, stderr),
                    )
                    await process.wait_closed()
            except TimeoutError as error:
                await self._kill(mark, bytes(stdout), process)
                raise HostError(
                    f"{title or argv[0]} did not end",
                    where=self.host,
                    why=f"no end within {timeout_s:g} s: {title or ' '.join(argv)}",
                ) from error
            except (OSError, _ssh_error()) as error:
                raise ssh_errors.lost(self._connection.target, title or argv[0], str(error)) from error
            except asyncio.CancelledError:
                await asyncio.shield(self._kill(mark, bytes(stdout), process))
                raise
            self.round_trips = max(self.round_trips, before + exchanges + (given != ()))
        return self._ended(argv, title, process.returncode, (mark, bytes(stdout), bytes(stderr)))

    def _ended(
        self, argv: tuple[str, ...], title: str, exit_status: int | None, said: tuple[str, bytes, bytes]
    ) -> Ended:
        mark, stdout, stderr = said
        if exit_status is None:
            raise ssh_errors.lost(self._connection.target, title or argv[0])
        answer = ssh_scripts.read_launch(mark, stdout)
        if answer is None:
            raise HostError(
                "the host does not run commands",
                where=self.host,
                why=(stderr or stdout).decode(errors="replace")[-2000:] or f"exit status {exit_status}, and no word",
                next_step="The user's login shell there must be able to run `sh -c`.",
            )
        if answer.problem:
            raise HostError(f"cannot run {argv[0]}", where=self.host, why=answer.problem)
        return Ended(exit_status, ssh_scripts.after_launch(mark, stdout), ssh_scripts.after_launch(mark, stderr))

    async def _start(
        self, argv: tuple[str, ...], timeout_s: float
    ) -> tuple[asyncssh.SSHClientProcess[bytes], str, int]:
        """A started command, the mark in its output, and how many exchanges that took. Raises HostError."""
        mark = f"redisforge-{secrets.token_hex(8)}"
        line = ssh_scripts.launch_line(mark, math.ceil(timeout_s) + _REMOTE_SLACK_S, argv)
        limit_s = self._connection.limits.connect_s
        deadline = time.monotonic() + limit_s
        was_lost, refused = False, 0
        while True:
            opened = self._connection.opened_count
            connection = await self._connection.get()
            import asyncssh  # here the connection has imported it already, without keeping anybody waiting

            exchanges = 2 + refused + CONNECT_ROUND_TRIPS * (self._connection.opened_count - opened)
            try:
                async with asyncio.timeout(limit_s):
                    process = await connection.create_process(line, encoding=None)
            except asyncssh.ChannelOpenError as error:
                # Nothing has run yet. Either the connection had been lost before the command was sent, or sshd allows
                # no more sessions: it counts commands that have just ended, too, until it has cleared them away.
                if connection.is_closed() and not was_lost:
                    was_lost = True
                    continue
                if not connection.is_closed() and error.code in _NO_ROOM and time.monotonic() < deadline:
                    refused += 1
                    await asyncio.sleep(_ROOM_PAUSE_S)
                    continue
                raise ssh_errors.lost(self._connection.target, f"the start of {argv[0]}", str(error)) from error
            except TimeoutError as error:
                connection.abort()  # it is dead; keepalives would find out later
                raise ssh_errors.no_answer(self._connection.target, limit_s) from error
            except (OSError, asyncssh.Error) as error:
                raise ssh_errors.lost(self._connection.target, f"the start of {argv[0]}", str(error)) from error
            return process, mark, exchanges

    async def _kill(self, mark: str, stdout: bytes, process: asyncssh.SSHClientProcess[bytes]) -> None:
        """End a command and its children over a second channel; a host that cannot be reached does it by itself."""
        heard = bytearray(stdout)
        try:
            async with self._kill_turns, asyncio.timeout(_KILL_LIMIT_S):
                # It may run and not have been heard of yet: the end of its input alone would be a good end for it.
                while (answer := ssh_scripts.read_launch(mark, bytes(heard))) is None:
                    if not (piece := await process.stdout.read(65536)):
                        break
                    heard += piece
                if answer is not None:
                    argv = ("sh", "-c", ssh_scripts.KILL, "sh", str(answer.group))
                    killer, _, _ = await self._start(argv, _KILL_LIMIT_S)
                    killer.stdin.write_eof()
                    await killer.wait(check=False)
        except (HostError, OSError, TimeoutError, _ssh_error()):
            pass  # `timeout` on the host does it (LAUNCH)
        finally:
            process.close()

    def _follow_loop(self) -> None:
        """Semaphores belong to a loop; a new asyncio.run gets new ones."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._turns = asyncio.Semaphore(self._connection.limits.commands)
            self._kill_turns = asyncio.Semaphore(2)


def _ssh_error() -> type[Exception]:
    import asyncssh

    return asyncssh.Error


async def _give(stream: asyncssh.SSHWriter[bytes], given: Iterable[bytes]) -> None:
    """Write the pieces, the next one when there is room for it; then the end."""
    pieces = iter(given)
    with contextlib.suppress(BrokenPipeError):
        while given and (piece := await asyncio.to_thread(next, pieces, b"")):
            stream.write(piece)
            await stream.drain()
        stream.write_eof()


async def _gather(stream: asyncssh.SSHReader[bytes], into: bytearray) -> None:
    """Keep what comes, also when the waiting for its end is cut off."""
    while piece := await stream.read(65536):
        into += piece
