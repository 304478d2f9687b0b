"""`test-cluster`: use every endpoint as a client would, and say what fails and why it probably does.

The checks use keys under a random prefix and delete them whatever happens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import cast

import hiredis
import msgspec

from redisforge.errors import RedisForgeError
from redisforge.model.report import CheckResult, SmokeReport
from redisforge.redis.connection import Connection, Login, Reply
from redisforge.redis.parse import parse_info

_MSET_KEYS = 64
_PIPELINE_KEYS = 50
_TIMEOUT_S = 5.0
_REPLICA_PATIENCE_S = 3.0
_PUBLISH_AGAIN_S = 0.25


class Door(msgspec.Struct, frozen=True):
    """An endpoint to test: where it is, who logs in, and in which protocol (2 or 3). `may_read` is False for a user
    that reaches no key."""

    name: str
    address: str
    port: int
    login: Login
    protocol: int = 2
    may_read: bool = True

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


class Doors(msgspec.Struct, frozen=True):
    """The endpoints of one test. `others` are further command endpoints (RESP3, own ones). `may_be_node`: nothing is
    known of the primary but its address."""

    primary: Door
    reader: Door | None = None
    pubsub: Door | None = None
    others: tuple[Door, ...] = ()
    may_be_node: bool = False


_A_NODE = "this is a node, not a proxy: keys of other slots live elsewhere; test the endpoint of Envoy"
_NO_ROUTE = "no upstream host"
_UNSURE = ("upstream failure", "finished with")
"""What Envoy says where a node may have done what was asked all the same, or a part of it."""


class _SkippedError(Exception):
    """The check does not apply to what is tested."""


class _MismatchError(Exception):
    """An answer was not the expected one."""


class SmokeTest:
    """One run of the checks. `run_id` makes its keys unique."""

    def __init__(self, doors: Doors, run_id: str) -> None:
        self._doors = doors
        self._prefix = f"redisforge:test:{run_id}:"
        self._keys: set[str] = set()
        """Those that may have been written."""

    async def run(self, target: str) -> SmokeReport:
        """Run all checks at the same time, each over connections of its own; one that fails stops no other."""
        began = time.monotonic()
        is_node = self._doors.may_be_node and await _is_node(self._doors.primary)
        checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("PING", self._ping),
            ("SET/GET", _skip_node if is_node else self._set_get),
            ("MSET over many slots", _skip_node if is_node else self._mset),
            ("pipeline", _skip_node if is_node else self._pipeline),
            ("transaction on one hash tag", _skip_node if is_node else self._transaction),
            ("pub/sub", self._pubsub),
            ("reader endpoint", self._reader),
            *((f"endpoint {door.name}", self._other(door)) for door in self._doors.others),
            ("CLUSTER INFO", self._cluster_info),
            ("server version", self._version),
        ]
        results = list(await asyncio.gather(*(_checked(name, check) for name, check in checks)))
        results.append(await _checked("clean-up", self._clean_up))
        passed = all(result.passed for result in results)
        seconds = round(time.monotonic() - began, 3)
        return SmokeReport(target=target, passed=passed, seconds=seconds, checks=tuple(results))

    def _key(self, name: str) -> str:
        return self._prefix + name

    async def _write(self, connection: Connection, *commands: tuple[str, ...]) -> list[Reply]:
        """Send commands that write the key behind their name, and remember the keys that there may be now."""
        keys = [command[1] for command in commands]
        self._keys.update(keys)
        replies = await connection.pipeline(commands)
        self._keys.difference_update(key for key, reply in zip(keys, replies, strict=True) if _is_refusal(reply))
        return replies

    async def _ping(self) -> str:
        async with await _open(self._doors.primary) as connection:
            _expect("PONG", await connection.call("PING"))
        return str(self._doors.primary)

    async def _set_get(self) -> str:
        key = self._key("one")
        async with await _open(self._doors.primary) as connection:
            _expect("OK", *await self._write(connection, ("SET", key, "value", "EX", "600")))
            _expect("value", await connection.call("GET", key))
        return ""

    async def _mset(self) -> str:
        pairs = [(self._key(f"m{number}"), f"v{number}") for number in range(_MSET_KEYS)]
        async with await _open(self._doors.primary) as connection:
            self._keys.update(key for key, _ in pairs)
            reply = (await connection.pipeline([("MSET", *(word for pair in pairs for word in pair))]))[0]
            if _is_refusal(reply):
                self._keys.difference_update(key for key, _ in pairs)
            _expect("OK", reply)
            _expect([value for _, value in pairs], await connection.call("MGET", *(key for key, _ in pairs)))
        return f"{_MSET_KEYS} keys"

    async def _pipeline(self) -> str:
        keys = [self._key(f"p{number}") for number in range(_PIPELINE_KEYS)]
        async with await _open(self._doors.primary) as connection:
            replies = await self._write(connection, *(("INCR", key) for key in keys))
        _expect([1] * len(keys), replies)
        return f"{_PIPELINE_KEYS} commands"

    async def _transaction(self) -> str:
        first, second = self._key("{tx}a"), self._key("{tx}b")
        async with await _open(self._doors.primary) as connection:
            plain = (await self._write(connection, ("SET", first, "0", "EX", "600")))[0]
            if isinstance(plain, hiredis.ReplyError) and _NO_ROUTE in str(plain):
                raise _SkippedError(f"{plain}: Envoy knows no node for the key, and Envoy 1.40 crashes on a MULTI then")
            _expect("OK", plain)
            self._keys.add(second)
            replies = await connection.pipeline(
                [("MULTI",), ("SET", first, "1"), ("INCR", first), ("SET", second, "x"), ("EXEC",)]
            )
        _expect(["OK", 2, "OK"], replies[-1])
        return ""

    async def _pubsub(self) -> str:
        if self._doors.pubsub is None:
            raise _SkippedError("no pub/sub endpoint is known; give its topology or use the cluster's name")
        channel = f"{self._prefix}channel"
        async with await _open(self._doors.pubsub) as listener, await _open(self._doors.primary) as sender:
            _expect(["subscribe", channel, 1], await listener.call("SUBSCRIBE", channel))
            # The cluster bus sends a message once: one published while a link between two nodes is made anew, as
            # just after formation, is lost. So it is published until it arrives, as long as a message is waited for.
            arrival = asyncio.ensure_future(listener.next_message())
            try:
                while not arrival.done():
                    await sender.call("PUBLISH", channel, "hello")
                    await asyncio.wait((arrival,), timeout=_PUBLISH_AGAIN_S)
                _expect(["message", channel, "hello"], await arrival)
            finally:
                arrival.cancel()
        return f"received through {self._doors.pubsub}"

    async def _reader(self) -> str:
        if self._doors.reader is None:
            raise _SkippedError("no reader endpoint is known; give its topology or use the cluster's name")
        key = self._key("read")
        async with await _open(self._doors.primary) as writer, await _open(self._doors.reader) as reader:
            _expect("OK", *await self._write(writer, ("SET", key, "seen", "EX", "600")))
            deadline = time.monotonic() + _REPLICA_PATIENCE_S
            while (value := await reader.call("GET", key)) != "seen" and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # replication is asynchronous: the copy may be a moment behind
            _expect("seen", value)
            refused = (await reader.pipeline([("SET", key, "overwritten")]))[0]
            if not isinstance(refused, hiredis.ReplyError):
                raise _MismatchError("a write through the reader endpoint was accepted")
        return "reads, and refuses writes"

    def _other(self, door: Door) -> Callable[[], Awaitable[str]]:
        async def check() -> str:
            async with await _open(door) as connection:
                _expect("PONG", await connection.call("PING"))
                reply = (await connection.pipeline([("GET", self._key(f"other-{door.name}"))]))[0]
            if not isinstance(reply, hiredis.ReplyError):
                return f"{door} RESP{door.protocol}"
            if not door.may_read and str(reply).startswith("NOPERM"):
                return f"{door} RESP{door.protocol}, where {door.login.user} may not read keys"
            raise _MismatchError(str(reply))

        return check

    async def _cluster_info(self) -> str:
        async with await _open(self._doors.primary) as connection:
            info = parse_info(str(await connection.call("CLUSTER", "INFO")))
        state, slots = info.get("cluster_state"), info.get("cluster_slots_ok")
        if (state, slots) != ("ok", "16384"):
            raise _MismatchError(f"cluster_state:{state}, {slots} of 16384 slots ok")
        return "16384 slots ok"

    async def _version(self) -> str:
        async with await _open(self._doors.primary) as connection:
            info = parse_info(str(await connection.call("INFO", "server")))
        name = "valkey" if "valkey_version" in info else "redis"
        version = info.get("valkey_version") or info.get("redis_version")
        if not version:
            raise _MismatchError("INFO server names no version")
        return f"{name} {version}"

    async def _clean_up(self) -> str:
        if not self._keys:
            return "nothing was written"
        async with await _open(self._doors.primary) as connection:
            replies = await connection.pipeline([("DEL", key) for key in sorted(self._keys)])
        failed = [str(reply) for reply in replies if isinstance(reply, hiredis.ReplyError)]
        if failed:
            raise _MismatchError(f"{len(failed)} keys that may have been written could not be deleted: {failed[0]}")
        return f"{sum(int(reply) for reply in replies)} keys deleted"


async def _open(door: Door) -> Connection:
    return await Connection.open((door.address, door.port), door.login, timeout_s=_TIMEOUT_S, protocol=door.protocol)


async def _is_node(door: Door) -> bool:
    """Whether a node of a cluster answers there: HELLO is what Envoy answers itself, and says `standalone`."""
    try:
        async with await _open(door) as connection:
            reply = await connection.call("HELLO")
    except RedisForgeError:
        return False  # the checks say what is wrong
    if not isinstance(reply, list):
        return False
    words = cast("list[Reply]", reply)
    return ("mode", "cluster") in zip(words[::2], words[1::2], strict=False)


async def _skip_node() -> str:
    raise _SkippedError(_A_NODE)


def _is_refusal(reply: Reply) -> bool:
    """Whether nothing can have been done."""
    return isinstance(reply, hiredis.ReplyError) and not any(sign in str(reply) for sign in _UNSURE)


def _expect(wanted: Reply, found: Reply) -> None:
    if isinstance(found, hiredis.ReplyError):
        raise _MismatchError(str(found))
    if wanted != found:
        raise _MismatchError(f"expected {str(wanted)[:120]}, got {str(found)[:200]}")


async def _checked(name: str, check: Callable[[], Awaitable[str]]) -> CheckResult:
    began = time.monotonic()
    try:
        detail, passed, skipped, cause = await check(), True, False, ""
    except _SkippedError as reason:
        detail, passed, skipped, cause = str(reason), True, True, ""
    except (_MismatchError, RedisForgeError) as error:
        why = getattr(error, "why", "") or str(error)
        where = getattr(error, "where", "")
        detail = f"{where}: {why}" if where else why
        passed, skipped, cause = False, False, likely_cause(why)
    seconds = round(time.monotonic() - began, 4)
    return CheckResult(name=name, passed=passed, seconds=seconds, detail=detail, likely_cause=cause, skipped=skipped)


_CAUSES = (
    ("refused: nothing listens", "the endpoint does not run, or the port is another one: redisforge status"),
    ("WRONGPASS", "wrong user or password for this endpoint"),
    ("NOAUTH", "this endpoint wants a user and password: set REDIS_ACL_USER and REDIS_ACL_PASS"),
    (
        "NOPERM",
        "the ACL user may not do this: another user belongs to this endpoint, or users.acl was changed",
    ),
    ("certificate is not accepted", "the CA file is not the one that signed the endpoint's certificate"),
    ("no TLS connection", "one side speaks TLS and the other does not, or a proxy is in between"),
    ('"\\x15" as reply type', "this port speaks TLS (it answered with a TLS alert): give its CA with --ca-file"),
    (_NO_ROUTE, "Envoy knows no node for the slot: the cluster is down, or its view is stale"),
    ("upstream failure", "the node that owns the slot does not answer: redisforge status names it"),
    ("CLUSTERDOWN", "some slots have no living master: redisforge status names them"),
    ("MOVED", _A_NODE),
    ("CROSSSLOT", "this is a node, not a proxy: it does not split commands over slots"),
    ("no answer within", "the process hangs, the host is overloaded, or a firewall drops the packets"),
    ("cluster_state:fail", "a majority of masters or some slots are missing: redisforge status"),
    ("closed the connection", "the other side ended the connection: its log says why (redisforge logs)"),
)


def likely_cause(why: str) -> str:
    """The probable reason behind an error message, with what to look at; empty if unknown."""
    return next((cause for sign, cause in _CAUSES if sign in why), "")
