"""An endpoint for the smoke test that answers as a test has it: what a real one does not do on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from redisforge.model.report import CheckResult
from redisforge.redis.connection import Login
from redisforge.runbooks.smoke import Door, Doors, SmokeTest

MakeDoors = Callable[[Door], Doors]


class FakeEndpoint:
    """Reads commands; `answer` says what is written back."""

    def __init__(self) -> None:
        self._connections: list[asyncio.Task[None] | None] = []

    def answer(self, words: list[str], writer: asyncio.StreamWriter) -> bytes:
        """The reply to one command."""
        raise NotImplementedError

    async def checks(self, doors: MakeDoors) -> dict[str, CheckResult]:
        """What the smoke test finds here, by the name of the check."""
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        address, port = listener.sockets[0].getsockname()
        report = await SmokeTest(doors(Door("any", address, port, Login())), "1").run("fake")
        listener.close()
        await listener.wait_closed()
        await asyncio.gather(*(task for task in self._connections if task))
        return {check.name: check for check in report.checks}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        self._connections.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            while header := await reader.readline():
                words: list[str] = []
                for _ in range(int(header[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2].decode())
                writer.write(self.answer(words, writer))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
