"""The smoke test where keys are refused: by an Envoy that knows no slots yet, and by a node of a cluster.

An Envoy 1.40 that is sent a MULTI before it knows a node for the key crashes, so what was sent is counted here.
"""

from __future__ import annotations

import asyncio

import pytest
from fake_endpoint import FakeEndpoint

from redisforge.model.report import CheckResult
from redisforge.runbooks.smoke import Doors

FOR_EVERYBODY = {
    "PING": b"+PONG\r\n",
    "CLUSTER": b"$42\r\ncluster_state:ok\r\ncluster_slots_ok:16384\r\n\r\n",
    "INFO": b"$21\r\nredis_version:8.6.3\r\n\r\n",
}
A_NODE = b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$4\r\nmode\r\n$7\r\ncluster\r\n"
A_PROXY = A_NODE.replace(b"$7\r\ncluster", b"$10\r\nstandalone")
KEYED = ("SET/GET", "MSET over many slots", "pipeline", "transaction on one hash tag")


class Refusing(FakeEndpoint):
    """Answers what needs no key, and `refusal` to all else; `hello` says what it is."""

    def __init__(self, hello: bytes, refusal: bytes) -> None:
        super().__init__()
        self._answers = FOR_EVERYBODY | {"HELLO": hello}
        self._refusal = b"-" + refusal + b"\r\n"
        self.served: list[str] = []

    def answer(self, words: list[str], writer: asyncio.StreamWriter) -> bytes:
        del writer
        self.served.append(words[0])
        return self._answers.get(words[0], self._refusal)


async def checks_at(server: Refusing, *, may_be_node: bool = True) -> dict[str, CheckResult]:
    return await server.checks(lambda door: Doors(primary=door, may_be_node=may_be_node))


@pytest.mark.parametrize("may_be_node", [True, False])
async def test_an_envoy_that_knows_no_slots_is_sent_no_transaction(may_be_node: bool) -> None:
    envoy = Refusing(A_PROXY, b"no upstream host")
    checks = await checks_at(envoy, may_be_node=may_be_node)
    assert "MULTI" not in envoy.served
    transaction = checks["transaction on one hash tag"]
    assert transaction.skipped
    assert transaction.detail.startswith("no upstream host: Envoy knows no node for the key")
    assert not checks["SET/GET"].passed
    assert "Envoy knows no node" in checks["SET/GET"].likely_cause


async def test_a_node_is_not_asked_for_what_a_proxy_does() -> None:
    node = Refusing(A_NODE, b"MOVED 3999 127.0.0.1:7003")
    checks = await checks_at(node)
    assert all(checks[name].skipped and "this is a node, not a proxy" in checks[name].detail for name in KEYED)
    assert all(check.passed for check in checks.values()), checks
    assert not {"SET", "MSET", "INCR", "MULTI", "DEL"} & set(node.served)
    assert checks["clean-up"].detail == "nothing was written"


async def test_keys_that_were_refused_are_not_looked_for_afterwards() -> None:
    server = Refusing(b"-ERR unknown command\r\n", b"NOPERM this user has no permissions")
    checks = await checks_at(server)
    assert not any(checks[name].passed for name in KEYED)
    assert (checks["clean-up"].passed, checks["clean-up"].detail) == (True, "nothing was written")
    assert "DEL" not in server.served


async def test_keys_that_may_be_there_are() -> None:
    server = Refusing(A_PROXY, b"upstream failure")
    checks = await checks_at(server)
    assert not checks["clean-up"].passed
    assert checks["clean-up"].detail == "116 keys that may have been written could not be deleted: upstream failure"
