"""A verb whose lock another operator asks for is told so, once, before it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from redisforge.fleet.host_lock import HostLock, LockPlace
from redisforge.fleet.lock import LockHolder

HOLDER = LockHolder(pid=1, verb="restart", user="ann", host="here", since="2026-05-01T10:00:00+00:00")


class Host:
    """A host whose lock is free, and where another operator asks for it at once. It stands for connection, process and
    streams."""

    def __init__(self) -> None:
        self.target = SimpleNamespace(where="somewhere")
        self.limits = SimpleNamespace(connect_s=30.0)
        self.jump = None
        self.stdin = self
        self.stdout = self
        self._lines = [b"redisforge-lock mine\n", b"redisforge-lock asked\n"]

    async def get(self) -> Host:
        return self

    async def create_process(self, _: str, **__: object) -> Host:
        return self

    async def readline(self) -> bytes:
        if not self._lines:
            await asyncio.Event().wait()
        return self._lines.pop(0)

    def write(self, _: bytes) -> None:
        return

    def write_eof(self) -> None:
        return

    async def wait_closed(self) -> None:
        return

    async def close(self) -> None:
        return


def test_who_asks_is_told_before_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    stopped = threading.Event()

    def kill(_: int, number: int) -> None:
        told.append(number)
        stopped.set()

    monkeypatch.setattr("redisforge.fleet.host_lock.os.kill", kill)
    hosts: list[Any] = [Host(), Host(), Host()]
    lock = HostLock([LockPlace(f"h{n}", host, "/lock", "/record") for n, host in enumerate(hosts)], HOLDER)
    lock.take(told.append)
    try:
        assert stopped.wait(30)
    finally:
        lock.release()
    assert told == ["another operator asks this command to stop (`redisforge lock release`)", signal.SIGTERM]
