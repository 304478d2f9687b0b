"""Slots move: the steps of a phase become one call of the mover, with progress, bounds and a clean stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from redisforge.errors import RedisForgeError, RefusedError
from redisforge.fleet.journal import Journal
from redisforge.model.facts import Facts
from redisforge.model.steps import MoveSlots
from redisforge.model.topology import Role
from redisforge.plan.host_words import readable_bytes
from redisforge.redis.moving import DEFAULT_MAX_KEY_BYTES, MoveProgress, MoveResult, MoveWatch, SlotMove, move_slots
from redisforge.redis.moving.open_slots import mend_open_slots
from redisforge.runbooks.cluster import Cluster

_REPORT_EVERY_S = 2.0


class MoveLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`max_rate_bytes_s`: on average over all moves. `max_key_bytes`: the classic mover leaves a bigger key."""

    max_rate_bytes_s: float | None = None
    max_key_bytes: int = DEFAULT_MAX_KEY_BYTES


class SlotMover:
    """Moves slots of one cluster. `stop_requested` is asked all the time: the move then ends at a clean point."""

    def __init__(
        self,
        cluster: Cluster,
        journal: Journal,
        progress: Callable[[str], None],
        limits: MoveLimits,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._cluster = cluster
        self._journal = journal
        self._progress = progress
        self._watch = MoveWatch(
            report=self._report,
            stop_requested=stop_requested,
            max_rate_bytes_s=limits.max_rate_bytes_s,
            max_key_bytes=limits.max_key_bytes,
        )
        self._reported_at = 0.0

    async def mend(self, facts: Facts) -> None:
        """Close what an earlier move left open, and see to its tasks that still run.

        Raises:
            RefusedError: a slot cannot be closed without perhaps losing keys.
            NodeError: a node cannot be reached or refused a step.
        """
        nodes = tuple(facts.nodes.values())
        kind = self._cluster.topology.engine.kind
        for sentence in await mend_open_slots(nodes, self._cluster.operator_login(), kind, self._watch):
            self._progress(sentence)
            self._journal.write("step", what=sentence, result="ok")

    async def move(self, steps: Sequence[MoveSlots], facts: Facts) -> None:
        """Carry out all moves of a phase.

        Raises:
            NodeError: a step failed; slots that could be closed are closed, and running the verb again goes on.
            RefusedError: everything was moved but slots with a key that is too big.
            KeyboardInterrupt: a stop was asked for, and this is a clean point.
        """
        await self.mend(facts)
        began = time.monotonic()
        self._reported_at = began
        moves = [SlotMove(facts.nodes[step.source], facts.nodes[step.target], step.slots) for step in steps]
        masters = [node for node in facts.reachable_nodes() if node.role is Role.MASTER]
        result = "interrupted"
        try:
            done = await move_slots(
                moves, masters, self._cluster.operator_login(), self._cluster.topology.engine.kind, self._watch
            )
            result = "stopped at a clean point" if done.stopped else "ok"
        except RedisForgeError as error:
            result = f"{type(error).__name__}: {error.what}"
            raise
        finally:
            for step in steps:
                self._journal.write("step", what=str(step), result=result, seconds=time.monotonic() - began)
        self._progress(moved_text(done))
        if done.stopped:
            raise KeyboardInterrupt
        if done.left:
            raise _too_big(done)

    def _report(self, progress: MoveProgress) -> None:
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            self._progress(progress_text(progress))


def progress_text(progress: MoveProgress) -> str:
    """How far a move is, at which rate, and how long it will take."""
    rate = f", {readable_bytes(progress.rate_bytes_s)}/s" if progress.bytes_done else ""
    left = "" if progress.left_s is None else f", {progress.left_s:.0f} s left"
    return (
        f"moving slots: {progress.slots_done} of {progress.slots_total}, {progress.keys_done} of "
        f"{progress.keys_total} keys{rate}{left}"
    )


def moved_text(done: MoveResult) -> str:
    """What a move did."""
    size = f", {readable_bytes(done.bytes_moved)}" if done.bytes_moved else ""
    rate = f" ({readable_bytes(done.bytes_moved / done.seconds)}/s)" if size and done.seconds else ""
    return f"moved {done.slots_moved} slots, {done.keys_moved} keys{size} in {done.seconds:.2f} s{rate}"


def _too_big(done: MoveResult) -> RefusedError:
    listed = [
        f"slot {left.slot} on {left.node}: key {left.key!r} has {readable_bytes(left.size_bytes)}" for left in done.left
    ]
    more = f"\nand {len(listed) - 4} more" if len(listed) > 4 else ""
    return RefusedError(
        f"{len(done.left)} slots stay where they are, for a key in each is too big to be moved safely",
        where="\n         ".join(listed[:4]) + more,
        why="this engine moves a key while it blocks both nodes; a node that is blocked for the node timeout is failed "
        "over. All other slots were moved",
        next_step="make the keys smaller, or allow bigger ones (--max-key-size) at a quiet hour; Redis from 8.4 and "
        "Valkey from 9.0 on move slots of any size without blocking",
    )
