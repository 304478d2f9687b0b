"""What is wrong, in words: from topology and facts to Problems, each with the next step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec.structs import replace

from redisforge.model.facts import CHANGED_BY_HAND, Facts, NodeFacts, UnitFacts, UnitState
from redisforge.model.report import Problem
from redisforge.model.slots import SlotRange, count, describe, merge, subtract
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.plan.gates import agreed, stale_envoys
from redisforge.plan.log_place import log_place
from redisforge.plan.open_slots import find_open
from redisforge.plan.resting import left_out, take_off
from redisforge.plan.roles import crowded
from redisforge.plan.strays import strays
from redisforge.plan.upgrade import series
from redisforge.plan.view import ALL_SLOTS, claimed_slots, hanging, in_container, replicas_of, served_slots

_MEMORY_WARNING_RATIO = 0.9
_LAG_WARNING_BYTES = 64 * 1024 * 1024


def diagnose(topology: Topology, facts: Facts) -> tuple[Problem, ...]:
    """Every problem, the critical ones first."""
    declared = topology.unit_names
    if not facts.reachable_nodes() and not any(unit.pid for name, unit in facts.units.items() if name in declared):
        what, next_step = "nothing of this cluster runs", "`redisforge up` starts it"
        if topology.access:
            what, next_step = "none of its nodes answers", "see the logs of what runs them, and start them by that"
        return (Problem(severity="critical", where=topology.name, what=what, next_step=next_step),)
    problems = (
        *_slots(topology, facts),
        *(_as_expected(topology, problem) for problem in _units(topology, facts)),
        *_left_out(topology, facts),
        *_nodes(topology, facts),
        *_unread(topology, facts),
        *_versions(topology, facts),
        *_shards(topology, facts),
        *crowded(topology, facts),
        *_endpoints(topology, facts),
        *strays(facts),
    )
    return tuple(sorted(problems, key=lambda problem: problem.severity != "critical"))


def outages(topology: Topology, facts: Facts) -> tuple[str, ...]:
    """What may be the cause of whatever does not come to be: hosts that cannot be reached, and slots of an owner that
    nobody serves."""
    away: dict[str, list[str]] = {}
    for name, unit in facts.units.items():
        if unit.state is UnitState.UNKNOWN:
            away.setdefault(_host_of(topology, name), []).append(name)
    told = [f"{host} cannot be reached ({', '.join(sorted(names))})" for host, names in sorted(away.items())]
    if missing := subtract(claimed_slots(facts), served_slots(facts)):
        told.append(f"{count(missing)} slots are not served: {describe(missing)}")
    return tuple(told)


def _slots(topology: Topology, facts: Facts) -> Iterator[Problem]:
    missing = subtract(ALL_SLOTS, served_slots(facts))
    if missing:
        hung = ", ".join(hanging(facts))
        yield Problem(
            severity="critical",
            where=topology.name,
            what=f"{count(missing)} slots are not served: {describe(missing)}",
            next_step=f"see {hung}" if hung else _start_advice(topology),
        )
        return
    opened = [slot.slot for slot in find_open(facts.reachable_nodes()) if slot.migrating or slot.importing]
    if opened:
        slots = merge(SlotRange(slot, slot) for slot in opened)
        yield Problem(
            severity="warning",
            where=topology.name,
            what=f"slots are open: {describe(slots)}: a move runs, or one was cut off",
            next_step="if no verb runs, repeat the one that was cut off, or `redisforge rebalance`: both close them "
            "first, and lose nothing",
        )
        return
    reasons = list(agreed(topology, facts))
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        yield Problem(
            severity="warning",
            where=topology.name,
            what=f"the nodes do not agree: {reasons[0]}{more}",
            next_step="this is normal for some seconds after a failover; if it stays, `redisforge up` heals it",
        )


def _start_advice(topology: Topology) -> str:
    if topology.access:
        return "start what does not run by what runs the nodes"
    return "`redisforge up` starts what does not run"


def _units(topology: Topology, facts: Facts) -> Iterator[Problem]:
    out = left_out(topology, facts)
    for name in (*(n.name for n in topology.own_nodes if n.name not in out), *(e.name for e in topology.envoys)):
        unit = facts.units.get(name)
        state = unit.state if unit else UnitState.ABSENT
        if unit and state is UnitState.HELD:
            yield Problem(
                severity="critical", where=name, what=f"held back: {unit.reason}",
                next_step="nothing, if a replica takes over; else `redisforge up`",
            )  # fmt: skip
        elif unit and state is UnitState.BACKOFF:
            yield Problem(
                severity="critical", where=name, what=f"does not stay up ({unit.last_exit})",
                next_step=f"`redisforge logs {name}` says why",
            )  # fmt: skip
        elif state is UnitState.ORPHANED:
            yield Problem(
                severity="warning", where=name, what="runs without its keeper: nothing would restart it",
                next_step="`redisforge up` gives it a keeper again",
            )  # fmt: skip
        elif unit and state is UnitState.UNKNOWN:
            yield Problem(
                severity="critical", where=name, what=f"its host cannot be reached: {unit.reason}",
                next_step=f"{unit.cure or 'bring the host back, or the way to it'} "
                f"(if it is lost: `redisforge host replace {_host_of(topology, name)} NEW`)",
            )  # fmt: skip
        elif unit and unit.config_hash == CHANGED_BY_HAND:
            yield Problem(
                severity="warning", where=name, what="its container was changed by hand, or is not as declared now",
                next_step="`redisforge up` makes it anew, one node at a time",
            )  # fmt: skip
        elif state in (UnitState.STOPPED, UnitState.ABSENT):
            yield Problem(severity="critical", where=name, what="does not run", next_step="`redisforge up` starts it")


def _left_out(topology: Topology, facts: Facts) -> Iterator[Problem]:
    for name in sorted(left_out(topology, facts)):
        yield Problem(
            severity="warning", where=name, what="is not there any more, and nobody in the cluster knows it",
            next_step=take_off(_host_of(topology, name)),
        )  # fmt: skip


def _as_expected(topology: Topology, problem: Problem) -> Problem:
    """What is wrong on a host in maintenance is most likely what the maintenance is for."""
    if problem.where not in topology.resting:
        return problem
    host = next(unit.host for unit in (*topology.nodes, *topology.envoys) if unit.name == problem.where)
    return replace(
        problem, severity="warning",
        next_step=f"its host {host} is in maintenance; when that is over, `redisforge up`, then `redisforge host "
        f"maintenance exit {host}`",
    )  # fmt: skip


def _nodes(topology: Topology, facts: Facts) -> Iterator[Problem]:
    for node in topology.nodes:
        seen, unit = facts.nodes[node.name], facts.units.get(node.name)
        if not seen.reachable:
            if unit is None or unit.state in (UnitState.RUNNING, UnitState.ORPHANED):
                yield _silent(node, seen, unit, contained=in_container(topology, node.name))
            continue
        if seen.role is Role.MASTER and not seen.slots:
            yield Problem(
                severity="warning", where=node.name, what="is a master without slots: it serves and protects nothing",
                next_step="`redisforge up` makes it a replica",
            )  # fmt: skip
        if seen.role is Role.REPLICA and not seen.master_link_up:
            what = "is copying its master's data" if seen.sync_in_progress else "has lost its link to its master"
            yield Problem(severity="warning", where=node.name, what=what, next_step=log_place(node))
        if not seen.aof_ok:
            yield Problem(
                severity="critical", where=node.name, what="cannot write its data to disk",
                next_step="is the disk full? `df -h`; the node refuses writes until it can save again",
            )  # fmt: skip
        if seen.max_memory_bytes and seen.used_memory_bytes > _MEMORY_WARNING_RATIO * seen.max_memory_bytes:
            percent = 100 * seen.used_memory_bytes // seen.max_memory_bytes
            yield Problem(
                severity="warning", where=node.name, what=f"uses {percent} % of its memory limit",
                next_step="raise memory.max, or add shards",
            )  # fmt: skip


def _unread(topology: Topology, facts: Facts) -> Iterator[Problem]:
    """Nodes that a verb has taken out of the reader endpoints and not put back. Who is out of sync has a Problem of its
    own; who stands on a host in maintenance is meant to rest."""
    for node in facts.reachable_nodes():
        if node.refuses_reads and (node.master_link_up or node.slots) and node.name not in topology.resting:
            yield Problem(
                severity="warning", where=node.name,
                what="gets no reads from the reader endpoints: a verb took it out, and is not done or was cut off",
                next_step="if no verb runs, `redisforge up` gives the reads back",
            )  # fmt: skip


def _versions(topology: Topology, facts: Facts) -> Iterator[Problem]:
    """Nodes of several series: an older one cannot copy the data of a newer one, so that a failover back may fail."""
    counts = Counter(node.version for node in facts.reachable_nodes() if node.version)
    if len({series(version) for version in counts}) < 2:
        return
    newest = max(counts, key=lambda version: (series(version), version))
    listed = ", ".join(f"{version} ({number})" for version, number in sorted(counts.items()))
    kind = topology.engine.kind
    yield Problem(
        severity="warning", where=topology.name, what=f"its nodes are of several versions of {kind}: {listed}",
        next_step=f"if no upgrade runs, one was cut off: `redisforge upgrade --{kind} {newest}` goes on",
    )  # fmt: skip


def _silent(node: RedisNode, seen: NodeFacts, unit: UnitFacts | None, *, contained: bool) -> Problem:
    if seen.loading:
        return Problem(severity="warning", where=node.name, what="is reading its data from disk", next_step="wait")
    hung = ""
    if node.managed and unit is not None and unit.state is UnitState.RUNNING and unit.pid:
        where = "in its container on" if contained else "on its host"
        hung = f"; if it hangs, kill -9 {unit.pid} {where} {node.host}: its keeper starts it again"
    return Problem(
        severity="critical", where=node.name, what=f"does not answer at {node.address}:{node.port}: {seen.problem}",
        next_step=f"{log_place(node)}{hung}",
    )  # fmt: skip


def _host_of(topology: Topology, name: str) -> str:
    return next((unit.host for unit in (*topology.nodes, *topology.envoys) if unit.name == name), "OLD")


def _shards(topology: Topology, facts: Facts) -> Iterator[Problem]:
    is_away = any(unit.state is UnitState.UNKNOWN for unit in facts.units.values())
    for master in facts.reachable_nodes():
        if master.role is not Role.MASTER or not master.slots:
            continue
        replicas = replicas_of(facts, master.id)
        if len(replicas) < topology.replicas:
            yield Problem(
                severity="warning", where=master.name,
                what=f"has {len(replicas)} of {topology.replicas} replicas: its shard is less protected",
                next_step="they come back with their host, or with another one in its place" if is_away
                else "`redisforge up` attaches what is missing",
            )  # fmt: skip
        for replica in replicas:
            lag = master.replication_offset - replica.replication_offset
            if lag > _LAG_WARNING_BYTES:
                yield Problem(
                    severity="warning", where=replica.name, what=f"is {lag // 2**20} MB behind {master.name}",
                    next_step="is its host or the network overloaded?",
                )  # fmt: skip


def _endpoints(topology: Topology, facts: Facts) -> Iterator[Problem]:
    for endpoint in facts.endpoints:
        if endpoint.problem:
            yield Problem(
                severity="critical", where=f"{endpoint.name} at {endpoint.address}:{endpoint.port}",
                what=endpoint.problem, next_step=f"`redisforge logs {endpoint.envoy}`",
            )  # fmt: skip
    for reason in stale_envoys(topology, facts):
        yield Problem(
            severity="warning", where="Envoy", what=reason,
            next_step="Envoy refreshes its view by itself; if this stays, `redisforge logs` of that Envoy",
        )  # fmt: skip
