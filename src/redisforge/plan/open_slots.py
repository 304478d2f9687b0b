"""PURE: slots that an interrupted move left open, and how each is closed without losing a key.

A classic move opens a slot on both sides: its owner S is *migrating* it to T, T is *importing* it from S. A crash of
the tool, of a node, or a failover (a promoted replica does not know that a slot was open) leaves any part of that,
with keys on either side. What holds in each state, and so what decides:

- While S is migrating, it answers for the keys that it has and sends clients to T for all others. What T has was
  written there or has arrived there, and S does not have it. Closing the slot at S would hide it. So once T holds a
  key the move is finished; before that it is rolled back.
- A key that is on both sides while S owns the slot: S answers for it, and nobody else was asked for it since; S's copy
  is the right one. T's is a MIGRATE that was interrupted before S heard that the key had arrived, or is older.
- T imports and S is not migrating (any more): clients see S alone. The side with fewer keys gives them to the other.
- A node that neither owns the slot nor is the other end of such a pair, but has it open and holds keys of it: they go
  to the owner, whose copy prevails.
- A node that holds keys of a slot without having it open is left alone: engines with atomic migration remove the keys
  of a slot in the background after it has left. So if *both* ends forgot, what the target had is not found here: both
  were failed over during one move; or a roll back was killed between its two ends, a client had been sent to the target
  in that moment, and then the target was failed over.

Source: Redis Cluster specification, "Live reconfiguration"; redis.io "CLUSTER SETSLOT".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from redisforge.model.facts import NodeFacts, PeerView
from redisforge.model.slots import SLOT_COUNT, SlotRange, merge, subtract
from redisforge.model.topology import Role

_ALL = (SlotRange(0, SLOT_COUNT - 1),)

KeyCounts = Mapping[str, int]
"""Keys of one slot by node id."""


class OpenSlot(msgspec.Struct, frozen=True, kw_only=True):
    """A slot that is open somewhere, claimed twice, or nobody's. Nodes are ids; only `owner` may be out of reach."""

    slot: int
    owner: str = ""
    """Who owns it: of several that claim it, the one with the highest epoch. It may be a node that does not answer."""
    claimants: tuple[str, ...] = ()
    migrating: tuple[tuple[str, str], ...] = ()
    """(node, destination)"""
    importing: tuple[tuple[str, str], ...] = ()
    """(node, source)"""

    @property
    def marked(self) -> tuple[str, ...]:
        """Every node with something to be closed: open there, or claimed without being the owner."""
        open_at = {node for node, _ in (*self.migrating, *self.importing)}
        return tuple(sorted(open_at.union(self.claimants) - {self.owner})) + (
            (self.owner,) if self.owner in open_at else ()
        )


class Mending(msgspec.Struct, frozen=True, kw_only=True):
    """How a slot is closed: `owner` is to own it and gets the keys of `giver` (whose copies prevail: it owns the slot
    now) and of `strays` (whose copies yield); `marked` nodes then forget that it was open."""

    slot: int
    owner: str
    giver: str = ""
    strays: tuple[str, ...] = ()
    marked: tuple[str, ...] = ()
    is_assignment: bool = False
    """Nobody owns the slot so far."""
    why: str


class Blocked(msgspec.Struct, frozen=True):
    """A slot that cannot be closed without perhaps losing keys, and why."""

    slot: int
    node_id: str
    why: str


def find_open(nodes: Sequence[NodeFacts]) -> tuple[OpenSlot, ...]:
    """Every slot that needs attention, in order. Empty in a cluster where no move was interrupted."""
    masters = {node.id: node.myself for node in nodes if node.reachable and node.role is Role.MASTER and node.myself}
    absent = _absent_owners(nodes, masters)
    wanted = {slot for myself in masters.values() for slot, _ in (*myself.migrating, *myself.importing)}
    wanted.update(_claimed_twice(masters))
    claimed = merge(r for peer in (*masters.values(), *absent) for r in peer.slots)
    if claimed:  # else the cluster is not formed
        wanted.update(slot for r in subtract(_ALL, claimed) for slot in range(r.first, r.last + 1))
    return tuple(_open_slot(slot, masters, absent) for slot in sorted(wanted))


def _open_slot(slot: int, masters: Mapping[str, PeerView], absent: Sequence[PeerView]) -> OpenSlot:
    claimants = [node for node, myself in masters.items() if _has(myself, slot)]
    elsewhere = max((peer for peer in absent if _has(peer, slot)), key=lambda peer: peer.config_epoch, default=None)
    return OpenSlot(
        slot=slot,
        # With equal epochs the smaller id raises its own next and wins (cluster_legacy.c, epoch collision).
        owner=min(claimants, key=lambda node: (-masters[node].config_epoch, node))
        if claimants
        else elsewhere.id
        if elsewhere
        else "",
        claimants=tuple(sorted(claimants)),
        migrating=tuple((node, to) for node, myself in masters.items() for n, to in myself.migrating if n == slot),
        importing=tuple((node, of) for node, myself in masters.items() for n, of in myself.importing if n == slot),
    )


