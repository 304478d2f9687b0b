"""Move slots between masters: the right mover for each pair, pairs in parallel, each node in one pair at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from redisforge.model.facts import NodeFacts
from redisforge.model.slots import count
from redisforge.redis.connection import Login
from redisforge.redis.moving.agreement import wait_agreed
from redisforge.redis.moving.chunks import Mover, choose_mover, slots_of
from redisforge.redis.moving.classic import move_classic
from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.job import Job
from redisforge.redis.moving.moves import MoveResult, MoveWatch, SlotMove, by_pair
from redisforge.redis.moving.redis_atomic import move_redis_atomic
from redisforge.redis.moving.sizes import measure
from redisforge.redis.moving.tally import Tally
from redisforge.redis.moving.turns import Turns
from redisforge.redis.moving.valkey_atomic import move_valkey_atomic

_MOVERS: dict[Mover, Callable[[Job], Awaitable[None]]] = {
    "redis-atomic": move_redis_atomic,
    "valkey-atomic": move_valkey_atomic,
    "classic": move_classic,
}


async def move_slots(
    moves: Sequence[SlotMove],
    masters: Sequence[NodeFacts],
    login: Login,
    engine_kind: str,
    watch: MoveWatch | None = None,
) -> MoveResult:
    """Move the slots of `moves` under load, and wait until all `masters` see their new owners.

    No slot may be open when this begins (see mend_open_slots). Moves may share nodes: each node takes part in one
    pair at a time, because an engine runs one atomic task at a time and a classic move keeps both ends busy.

    Args:
        moves: what to move; several entries of one pair are joined.
        masters: every reachable master of the cluster: who must know the new owners in the end.
        login: the operator's; a classic move also hands it to the source, which logs in at the target with it.
        engine_kind: "redis" or "valkey".
        watch: progress, the wish to stop, bounds.

    Raises:
        NodeError: a node cannot be reached, refused a step or does not learn the new owners. The pair that failed
            has tried to leave no open slot; the other pairs have ended at a clean point. Mending and moving again
            goes on from there.
    """
    watch = watch or MoveWatch()
    pairs = by_pair(list(moves))
    tally = Tally(watch, sum(count(pair.slots) for pair in pairs))
    async with Ends(login) as ends:
        # Connected while the first slots are on their way, so that asking in the end takes no time.
        begun = asyncio.Event()
        connecting = asyncio.create_task(_connect(ends, masters, begun))
        try:
            await _run_all(pairs, _Running(ends, engine_kind, tally, Turns(), begun))
            await connecting
        finally:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
        await wait_agreed(ends, masters, tally.moved)
    return MoveResult(
        slots_moved=tally.slots,
        keys_moved=tally.keys,
        bytes_moved=tally.bytes,
        seconds=tally.seconds,
        left=tuple(sorted(tally.left, key=lambda left: left.slot)),
        stopped=tally.stopped,
    )


class _Running(NamedTuple):
    """What all pairs of one call share. `begun`: the first pair has begun to move, or never will."""

    ends: Ends
    engine_kind: str
    tally: Tally
    turns: Turns
    begun: asyncio.Event


async def _connect(ends: Ends, masters: Sequence[NodeFacts], begun: asyncio.Event) -> None:
    """Connect to every master; one that cannot be reached is told about when it is asked."""
    await begun.wait()
    await asyncio.gather(*(ends.to(node) for node in masters), return_exceptions=True)


async def _run_all(pairs: Sequence[SlotMove], running: _Running) -> None:
    """All pairs at once; they take turns. The first failure lets the others end at a clean point."""
    tasks = [asyncio.create_task(_run(pair, running, leads=not number)) for number, pair in enumerate(pairs)]
    try:
        results = await asyncio.gather(*tasks, return_exceptions=True)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    finally:
        running.begun.set()
    if errors := [result for result in results if result is not None]:
        raise errors[0]


async def _run(move: SlotMove, running: _Running, *, leads: bool) -> None:
    """One pair. The others count and connect once the leading one moves: then that costs no time at all."""
    mover = choose_mover(move, running.engine_kind)
    tally, turns = running.tally, running.turns
    try:
        if not leads:
            await running.begun.wait()
        async with running.ends.another() as ends:
            # Counting and connecting need no turn: done while other pairs move, they cost no time.
            sizes = await measure(ends, move.source, slots_of(move.slots))
            tally.expect(sizes)
            await ends.to(move.target)
            await turns.take(move)
            running.begun.set()
            try:
                if not tally.should_stop():
                    await _MOVERS[mover](Job(move=move, sizes=sizes, ends=ends, tally=tally, turns=turns))
            finally:
                await turns.give(move, move.source.id, move.target.id)
    except BaseException:
        tally.failed = True
        raise
    finally:
        running.begun.set()
