"""Close the slots that an interrupted move left open, and see to the atomic tasks of an earlier run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redisforge.errors import NodeError, RefusedError
from redisforge.model.facts import NodeFacts
from redisforge.model.slots import describe
from redisforge.model.topology import Role
from redisforge.model.words import counted
from redisforge.plan.open_slots import Blocked, Mending, OpenSlot, decide, find_open
from redisforge.redis.connection import Login
from redisforge.redis.moving.agreement import wait_agreed
from redisforge.redis.moving.chunks import ranges_of
from redisforge.redis.moving.earlier import end_earlier_tasks
from redisforge.redis.moving.ends import Ends
from redisforge.redis.moving.keys import drain
from redisforge.redis.moving.moves import MoveWatch
from redisforge.redis.moving.setslot import close, expect_keys, give, hand_over, key_counts, open_slots
from redisforge.redis.observe import NodeAsker

_ROUNDS = 4
"""A slot of which a client's write arrived late, or whose owner changed meanwhile, is looked at again."""


class Mended(NamedTuple):
    """A slot that was closed, or stays open: why, at which node, and how many keys were brought there."""

    slot: int
    why: str
    node: str
    keys: int = 0


async def mend_open_slots(
    nodes: Sequence[NodeFacts], login: Login, engine_kind: str, watch: MoveWatch | None = None
) -> tuple[str, ...]:
    """Finish or roll back what an earlier move left; returns in words what was done (empty: nothing was left).

    Args:
        nodes: every node of the cluster, replicas and unreachable ones too; they are looked at again.
        login: the operator's.
        engine_kind: "redis" or "valkey".
        watch: `stop_requested` is asked between slots.

    Raises:
        RefusedError: a slot cannot be closed without perhaps losing keys; the others are closed.
        NodeError: a node cannot be reached or refused a step. Calling it again goes on from there.
    """
    watch = watch or MoveWatch()
    async with Ends(login) as ends, NodeAsker(login, timeout_s=10.0) as asker:
        said = await end_earlier_tasks(ends, [n for n in nodes if _is_master(n)], engine_kind, watch)
        mended: list[Mended] = []
        for _ in range(_ROUNDS):
            seen = await _look(asker, nodes)
            found = find_open(seen)
            blocked, done = await _mend_all(ends, seen, found, watch)
            mended += done
            if watch.stop_requested() or not done:
                if blocked:
                    raise _refusal(blocked, seen)
                return (*said, *in_words(mended))
    raise NodeError(
        "slots are open again each time they are closed",
        why="\n".join(in_words(mended)[-4:]),
        next_step="see that nobody else moves slots (redis-cli --cluster, an operator), then run the verb again",
    )


def _is_master(node: NodeFacts) -> bool:
    return node.reachable and node.role is Role.MASTER


async def _look(asker: NodeAsker, nodes: Sequence[NodeFacts]) -> list[NodeFacts]:
    seen = await asker.observe_all((node.name, (node.address, node.port)) for node in nodes)
    return list(seen.values())


async def _mend_all(
    ends: Ends, nodes: Sequence[NodeFacts], found: Sequence[OpenSlot], watch: MoveWatch
) -> tuple[list[Blocked], list[Mended]]:
    masters = {node.id: node for node in nodes if _is_master(node)}
    slots = [slot.slot for slot in found]
    counts = {node_id: await key_counts(ends, node, slots) for node_id, node in masters.items()} if slots else {}
    blocked: list[Blocked] = []
    done: list[Mended] = []
    for slot in found:
        if watch.stop_requested():
            break
        decision = decide(slot, nodes, {node_id: keys[slot.slot] for node_id, keys in counts.items()})
        if isinstance(decision, Blocked):
            blocked.append(decision)
        elif decision is not None:
            done.append(await _mend(ends, slot, decision, masters))
    return blocked, done


async def _mend(ends: Ends, slot: OpenSlot, mending: Mending, masters: dict[str, NodeFacts]) -> Mended:
    """Close one slot. Each step may be the last one before a crash: what it leaves is decided on again."""
    owner = masters.get(mending.owner)
    if owner is None:  # it does not answer; nothing of the slot is anywhere else
        for node_id in mending.marked:
            await close(ends, masters[node_id], (mending.slot,))
        return Mended(mending.slot, mending.why, "")
    moved = await _gather_keys(ends, slot, mending, masters)
    others = [masters[node_id] for node_id in mending.marked if node_id not in (owner.id, mending.giver)]
    if mending.giver:
        await hand_over(ends, masters[mending.giver], owner, (mending.slot,))
    for node in others:
        if node.id in slot.claimants:
            await give(ends, node, (mending.slot,), owner.id)
        elif (await key_counts(ends, node, (mending.slot,)))[mending.slot]:
            continue  # a client was sent there meanwhile: it stays open, and is looked at again in the next round
        await close(ends, node, (mending.slot,))
    for node in others:  # a client may have been on its way to it: such a slot is opened again, for the next round
        if (await key_counts(ends, node, (mending.slot,)))[mending.slot]:
            await expect_keys(ends, node, owner, (mending.slot,))
    await wait_agreed(ends, list(masters.values()), {mending.slot: owner.id})
    return Mended(mending.slot, mending.why, owner.name, moved)


async def _gather_keys(ends: Ends, slot: OpenSlot, mending: Mending, masters: dict[str, NodeFacts]) -> int:
    """Bring all keys to the owner-to-be; returns how many."""
    owner, one, moved = masters[mending.owner], (mending.slot,), 0
    if mending.is_assignment:
        await give(ends, owner, one, owner.id)
    elif mending.giver:
        giver = masters[mending.giver]
        await open_slots(ends, giver, owner, one)
        moved += await drain(ends, giver, owner, mending.slot, source_wins=True)
    elif owner.id in mending.marked:
        await close(ends, owner, one)
    for stray in (masters[node_id] for node_id in mending.strays):
        if stray.id not in slot.claimants:
            await expect_keys(ends, stray, owner, one)
        moved += await drain(ends, stray, owner, mending.slot, source_wins=False)
    return moved


def in_words(mended: Iterable[Mended]) -> tuple[str, ...]:
    """One sentence for all slots of the same reason and node, and not one for each: a killed move leaves dozens."""
    groups: dict[tuple[str, str], list[Mended]] = {}
    for one in mended:
        groups.setdefault((one.why, one.node), []).append(one)
    sentences: list[str] = []
    for (why, node), group in groups.items():
        slots = sorted({one.slot for one in group})
        moved = sum(one.keys for one in group)
        inside = [node] * bool(node) + [f"{counted(moved, 'key')} moved"] * bool(moved)
        noun = "slot" if len(slots) == 1 else "slots"
        where = f" ({', '.join(inside)})" if inside else ""
        sentences.append(f"{noun} {describe(ranges_of(slots))}: {why}{where}")
    return tuple(sentences)


def _refusal(blocked: Sequence[Blocked], nodes: Sequence[NodeFacts]) -> RefusedError:
    names = {node.id: node.name for node in nodes if node.id}
    addresses = {peer.id: f"{peer.address}:{peer.port}" for node in nodes for peer in node.peers}
    lines = in_words(
        Mended(b.slot, b.why, names.get(b.node_id) or addresses.get(b.node_id, b.node_id)) for b in blocked
    )
    return RefusedError(
        f"slots {describe(ranges_of([b.slot for b in blocked]))} are open and cannot be closed safely",
        why="\n".join(lines),
        next_step="bring that node back, or let its replica take over (`redisforge failover`), and run the verb again",
    )
