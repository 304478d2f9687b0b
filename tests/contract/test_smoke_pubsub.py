"""The smoke test's message: published again when the cluster bus has lost it, and missed when it never comes.

A bus does not lose a message on demand, so the endpoint is a small server that counts what is published.
"""

from __future__ import annotations

import asyncio

import pytest
from fake_endpoint import FakeEndpoint

from redisforge.model.report import CheckResult
from redisforge.runbooks import smoke
from redisforge.runbooks.smoke import Doors


def bulks(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)


class LosingEndpoint(FakeEndpoint):
    """Answers commands with nothing of interest, and hands on every published message but the first `lost`."""

    def __init__(self, lost: int) -> None:
        super().__init__()
        self.lost, self.published = lost, 0
        self._listeners: list[asyncio.StreamWriter] = []

    def answer(self, words: list[str], writer: asyncio.StreamWriter) -> bytes:
        if words[0] == "SUBSCRIBE":
            self._listeners.append(writer)
            return b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n" % (len(words[1]), words[1].encode())
        if words[0] != "PUBLISH":
            return b":1\r\n" if words[0] == "DEL" else b"+OK\r\n"
        self.published += 1
        for listener in self._listeners if self.published > self.lost else []:
            listener.write(bulks("message", *words[1:]))
        return b":0\r\n"


async def pubsub_check(endpoint: LosingEndpoint) -> CheckResult:
    return (await endpoint.checks(lambda door: Doors(primary=door, pubsub=door)))["pub/sub"]


@pytest.mark.parametrize("lost", [0, 2])
async def test_a_message_that_was_lost_is_published_again(lost: int) -> None:
    endpoint = LosingEndpoint(lost)
    check = await pubsub_check(endpoint)
    assert check.passed, check
    assert endpoint.published > lost


async def test_a_message_that_never_comes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "_TIMEOUT_S", 0.6)
    check = await pubsub_check(LosingEndpoint(10**6))
    assert not check.passed
    assert "no answer within 0.6 s" in check.detail
