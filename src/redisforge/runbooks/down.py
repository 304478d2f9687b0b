"""`down`: stop everything in a safe order and keep the data; with `purge`, delete what `up` made."""

from __future__ import annotations

import asyncio
import getpass
import shutil
import time
from pathlib import Path

import msgspec

from redisforge.errors import HostError, UnreachableError
from redisforge.fleet.journal import Journal
from redisforge.model.facts import Facts, UnitState
from redisforge.model.steps import Gate, Phase, Plan, StopUnit
from redisforge.model.topology import Role, Topology
from redisforge.runbooks.cluster import Cluster, data_places, remove_from_hosts
from redisforge.runbooks.holding import holding
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.run import Progress


class Lowered(msgspec.Struct, frozen=True, kw_only=True):
    """What `down` did. `stopped` are the Units that ran; `purged` says whether the folder is gone."""

    stopped: tuple[str, ...]
    purged: bool
    seconds: float


def down(cluster: Cluster, progress: Progress, *, purge: bool = False) -> Lowered:
    """Stop Envoys first (no client sees a half-stopped cluster), then replicas, then masters.

    A master stops after its replicas, so that no failover begins on the way and every role is found again.

    Raises:
        HostError: a process cannot be stopped, or the folder cannot be deleted.
        LockedError: another operation is running.
    """
    began = time.monotonic()
    layout = cluster.layout
    with holding(cluster.topology, layout, "down --purge" if purge else "down", progress):
        journal = Journal(Path(layout.journal), verb="down", user=getpass.getuser())
        journal.write("begin", what=cluster.topology.name)
        try:
            stopped = asyncio.run(_stop_all(cluster, journal, progress))
        except BaseException as error:
            journal.write_end(error, what=cluster.topology.name, seconds=time.monotonic() - began)
            raise
        journal.write_end(what=cluster.topology.name, seconds=time.monotonic() - began)
        if purge:
            asyncio.run(remove_from_hosts(cluster))
            _purge(Path(layout.folder))
            progress(f"deleted {data_places(cluster)}")
    return Lowered(stopped=stopped, purged=purge, seconds=time.monotonic() - began)


def plan_down(cluster: Cluster) -> Plan:
    """`down --dry-run`: the phases that `down` would go through now."""
    return _plan(cluster.topology, asyncio.run(_look(cluster)))


async def _look(cluster: Cluster) -> Facts:
    async with Observer(cluster, timeout_s=1.0) as observer:
        return await observer.look(fresh_units=True)


def _plan(topology: Topology, facts: Facts) -> Plan:
    idle = (UnitState.STOPPED, UnitState.ABSENT, UnitState.UNKNOWN)
    running = {name for name, unit in facts.units.items() if unit.state not in idle}
    if topology.access:
        running.clear()  # somebody else's processes go on
    envoys = {envoy.name for envoy in topology.envoys}
    masters = {node.name for node in facts.reachable_nodes() if node.role is Role.MASTER}
    waves = (
        ("stop the Envoys", running & envoys, "clients are turned away first"),
        ("stop the replicas", running - envoys - masters, "before masters, so that no failover begins"),
        ("stop the masters", running & masters, "last"),
    )
    return Plan(
        tuple(
            Phase(
                title=title,
                steps=tuple(StopUnit(unit=name, why=why) for name in sorted(names)),
                gate=Gate("stopped", 60.0),
            )
            for title, names, why in waves
            if names
        )
    )


async def _stop_all(cluster: Cluster, journal: Journal, progress: Progress) -> tuple[str, ...]:
    stopped: list[str] = []
    for phase in _plan(cluster.topology, await _look(cluster)).phases:
        names = [step.unit for step in phase.steps if isinstance(step, StopUnit)]
        began = time.monotonic()
        await cluster.runtime.stop(names)
        seconds = time.monotonic() - began
        journal.write("phase", what=f"{phase.title}: {', '.join(names)}", result="ok", seconds=seconds)
        progress(f"{phase.title} ({', '.join(names)}): {seconds:.2f} s")
        stopped.extend(names)
    left = {} if cluster.topology.access else await cluster.runtime.observe()
    unknown = [f"{unit.name}: {unit.reason}" for unit in left.values() if unit.state is UnitState.UNKNOWN]
    if unknown:
        raise UnreachableError(
            "some hosts cannot be reached",
            where=cluster.topology.name,
            why="\n".join(unknown),
            next_step="everything else is stopped; bring the hosts back and run `redisforge down` again",
        )
    alive = [f"{unit.name} (process {unit.pid})" for unit in left.values() if unit.pid or unit.keeper_pid]
    if alive:
        raise HostError(
            "some processes did not end",
            where=cluster.topology.name,
            why=", ".join(alive),
            next_step="run `redisforge down` again; `redisforge logs` says what they do",
        )
    return tuple(stopped)


def _purge(folder: Path) -> None:
    """The record goes first: a purge that is cut off leaves no cluster that still looks whole."""
    try:
        folder.joinpath("topology.json").unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise HostError(
            "the cluster's folder cannot be deleted",
            where=error.filename or str(folder),
            why=str(error.strerror),
        ) from error
