"""What would survive the loss of hosts, zones or nodes, concluded from the facts. Nothing is stopped.

Redis Cluster's rules (specification, "Replica election and promotion" and "Cluster availability"; cluster_legacy.c
`clusterUpdateState`, `clusterHandleSlaveFailover`): a failover needs the votes of a majority of the masters that own
slots; the replica with the largest offset asks first; masters that see no majority of masters stop serving. With
`cluster-require-full-coverage yes` one slot without a master stops all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from redisforge.errors import NotFoundError
from redisforge.model.facts import Facts, NodeFacts, PeerView
from redisforge.model.report import Outcome, Problem, ShardSurvival, Survival
from redisforge.model.slots import SlotRange, count, describe, merge, subtract
from redisforge.model.topology import Topology
from redisforge.plan.view import ALL_SLOTS, copies_of, declared_at, newest_owners

LossKind = Literal["host", "zone", "node"]

_MEMORY_WARNING_RATIO = 0.9
_LAG_WARNING_BYTES = 64 * 1024 * 1024
_ELSEWHERE = "place a replica of it elsewhere"


class _Shard(msgspec.Struct, frozen=True):
    """A master as the cluster knows it: `seen` is None if it cannot be asked now."""

    id: str
    name: str
    slots: tuple[SlotRange, ...]
    seen: NodeFacts | None


def units_lost(topology: Topology, kind: LossKind, name: str) -> frozenset[str]:
    """The names of the nodes and Envoys that are gone with a host (by name or address), a zone, or a node.

    Hosts that share an address are one machine.

    Raises:
        NotFoundError: no such host, zone or node; lists the known ones.
    """
    units = (*topology.nodes, *topology.envoys)
    if kind == "host":
        by_name = {host.name: host.address for host in topology.hosts} | {unit.host: unit.address for unit in units}
        known, address = sorted(by_name), by_name.get(name, name)
        lost = frozenset(unit.name for unit in units if unit.address == address)
        exists = name in by_name or bool(lost)
    elif kind == "zone":
        known = sorted({host.zone for host in topology.hosts} | {unit.zone for unit in units})
        lost, exists = frozenset(unit.name for unit in units if unit.zone == name), name in known
    else:
        known = [unit.name for unit in units]
        lost, exists = frozenset({name}), name in known
    if not exists:
        raise NotFoundError(
            f"no {kind} called {name!r}", where=topology.name, why=f"{kind}s of this cluster: {', '.join(known)}",
            next_step=f"name one of them: `--lose {kind} NAME`",
        )  # fmt: skip
    return lost


def simulate(topology: Topology, facts: Facts, lost: frozenset[str]) -> Survival:
    """What is left when the nodes and Envoys named in `lost` are gone at once, beside those that are gone already."""
    shards = _shards(topology, facts)
    left = [shard for shard in shards if shard.seen and shard.name not in lost]
    needed = len(shards) // 2 + 1
    majority = len(left) >= needed
    survivals = [_survival(topology, facts, shard, lost, majority=majority) for shard in shards]
    whole = not any(s.outcome in ("stops", "lost") for s in survivals)
    whole = whole and not subtract(ALL_SLOTS, (r for shard in shards for r in shard.slots))
    if not whole and _says_yes(topology, "cluster-require-full-coverage"):
        survivals = [s if s.outcome == "lost" else _stopped(s) for s in survivals]
    numbered = [msgspec.structs.replace(s, shard=number) for number, s in enumerate(survivals, 1)]
    pairs = list(zip(shards, numbered, strict=True))
    gone = merge(r for shard, s in pairs if s.outcome == "lost" for r in shard.slots)
    served = merge(r for shard, s in pairs if s.outcome in ("serves", "fails_over") for r in shard.slots)
    unserved = subtract(ALL_SLOTS, served)
    silent = (*(n for n in facts.nodes.values() if not n.reachable), *(e for e in facts.envoys.values() if e.problem))
    already_lost = tuple(unit.name for unit in silent if unit.name not in lost)
    gone_units = {*lost, *already_lost}
    endpoints = tuple(e.name for e in topology.endpoints if all(place.envoy in gone_units for place in e.listeners))
    report = Survival(
        cluster=topology.name, lost=tuple(sorted(lost)),
        already_lost=already_lost,
        survives=not unserved and not endpoints,
        lost_slots=describe(gone), lost_slot_count=count(gone),
        unserved_slots=describe(unserved), unserved_slot_count=count(unserved),
        masters=len(shards), masters_left=len(left), masters_needed=needed,
        shards=tuple(numbered), endpoints_lost=endpoints, findings=(),
    )  # fmt: skip
    findings = sorted(_findings(topology, facts, report), key=lambda problem: problem.severity != "critical")
    return msgspec.structs.replace(report, findings=tuple(findings))


def _shards(topology: Topology, facts: Facts) -> list[_Shard]:
    """All owners of slots, those that cannot be asked as the others remember them; in the order of their slots."""
    shards: list[_Shard] = []
    taken: tuple[SlotRange, ...] = ()
    for node in newest_owners(facts):
        shards.append(_Shard(node.id, node.name, subtract(node.slots, taken), node))
        taken = merge((*taken, *node.slots))
    reachable = {node.id for node in facts.reachable_nodes()}
    remembered: dict[str, PeerView] = {}
    for node in facts.reachable_nodes():
        for peer in node.peers:
            known = remembered.get(peer.id)
            if peer.id not in reachable and peer.slots and (not known or known.config_epoch < peer.config_epoch):
                remembered[peer.id] = peer
    for peer in sorted(remembered.values(), key=lambda peer: (-peer.config_epoch, peer.id)):
        if slots := subtract(peer.slots, taken):
            declared = declared_at(topology, peer.address, peer.port)
            shards.append(_Shard(peer.id, declared.name if declared else f"{peer.address}:{peer.port}", slots, None))
            taken = merge((*taken, *slots))
    return sorted((shard for shard in shards if shard.slots), key=lambda shard: shard.slots)


def _outcome(topology: Topology, facts: Facts, shard: _Shard, lost: frozenset[str], *, majority: bool) -> Outcome:
    if shard.seen and shard.name not in lost:
        return "serves" if majority else "stops"
    if not _copies(topology, facts, shard, lost):
        return "lost"
    forbidden = _says_yes(topology, "cluster-replica-no-failover") or _says_yes(topology, "cluster-slave-no-failover")
    can = majority and not forbidden and _heir(topology, facts, shard, lost)
    return "fails_over" if can else "stops"


def _survival(
    topology: Topology, facts: Facts, shard: _Shard, lost: frozenset[str], *, majority: bool
) -> ShardSurvival:
    outcome = _outcome(topology, facts, shard, lost, majority=majority)
    copies = _copies(topology, facts, shard, lost)
    stays = shard.seen if shard.seen and shard.name not in lost else None
    after = stays if stays else _heir(topology, facts, shard, lost) if outcome == "fails_over" else None
    lag = (
        max(0, shard.seen.replication_offset - after.replication_offset) if shard.seen and after and not stays else None
    )
    limit = after.max_memory_bytes if after else 0
    return ShardSurvival(
        shard=0, slots=describe(shard.slots), slot_count=count(shard.slots), master=shard.name, outcome=outcome,
        master_after=after.name if after else None,
        replicas_left=len(copies) - (after is not None and after is not stays),
        lag_bytes=lag, headroom_bytes=max(0, limit - after.used_memory_bytes) if after and limit else None,
    )  # fmt: skip


def _stopped(survival: ShardSurvival) -> ShardSurvival:
    """The same shard in a cluster that stops as a whole; a failover would still happen."""
    return msgspec.structs.replace(survival, outcome="stops")


def _copies(topology: Topology, facts: Facts, shard: _Shard, lost: frozenset[str]) -> list[NodeFacts]:
    """The replicas with the shard's data that stay, the most advanced first."""
    return [copy for copy in copies_of(topology, facts, shard.id) if copy.name not in lost]


