"""Which ports of other hosts can be reached from here: a program of the standard library alone, run as `python3 -I -c`.

Its argument is JSON: `listen` [[address, port]…], `expected` (how many hosts will try each of them), `window_s`, and
`targets` [[host, address, [port…]]…]. It listens where nothing listens yet, so that the others have something to
reach, tries all targets until they answer or the window is nearly over, and prints lines with tabs between:

    began SECONDS                                its clock, first line
    deaf ADDRESS PORT WHY                        it could not listen there
    reach HOST ADDRESS PORT RTT PROBLEM          RTT in seconds, empty with a problem
    ended SECONDS                                last line

Nothing is sent over these connections. A refused connection is tried again: the other host may have begun later.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sys
import time
from typing import Any

ATTEMPT_S = 2.0
PAUSE_S = 0.2
GRACE_S = 0.3
"""Between the last connection that was expected and the end: one that broke off may be tried once more."""
AT_ONCE = 200


def say(*words: object) -> None:
    """One line of the answer."""
    sys.stdout.write("\t".join(" ".join(str(word).split()) for word in words) + "\n")


class Listeners:
    """The sockets that stand in for what will listen there, until everybody has been there or the time is over."""

    def __init__(self, expected: int) -> None:
        self._left: dict[int, int] = {}
        self._expected = expected
        self._servers: list[Any] = []
        self._done = asyncio.Event()

    async def open(self, address: str, port: int) -> None:
        """Listen, or say why not."""
        number = len(self._servers)

        async def greet(reader: Any, writer: Any) -> None:
            del reader
            writer.close()
            self._left[number] -= 1
            if all(left <= 0 for left in self._left.values()):
                self._done.set()

        try:
            server = await _listen(greet, address, port)
        except OSError as error:
            say("deaf", address, port, error.strerror or error)
            return
        self._left[number] = self._expected
        self._servers.append(server)

    async def serve(self, limit_s: float) -> None:
        """Until the last one came, at most `limit_s`."""
        if not self._servers:
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._done.wait(), limit_s)
            await asyncio.sleep(GRACE_S)
        for server in self._servers:
            server.close()


async def _listen(greet: Any, address: str, port: int) -> Any:
    try:
        return await asyncio.start_server(greet, address, port)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return await asyncio.start_server(greet, None, port)  # the address is translated on the way: take any


async def connect(address: str, port: int, deadline: float) -> tuple[float, str]:
    """How long a connection took, and why there is none after the last attempt."""
    while True:
        began = time.monotonic()
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), ATTEMPT_S)
        except asyncio.TimeoutError:  # noqa: UP041 - before Python 3.11 this is another class
            problem = f"no answer within {ATTEMPT_S:g} s"
        except OSError as error:
            # asyncio makes texts of its own out of what connect(2) said
            problem = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        else:
            took = time.monotonic() - began
            writer.close()
            return took, ""
        if time.monotonic() + PAUSE_S >= deadline:
            return 0.0, problem
        await asyncio.sleep(PAUSE_S)


async def main(asked: dict[str, Any]) -> None:
    """Listen and try, at the same time."""
    began = time.monotonic()
    say("began", f"{time.time():.6f}")
    listeners = Listeners(asked["expected"])
    for address, port in asked["listen"]:
        await listeners.open(address, port)
    turns = asyncio.Semaphore(AT_ONCE)
    deadline = began + asked["window_s"] - ATTEMPT_S

    async def attempt(host: str, address: str, port: int) -> None:
        async with turns:
            took, problem = await connect(address, port, deadline)
        say("reach", host, address, port, "" if problem else f"{took:.6f}", problem)

    wanted = [(host, address, port) for host, address, ports in asked["targets"] for port in ports]
    left_s = began + asked["window_s"] - time.monotonic()
    await asyncio.gather(listeners.serve(left_s), *(attempt(*one) for one in wanted))
    say("ended", f"{time.time():.6f}")


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