def _has(peer: PeerView, slot: int) -> bool:
    return any(current.first <= slot <= current.last for current in peer.slots)


def _claimed_twice(masters: Mapping[str, PeerView]) -> set[int]:
    twice: set[int] = set()
    last = -1
    for current in sorted(r for myself in masters.values() for r in myself.slots):
        twice.update(range(current.first, min(current.last, last) + 1))
        last = max(last, current.last)
    return twice


def _absent_owners(nodes: Sequence[NodeFacts], masters: Mapping[str, PeerView]) -> list[PeerView]:
    """Nodes that do not answer as masters, as others see them with slots."""
    answering = {node.id for node in nodes if node.reachable}
    return [
        peer
        for node in nodes
        if node.reachable
        for peer in node.peers
        if peer.slots and peer.id not in masters and peer.id not in answering
    ]


def decide(slot: OpenSlot, nodes: Sequence[NodeFacts], keys: KeyCounts) -> Mending | Blocked | None:
    """How to close one slot. `keys` counts its keys on every reachable master. None: there is nothing to be done."""
    masters = {node.id for node in nodes if node.reachable and node.role is Role.MASTER}
    if not slot.owner:
        return _adopt(slot, keys)
    if slot.owner not in masters:
        holders = tuple(node for node in slot.marked if keys.get(node, 0))
        if holders:
            return Blocked(slot.slot, slot.owner, "its owner does not answer, and others hold keys of it")
        return Mending(slot=slot.slot, owner=slot.owner, marked=slot.marked, why="its owner has all keys: rolled back")
    for _, destination in (pair for pair in slot.migrating if pair[0] == slot.owner):
        target = current_master(destination, nodes)
        if target in masters and target != slot.owner:
            return _of_pair(slot, target, keys)
        if target and target != slot.owner:
            if heir := _heir(slot, target, nodes, keys):
                return _of_pair(slot, heir, keys)
            return Blocked(slot.slot, target, "the node that it was moved to does not answer: it may hold keys of it")
    return _without_migrating(slot, nodes, keys)


def _heir(slot: OpenSlot, target: str, nodes: Sequence[NodeFacts], keys: KeyCounts) -> str:
    """Who took over from a `target` that is dead: nobody sees that with slots any more, and one master has keys of the
    slot that it neither owns nor has open. "" if it cannot be told."""
    if any(peer.slots for node in nodes if node.reachable for peer in node.peers if peer.id == target):
        return ""
    holders = [node for node, count in keys.items() if count and node != slot.owner and node not in slot.marked]
    return holders[0] if len(holders) == 1 else ""


def _adopt(slot: OpenSlot, keys: KeyCounts) -> Mending | None:
    importing = {node for node, _ in slot.importing}
    holders = sorted((n for n, count in keys.items() if count), key=lambda n: (n not in importing, -keys[n], n))
    candidates = holders or sorted(importing) or sorted(node for node, _ in slot.migrating)
    if not candidates:
        return None
    return Mending(
        slot=slot.slot,
        owner=candidates[0],
        strays=tuple(holders[1:]),
        marked=slot.marked,
        is_assignment=True,
        why="nobody owned it: given to the node that has its keys",
    )


def _of_pair(slot: OpenSlot, target: str, keys: KeyCounts) -> Mending:
    """The owner is migrating it to `target`."""
    if keys.get(target, 0) and target not in slot.claimants:  # one that claims it in vain is a stray
        return _mending(slot, target, keys, "finished: the new owner has keys of it already")
    return _mending(slot, slot.owner, keys, "rolled back: its owner has all keys")


def _without_migrating(slot: OpenSlot, nodes: Sequence[NodeFacts], keys: KeyCounts) -> Mending:
    """The owner does not know that the slot is open, or knows it of a node that is no more."""
    owned = keys.get(slot.owner, 0)
    halves = [
        node
        for node, source in slot.importing
        if current_master(source, nodes) == slot.owner != node and keys.get(node, 0) > owned
    ]
    if halves:
        fullest = max(halves, key=lambda node: (keys[node], node))
        return _mending(slot, fullest, keys, "finished: most of its keys have moved already")
    return _mending(slot, slot.owner, keys, "rolled back: its owner has most of its keys")


def _mending(slot: OpenSlot, owner: str, keys: KeyCounts, why: str) -> Mending:
    giver = slot.owner if owner != slot.owner else ""
    strays = tuple(node for node in slot.marked if keys.get(node, 0) and node not in (owner, giver))
    return Mending(slot=slot.slot, owner=owner, giver=giver, strays=strays, marked=slot.marked, why=why)


def current_master(node_id: str, nodes: Sequence[NodeFacts]) -> str:
    """Who holds the data of `node_id` now: itself, its new master if it was failed over, "" if nobody knows it."""
    own = next((node for node in nodes if node.reachable and node.id == node_id), None)
    if own is not None:
        return own.id if own.role is Role.MASTER else own.master_id
    seen = [peer for node in nodes if node.reachable for peer in node.peers if peer.id == node_id]
    if not seen:
        return ""
    return next((peer.master_id for peer in seen if peer.role is Role.REPLICA and peer.master_id), node_id)
