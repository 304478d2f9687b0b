"""Move slots between masters: the right mover for each pair, pairs in parallel, each node in one pair at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from redisforge.model.facts import NodeFacts
from redisforge.model.slots import count
from redisforge.redis.connection import Login
from redisforge.redis.moving.agreement import wait_agreed
from redisforge.redis.moving.chunks import Mover, choose_mover
from redisforge.redis.moving.classic import move_classic
from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.moves import MoveResult, MoveWatch, SlotMove, by_pair
from redisforge.redis.moving.redis_atomic import move_redis_atomic
from redisforge.redis.moving.tally import Tally
from redisforge.redis.moving.valkey_atomic import move_valkey_atomic

_MOVERS: dict[Mover, Callable[[SlotMove, Ends, Tally], Awaitable[None]]] = {
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
        masters: every reachable master of the cluster.
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
    await _run_all(pairs, login, engine_kind, tally)
    async with Ends(login) as ends:
        await wait_agreed(ends, masters, tally.moved)
    return MoveResult(
        slots_moved=tally.slots,
        keys_moved=tally.keys,
        bytes_moved=tally.bytes,
        seconds=tally.seconds,
        left=tuple(sorted(tally.left, key=lambda left: left.slot)),
        stopped=tally.stopped,
    )


async def _run_all(pairs: Sequence[SlotMove], login: Login, engine_kind: str, tally: Tally) -> None:
    """Start every pair as soon as both of its nodes are free; the first failure lets the others end cleanly."""
    waiting = list(pairs)
    running: dict[asyncio.Task[None], SlotMove] = {}
    errors: list[BaseException] = []
    try:
        while waiting or running:
            busy = {node.id for move in running.values() for node in (move.source, move.target)}
            for move in list(waiting):
                if tally.should_stop():
                    waiting.clear()
                    break
                if busy.isdisjoint((move.source.id, move.target.id)):
                    waiting.remove(move)
                    busy |= {move.source.id, move.target.id}
                    running[asyncio.create_task(_run(move, login, engine_kind, tally))] = move
            if not running:
                break
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del running[task]
                if error := task.exception():
                    tally.failed = True
                    errors.append(error)
    except asyncio.CancelledError:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        raise
    if errors:
        raise errors[0]


async def _run(move: SlotMove, login: Login, engine_kind: str, tally: Tally) -> None:
    async with Ends(login) as ends:
        await _MOVERS[choose_mover(move, engine_kind)](move, ends, tally)
