"""Let a replica take a master's place, on request.

`failover NODE` moves the slots away from NODE. Asked again it finds that NODE is no master any more and does nothing,
so a run that was cut off can be repeated.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, NodeFacts, PeerView
from redisforge.model.slots import describe
from redisforge.model.steps import Gate, Phase, Promote
from redisforge.model.topology import Role, Topology
from redisforge.plan.handover import hand_over, pause_left_s
from redisforge.plan.ready import whole_first
from redisforge.plan.roles import even_roles
from redisforge.plan.view import actual_shards, copies_of, newest_owners

Mode = Literal["handover", "force", "takeover"]


class Failover(msgspec.Struct, frozen=True, kw_only=True):
    """`node` gives its slots away, to `heir` if one is named. `mode` as in model/steps.Promote."""

    node: str
    heir: str = ""
    mode: Mode = "handover"


def failover_phase(topology: Topology, facts: Facts, wanted: Failover) -> Phase | None:
    """The next phase, or None when `node` owns no slots any more.

    Raises:
        RefusedError: there is no replica that may take over, or the master does not answer and no force was asked for.
    """
    owner = _owner(topology, facts, wanted.node)
    if owner is None:
        return whole_first(topology, facts) if wanted.mode == "handover" else None
    seen = facts.nodes[wanted.node]
    if wanted.mode == "handover":
        if not seen.reachable:
            raise RefusedError(
                f"{wanted.node} does not answer, so it cannot hand over",
                where=f"{seen.address}:{seen.port}",
                why=seen.problem,
                next_step=f"`redisforge failover {wanted.node} --force` lets a replica take over without it; what only "
                f"{wanted.node} had received is lost",
            )
        if phase := whole_first(topology, facts):
            return phase
    heir = _heir(topology, facts, owner, wanted)
    if wanted.mode == "handover":
        return hand_over(topology, facts, seen, heir, f"{wanted.node} gives its slots away")
    step = Promote(node=heir.name, mode=wanted.mode, why=f"{wanted.node} gives its slots away")
    title = f"let {heir.name} take over from {wanted.node}"
    return Phase(title=title, steps=(step,), gate=Gate("took_over", 30.0, node=heir.name))


def why_nothing(topology: Topology, facts: Facts, name: str) -> str:
    """Why the node has no slots to give away; empty if it has, or if that is not known."""
    if _owner(topology, facts, name):
        return ""
    seen = facts.nodes[name]
    here = (seen.address, seen.port)
    views = (peer for other in facts.reachable_nodes() for peer in other.peers if (peer.address, peer.port) == here)
    if (seen.role is Role.REPLICA) if seen.reachable else any(peer.role is Role.REPLICA for peer in views):
        return f"{name} is a replica already"
    if seen.reachable:
        return ""
    shards = actual_shards(topology, facts)
    owners = [owner.name for owner in newest_owners(facts) if shards.get(owner.name) == shards[name]]
    return f"{name} does not answer; its slots are served by {owners[0]} already" if owners else ""


def _owner(topology: Topology, facts: Facts, name: str) -> PeerView | None:
    """How the cluster lists the node, if it is a master with slots; a node that does not answer is found by address."""
    seen, node = facts.nodes[name], topology.node(name)
    if seen.reachable:
        return seen.myself if seen.role is Role.MASTER and seen.slots else None
    views = (peer for other in facts.reachable_nodes() for peer in other.peers if peer.slots)
    return next((peer for peer in views if (peer.address, peer.port) == (node.address, node.port)), None)


def _heir(topology: Topology, facts: Facts, owner: PeerView, wanted: Failover) -> NodeFacts:
    """The replica that takes over. A handover needs one that is in sync; without the master the one that has most."""
    copies = candidates = copies_of(topology, facts, owner.id)
    if wanted.mode == "handover":
        ready = (node for node in candidates if node.master_link_up and node.replication_offset and node.aof_ok)
        seen = facts.nodes[wanted.node]
        resting = topology.resting
        order = sorted(ready, key=lambda node: (node.name in resting, pause_left_s(topology, facts, seen, node)))
        candidates = tuple(order)
    able = candidates
    if wanted.heir:
        candidates = tuple(node for node in candidates if node.name == wanted.heir)
    if candidates:
        return candidates[0]
    raise _no_heir(owner, wanted, copies, able)


def _no_heir(
    owner: PeerView, wanted: Failover, copies: tuple[NodeFacts, ...], able: tuple[NodeFacts, ...]
) -> RefusedError:
    """`copies`: the replicas of the node; `able`: those of them that could take over now."""
    synced = " that is in sync" if wanted.mode == "handover" else ""
    if not wanted.heir:
        what, why = f"no node can take over from {wanted.node}", f"none is a replica of {wanted.node}{synced}"
    elif wanted.heir == wanted.node:
        what, why = f"{wanted.node} cannot take over from itself", "its slots are to go to one of its replicas"
    else:
        what = f"{wanted.heir} cannot take over from {wanted.node}"
        copy = next((node for node in copies if node.name == wanted.heir), None)
        why = f"it is no replica of {wanted.node}" if copy is None else "it is not in sync yet"
        if copy is not None and not copy.aof_ok:
            why = "it cannot write to its disk, and would refuse all writes"
    names = " or ".join(node.name for node in able)
    return RefusedError(
        what,
        where=f"slots {describe(owner.slots)}",
        why=why,
        next_step=f"--to {names}; without --to it is chosen"
        if able
        else "`redisforge status` shows the replicas; `redisforge up` attaches what is missing",
    )


def roles_phase(topology: Topology, facts: Facts) -> Phase | None:
    """The next planned failover that makes the masters' spread over zones and hosts more even, or None.

    Raises:
        RefusedError: slots are not served.
    """
    if phase := whole_first(topology, facts):
        return phase
    for promotion in even_roles(topology, facts):
        master, heir = facts.nodes[promotion.master], facts.nodes[promotion.replica]
        return hand_over(topology, facts, master, heir, promotion.why)
    return None