def _heir(topology: Topology, facts: Facts, shard: _Shard, lost: frozenset[str]) -> NodeFacts | None:
    """The replica that Redis would promote. Where the master is gone already, no replica can have a link to it."""
    for copy in _copies(topology, facts, shard, lost):
        if not copy.sync_in_progress and not copy.loading and (copy.master_link_up or shard.seen is None):
            return copy
    return None


def _says_yes(topology: Topology, directive: str) -> bool:
    return any(name.lower() == directive and value.lower() == "yes" for name, value in topology.redis.directives)


def _findings(topology: Topology, facts: Facts, report: Survival) -> Iterator[Problem]:
    if report.masters_left < report.masters_needed:
        what = f"{report.masters_left} of {report.masters} masters would be left, {report.masters_needed} are needed"
        yield Problem(
            severity="critical", where=report.cluster,
            what=f"{what}: no automatic failover, and no slot is served",
            next_step="masters on three hosts and zones or more; `redisforge rebalance --roles` evens them out",
        )  # fmt: skip
    unowned = subtract(ALL_SLOTS, _known_slots(topology, facts))
    if unowned:
        yield Problem(
            severity="critical", where=report.cluster, what=f"slots {describe(unowned)} have no owner even now",
            next_step="`redisforge up` says what is wrong with them",
        )  # fmt: skip
    if report.endpoints_lost:
        yield Problem(
            severity="critical", where=report.cluster, what=f"no Envoy would serve {', '.join(report.endpoints_lost)}",
            next_step="run Envoy on more hosts, or reach the cluster by other endpoints",
        )  # fmt: skip
    for name in report.already_lost:
        yield Problem(
            severity="warning", where=name, what="does not answer now, and counts as lost",
            next_step="`redisforge status` says why",
        )  # fmt: skip
    for shard in report.shards:
        yield from _shard_findings(topology, facts, shard, has_majority=report.masters_left >= report.masters_needed)


