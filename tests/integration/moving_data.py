"""Data of every kind over all slots, what it must read like afterwards, and writers while slots move."""

from __future__ import annotations

import asyncio
import binascii
import itertools
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import redis
from moving_stack import Masters

from redisforge.model.slots import SLOT_COUNT, key_slot
from redisforge.redis.connection import Connection

Command = tuple[str | int, ...]

_KINDS: tuple[tuple[str, tuple[Command, ...], Command], ...] = (
    ("string", (("SET", "K", "value-of-K"),), ("GET", "K")),
    ("hash", (("HSET", "K", "a", "K", "b", "2"),), ("HGETALL", "K")),
    ("list", (("RPUSH", "K", "1", "K", "3"),), ("LRANGE", "K", 0, -1)),
    ("zset", (("ZADD", "K", 1, "one", 2, "K"),), ("ZRANGE", "K", 0, -1, "WITHSCORES")),
    ("set", (("SADD", "K", "K"),), ("SMEMBERS", "K")),
    ("stream", (("XADD", "K", "5-1", "field", "K"),), ("XRANGE", "K", "-", "+")),
    ("binary", (("SET", "K\udc80\udcff", "bytes"),), ("GET", "K\udc80\udcff")),
)
READY_S = 20.0
_EXPIRES_MS = 4_102_444_800_000
"""A moment in 2100."""
_TOLERANCE_MS = 10_000
"""MIGRATE sends the time that is left, so that a key lives longer by the time that it was on its way."""


def _fill(words: Command, key: str) -> tuple[bytes, ...]:
    return tuple(str(word).replace("K", key).encode("utf-8", "surrogateescape") for word in words)


def _with_key(command: Command, key: str) -> tuple[bytes, ...]:
    """The verb as it is, the rest with the key put in."""
    return (str(command[0]).encode(), *_fill(command[1:], key))


_runs = itertools.count()


async def write_data(masters: Masters, count: int) -> dict[str, tuple[Any, int]]:
    """Write `count` new keys, each kind in turn, every third with an expiry; returns what read_data must say."""
    run = next(_runs)
    keys = {f"data-{run}:{number}": _KINDS[number % len(_KINDS)] for number in range(count)}
    commands: dict[str, list[tuple[bytes, ...]]] = {}
    for number, (key, (kind, writes, _)) in enumerate(keys.items()):
        commands[key] = [_with_key(command, key) for command in writes]
        if number % 3 == 0:
            name = _fill(("K\udc80\udcff" if kind == "binary" else "K",), key)[0]
            commands[key].append((b"PEXPIREAT", name, str(_EXPIRES_MS).encode()))
    await _on_owners(masters, commands)
    return await read_data(masters, keys)


async def read_data(masters: Masters, keys: Iterable[str]) -> dict[str, tuple[Any, int]]:
    """(value, time of expiry in units of ten seconds, or 0 for none) of each key of write_data."""
    reads: dict[str, list[tuple[bytes, ...]]] = {}
    for key in keys:
        kind, _, read = _KINDS[int(key.rpartition(":")[2]) % len(_KINDS)]
        name = _fill(("K\udc80\udcff" if kind == "binary" else "K",), key)[0]
        reads[key] = [_with_key(read, key), (b"PEXPIRETIME", name)]
    answers = await _on_owners(masters, reads)
    return {key: (value, round(expires_ms / _TOLERANCE_MS)) for key, (value, expires_ms) in answers.items()}


async def _on_owners(masters: Masters, commands: Mapping[str, list[tuple[bytes, ...]]]) -> dict[str, list[Any]]:
    """Send the commands of each key to the owner of its slot, as it is now."""
    owners = {
        slot: node.name
        for node in (await masters.facts()).values()
        for current in node.slots
        for slot in range(current.first, current.last + 1)
    }
    by_node: dict[str, list[str]] = {}
    for key in commands:
        slot = key_slot(key) if not _is_binary(key) else _binary_slot(key)
        by_node.setdefault(owners[slot], []).append(key)
    answers: dict[str, list[Any]] = {}

    async def ask(name: str, keys: list[str]) -> None:
        node = masters.node(name)
        async with await Connection.open((node.address, node.port), masters.login, timeout_s=30.0) as connection:
            replies = iter(await connection.pipeline([command for key in keys for command in commands[key]]))
            for key in keys:
                answers[key] = [next(replies) for _ in commands[key]]

    await asyncio.gather(*(ask(name, keys) for name, keys in by_node.items()))
    failed = [reply for replies in answers.values() for reply in replies if isinstance(reply, Exception)]
    assert not failed, failed[:3]
    return answers


def _is_binary(key: str) -> bool:
    return _KINDS[int(key.rpartition(":")[2]) % len(_KINDS)][0] == "binary"


def _binary_slot(key: str) -> int:
    return binascii.crc_hqx(f"{key}\udc80\udcff".encode("utf-8", "surrogateescape"), 0) % SLOT_COUNT


class Writers:
    """What writers were told is written, and what they were told went wrong."""

    def __init__(self) -> None:
        self.written: dict[str, str] = {}
        self.errors: list[str] = []


@contextmanager
def writing(masters: Masters, threads: int = 3) -> Generator[Writers]:
    """Let clients write new keys, and increase counters, until the end of the block. It begins when all have begun."""
    writers, stop = Writers(), threading.Event()
    begun = threading.Barrier(threads + 1, timeout=READY_S)

    def write(number: int) -> None:
        client: Any = masters.client()
        client.set(f"begun:{number}", "")
        begun.wait()
        count = 0
        while not stop.is_set():
            key, counter = f"load:{number}:{count}", f"counter:{number}:{count % 97}"
            try:
                client.set(key, key)
                writers.written[key] = key
                writers.written[counter] = str(client.incr(counter))
            except redis.RedisError as error:
                writers.errors.append(f"{type(error).__name__}: {error}")
            except AttributeError as error:
                # redis-py does not know a node that owns no slot yet. Sent there by ASK it fails before it sends
                # anything, which is no answer of the cluster's.
                if "redis_connection" not in str(error):
                    raise
            count += 1
            time.sleep(0.001)
        client.close()

    running = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        begun.wait()
        yield writers
    finally:
        stop.set()
        for thread in running:
            thread.join()


def assert_written(masters: Masters, writers: Writers) -> None:
    """Every acknowledged write is there."""
    client: Any = masters.client()
    lost = {key: value for key, value in writers.written.items() if client.get(key) != value}
    client.close()
    assert writers.written
    assert not lost, f"{len(lost)} of {len(writers.written)} lost: {sorted(lost)[:5]}"
