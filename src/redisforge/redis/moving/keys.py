"""Keys on their way, by the classic protocol: list them, measure them, MIGRATE them.

MIGRATE host port "" 0 timeout [REPLACE] AUTH2 user password KEYS key … makes the *source* connect to the target, over
TLS when it replicates over TLS, and send the keys as RESTORE-ASKING; it deletes those that were accepted. Both nodes do
nothing else meanwhile, so keys are sent in groups of bounded size. A key is on the source until the target has
accepted it: an interrupted MIGRATE may leave a key on both, never on neither. Source: redis.io "MIGRATE".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import hiredis
import msgspec

from redisforge.errors import NodeError
from redisforge.model.facts import NodeFacts
from redisforge.redis.connection import Reply, ReplyError
from redisforge.redis.moving.ends import Ends

Command = tuple[str | int | bytes, ...]

ALL_KEYS = 2**31 - 1
_LIST_AT_ONCE = 1000
_GROUP_BYTES = 1024 * 1024
_GROUP_KEYS = 100
"""Of one MIGRATE: it blocks both nodes for about a millisecond."""
_VOLLEY = 8
"""MIGRATEs under way at a time: the source need not wait for the next one, and others get their turn in between."""
_MIGRATE_TIMEOUT_MS = 5000
"""For each read or write between the two nodes, while the source is blocked."""


class Key(msgspec.Struct, frozen=True):
    """A key and the memory that it takes."""

    name: bytes
    size_bytes: int


async def list_keys(ends: Ends, node: NodeFacts, slots: Sequence[int], *, limit: int) -> dict[int, tuple[Key, ...]]:
    """At most `limit` keys of each slot with their sizes. A key that is gone meanwhile is left out."""
    replies = await ends.pipeline(node, [("CLUSTER", "GETKEYSINSLOT", slot, limit) for slot in slots])
    names = [(slot, as_bytes(name)) for slot, found in zip(slots, replies, strict=True) for name in found]
    listed: dict[int, list[Key]] = {slot: [] for slot in slots}
    for start in range(0, len(names), _LIST_AT_ONCE):
        some = names[start : start + _LIST_AT_ONCE]
        sizes = await (await ends.to(node)).pipeline([("MEMORY", "USAGE", name) for _, name in some])
        for (slot, name), size in zip(some, sizes, strict=True):
            if isinstance(size, hiredis.ReplyError):
                size = 0  # noqa: PLW2901  # MOVED by a node that does not own the slot: unknown, but it is there
            if size is not None:
                listed[slot].append(Key(name, int(size)))
    return {slot: tuple(keys) for slot, keys in listed.items()}


def as_bytes(name: Reply) -> bytes:
    """A key as the node has it: the connection decodes with surrogateescape, which loses nothing."""
    return name if isinstance(name, bytes) else str(name).encode("utf-8", "surrogateescape")


def groups(keys: Sequence[Key]) -> Iterator[tuple[Key, ...]]:
    """Keys of one slot in groups for one MIGRATE each; a key that is larger than a group goes alone."""
    group: list[Key] = []
    size_bytes = 0
    for key in keys:
        if group and (len(group) == _GROUP_KEYS or size_bytes + key.size_bytes > _GROUP_BYTES):
            yield tuple(group)
            group, size_bytes = [], 0
        group.append(key)
        size_bytes += key.size_bytes
    if group:
        yield tuple(group)


def volleys(all_groups: Sequence[tuple[Key, ...]]) -> Iterator[list[tuple[Key, ...]]]:
    """Groups to be sent at once: few, and not more bytes than two of them may have."""
    volley: list[tuple[Key, ...]] = []
    size_bytes = 0
    for group in all_groups:
        group_bytes = sum(key.size_bytes for key in group)
        if volley and (len(volley) == _VOLLEY or size_bytes + group_bytes > 2 * _GROUP_BYTES):
            yield volley
            volley, size_bytes = [], 0
        volley.append(group)
        size_bytes += group_bytes
    if volley:
        yield volley


def migrate_command(ends: Ends, target: NodeFacts, keys: Sequence[Key], *, replace: bool) -> Command:
    """MIGRATE of some keys of one slot to `target`."""
    login = ends.login
    words: list[str | int | bytes] = ["MIGRATE", target.address, target.port, "", 0, _MIGRATE_TIMEOUT_MS]
    if replace:
        words.append("REPLACE")
    if login.user:
        words += ["AUTH2", login.user, login.password.reveal()]
    elif login.password:
        words += ["AUTH", login.password.reveal()]
    return (*words, "KEYS", *(key.name for key in keys))


async def migrate(
    ends: Ends, source: NodeFacts, target: NodeFacts, volley: Sequence[Sequence[Key]], *, replace: bool
) -> None:
    """Send a volley. NOKEY is no error: the keys were deleted or have expired meanwhile.

    Raises:
        ReplyError: a MIGRATE failed. Its keys are still on the source, some perhaps on both.
        NodeError: the source cannot be reached.
    """
    commands = [migrate_command(ends, target, group, replace=replace) for group in volley]
    replies = await (await ends.to(source)).pipeline(commands)
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise ReplyError(f"MIGRATE to {target.name} failed", where=source.name, why=str(reply))


async def drain(ends: Ends, source: NodeFacts, target: NodeFacts, slot: int, *, source_wins: bool) -> int:
    """Move every key of an open slot that is on `source`; returns how many.

    `source_wins`: which copy stays of a key that is on both. The source's is the right one while it owns the slot: it
    answers for every key that it has, so that a copy on the target can only come from an interrupted MIGRATE, or
    from before the source forgot that the slot is open. Else the owner's, which is then the target, is the right one.

    Raises:
        NodeError: the source or the target failed.
    """
    moved = 0
    before: tuple[Key, ...] = ()
    while keys := (await list_keys(ends, source, (slot,), limit=_LIST_AT_ONCE))[slot]:
        if keys == before:
            raise NodeError(
                f"keys of slot {slot} do not move to {target.name}", where=source.name, why="they stay listed"
            )
        before = keys
        for volley in volleys(list(groups(keys))):
            try:
                await migrate(ends, source, target, volley, replace=source_wins)
            except ReplyError as error:
                if source_wins or "BUSYKEY" not in error.why:
                    raise
                await _drop_duplicates(ends, source, target, volley)
            moved += sum(len(group) for group in volley)
    return moved


async def _drop_duplicates(ends: Ends, source: NodeFacts, target: NodeFacts, volley: Sequence[Sequence[Key]]) -> None:
    """Move key by key; what the target has already is dropped here. `source` imports the slot, hence ASKING."""
    connection = await ends.to(source)
    for key in (key for group in volley for key in group):
        reply = (await connection.pipeline([migrate_command(ends, target, (key,), replace=False)]))[0]
        if not isinstance(reply, hiredis.ReplyError):
            continue
        if "BUSYKEY" not in str(reply):
            raise NodeError(f"MIGRATE to {target.name} failed", where=source.name, why=str(reply))
        await connection.pipeline([("ASKING",), ("UNLINK", key.name)])
