"""`status`: one look at everything, and what is wrong in words."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Literal

import msgspec

from redisforge.fleet.lock import LockState, lock_state
from redisforge.model.facts import Facts, NodeFacts, UnitState
from redisforge.model.report import (
    ClusterReport,
    EndpointReport,
    NodeReport,
    Problem,
    StatusReport,
    running,
)
from redisforge.model.slots import count, describe
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.plan.diagnose import diagnose
from redisforge.plan.view import actual_shards, served_slots
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.shared_record import as_changed, changed_elsewhere

_TIMEOUT_S = 1.5


def status(cluster: Cluster) -> StatusReport:
    """Observe once and report. Never fails for something that does not run: that is a problem in the report."""

    async def look(cluster: Cluster) -> Facts:
        async with Observer(cluster, timeout_s=_TIMEOUT_S) as observer:
            return await observer.look(fresh_units=True, always_probe=True)

    async def look_at_what_is_there() -> tuple[Topology, Facts, str]:
        facts, record = await asyncio.gather(look(cluster), changed_elsewhere(cluster))
        if record is None:
            return cluster.topology, facts, ""
        there = as_changed(cluster, record)
        return there.topology, await look(there), record.by

    topology, facts, by = asyncio.run(look_at_what_is_there())
    return report(topology, facts, unfinished=cut_off(lock_state(Path(cluster.layout.lock))), changed_by=by)


def cut_off(lock: LockState) -> str:
    """What did not come to its end: whoever held the lock last ended without giving it back. "" if nothing."""
    if lock.held or lock.holder is None:
        return ""
    return f"{running(lock.holder.verb, lock.holder.command)} of {lock.holder.user}"


def report(topology: Topology, facts: Facts, *, unfinished: str = "", changed_by: str = "") -> StatusReport:
    """The facts as a report; `unfinished`: see `cut_off`; `changed_by`: see ClusterReport."""
    problems = tuple(_with_name(problem, topology.name) for problem in diagnose(topology, facts))
    shards = actual_shards(topology, facts)
    nodes = [_node(node, facts, shards[node.name]) for node in topology.nodes]
    nodes.sort(key=lambda node: (node.shard, node.role != "master", node.name))
    versions = sorted({node.version for node in facts.reachable_nodes() if node.version})
    envoys = sorted({envoy.version for envoy in facts.envoys.values() if envoy.version})
    return StatusReport(
        cluster=ClusterReport(
            name=topology.name,
            state=_state(topology, facts, problems),
            slots_ok=count(served_slots(facts)),
            engine=f"{topology.engine.kind} {', '.join(versions) or '-'}",
            envoy=", ".join(envoys) or "-",
            maintenance=topology.maintenance,
            changed_by=changed_by,
            cut_off=unfinished,
        ),
        nodes=tuple(nodes),
        endpoints=tuple(
            EndpointReport(
                name=endpoint.name,
                envoy=endpoint.envoy,
                host=endpoint.address,
                port=endpoint.port,
                protocol=endpoint.protocol,
                user=endpoint.user,
                state=endpoint.problem or "ok",
            )
            for endpoint in facts.endpoints
        ),
        problems=problems,
    )


def _with_name(problem: Problem, name: str) -> Problem:
    """The advice as it works from any folder: the command with the cluster's name."""
    advice = re.sub(
        r"`redisforge (up|logs|rebalance|scale|upgrade|host maintenance exit|host replace)\b",
        rf"`redisforge \1 -c {name}",
        problem.next_step,
    )
    return msgspec.structs.replace(problem, next_step=advice)


def _state(
    topology: Topology, facts: Facts, problems: tuple[Problem, ...]
) -> Literal["ok", "degraded", "fail", "stopped"]:
    running = [name for name, unit in facts.units.items() if unit.pid and name in topology.unit_names]
    if not running and not facts.reachable_nodes():
        return "stopped"
    no_door = bool(facts.endpoints) and all(endpoint.problem for endpoint in facts.endpoints)
    if count(served_slots(facts)) < 16384 or no_door:
        return "fail"
    return "degraded" if problems else "ok"


def _node(node: RedisNode, facts: Facts, shard: int) -> NodeReport:
    seen = facts.nodes[node.name]
    unit = facts.units.get(node.name)
    role: Literal["master", "replica", "unknown"] = "unknown"
    if seen.reachable:
        role = "master" if seen.role is Role.MASTER else "replica"
    alive = seen.reachable
    return NodeReport(
        id=seen.id,
        name=node.name,
        host=node.host,
        address=node.address,
        port=node.port,
        zone=node.zone,
        role=role,
        shard=shard + 1,
        slots=describe(seen.slots) if alive else "",
        slot_count=count(seen.slots),
        pid=(unit.pid if unit and unit.pid else seen.pid) or None,
        version=seen.version,
        keys=seen.keys if alive else None,
        used_memory_bytes=seen.used_memory_bytes if alive else None,
        max_memory_bytes=seen.max_memory_bytes if alive else None,
        lag_bytes=_lag(seen, facts),
        restart_count=unit.restart_count if unit else 0,
        state=_node_state(seen, unit.state if unit else UnitState.ABSENT if node.managed else UnitState.RUNNING),
    )


def _lag(seen: NodeFacts, facts: Facts) -> int | None:
    """How far a replica is behind; both offsets are read within milliseconds, so small values are noise."""
    if not seen.reachable or seen.role is Role.MASTER:
        return None
    master = facts.node_by_id(seen.master_id)
    return max(0, master.replication_offset - seen.replication_offset) if master else None


def _node_state(seen: NodeFacts, unit: UnitState) -> str:
    if not seen.reachable:
        return "loading" if seen.loading else (unit.value if unit is not UnitState.RUNNING else "silent")
    if seen.role is Role.REPLICA and not seen.master_link_up:
        return "syncing" if seen.sync_in_progress else "no link"
    if seen.role is Role.MASTER and not seen.slots:
        return "no slots"
    return "ok" if seen.cluster_state == "ok" else f"cluster {seen.cluster_state}"