def _known_slots(topology: Topology, facts: Facts) -> tuple[SlotRange, ...]:
    return merge(r for shard in _shards(topology, facts) for r in shard.slots)


def _shard_findings(topology: Topology, facts: Facts, shard: ShardSurvival, *, has_majority: bool) -> Iterator[Problem]:
    where = f"shard {shard.shard}"
    if shard.outcome == "lost":
        what = f"slots {shard.slots} would be lost: {shard.master} goes and no copy stays"
        yield Problem(severity="critical", where=where, what=what, next_step=_ELSEWHERE)
        return
    if shard.outcome == "stops":
        if has_majority:
            what = f"slots {shard.slots} would not be served: no replica takes over by itself"
            next_step = "wait until a replica is in sync; `redisforge status` names those that are not"
            if _says_yes(topology, "cluster-require-full-coverage"):
                next_step = "cluster-require-full-coverage stops everything while one slot has no master"
            yield Problem(severity="critical", where=where, what=what, next_step=next_step)
        return
    if not shard.replicas_left and topology.replicas:
        what = f"{shard.master_after} would serve it alone, with no replica"
        yield Problem(severity="warning", where=where, what=what, next_step="`redisforge up` attaches what comes back")
    if shard.lag_bytes and shard.lag_bytes > _LAG_WARNING_BYTES:
        what = f"{shard.master_after} is {shard.lag_bytes // 2**20} MB behind: these writes would be lost"
        yield Problem(severity="warning", where=where, what=what, next_step="is its host or the network overloaded?")
    after = facts.nodes.get(shard.master_after or "")
    if (
        after
        and shard.outcome == "fails_over"
        and after.used_memory_bytes > _MEMORY_WARNING_RATIO * after.max_memory_bytes > 0
    ):
        what = f"{after.name} would take over with {shard.headroom_bytes} bytes to spare"
        yield Problem(severity="warning", where=where, what=what, next_step="raise memory.max, or add shards")
