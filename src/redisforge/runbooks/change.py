"""What all verbs that change a running cluster share: lock, programs, journal, the loop, the probe, the report.

A verb is a pure planner. It is made from the first facts (that is when names are looked up and bad input is refused)
and then asked again and again; so a verb that was cut off is repeated with the same words and goes on.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy
from redisforge.fleet.journal import Journal
from redisforge.fleet.lock import cluster_lock
from redisforge.model.facts import Facts
from redisforge.model.report import ChangeReport, ProbeReport
from redisforge.model.steps import Plan
from redisforge.model.topology import Topology
from redisforge.model.unit import Unit
from redisforge.plan.predict import Planner, predict
from redisforge.plan.starting import Wishes
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.control import Control
from redisforge.runbooks.converge import converge
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.run import Progress, Runner
from redisforge.runbooks.units import Programs, build_units

if TYPE_CHECKING:
    from redisforge.runbooks.client_probe import ClientProbe


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """A change: its name, what it is asked to do (for the journal), and how the facts become its planner.

    `needs_units`: it starts or restarts Units, so their files and programs are prepared.
    """

    name: str
    what: str
    planner: Callable[[Topology, Facts], Planner]
    needs_units: bool = False


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """`probe`: watch what clients see. `abort_over_ms`: stop at the next safe point when that is worse."""

    probe: bool = False
    abort_over_ms: int | None = None


def change(cluster: Cluster, verb: Verb, allowance: Allowance, progress: Progress) -> ChangeReport:
    """Carry out `verb` under the cluster's lock.

    Raises:
        RedisForgeError: of the kind that says what went wrong; the same command goes on from there.
    """
    began = time.monotonic()
    with cluster_lock(Path(cluster.layout.lock), verb.name):
        journal = Journal(Path(cluster.layout.journal), verb=verb.name, user=getpass.getuser())
        journal.write("begin", what=verb.what)
        try:
            report = asyncio.run(_carry_out(cluster, verb, allowance, journal, progress))
        except BaseException as error:
            journal.write_end(error, what=verb.what, seconds=time.monotonic() - began)
            raise
        seconds = time.monotonic() - began
        journal.write_end(what=verb.what, seconds=seconds)
    return msgspec.structs.replace(report, seconds=round(seconds, 3))


def plan_change(cluster: Cluster, verb: Verb) -> Plan:
    """`--dry-run`: the plan that `change` would carry out now. Nothing is changed. Raises as `change`."""

    async def look() -> Facts:
        async with Observer(cluster, with_listing=True) as observer:
            return await observer.look(fresh_units=True, always_probe=True)

    facts = asyncio.run(look())
    planner = verb.planner(cluster.topology, facts)
    return predict(cluster.topology, facts, Wishes(), planner)


async def _carry_out(
    cluster: Cluster, verb: Verb, allowance: Allowance, journal: Journal, progress: Progress
) -> ChangeReport:
    units = prepared_units(cluster, os.environ, progress) if verb.needs_units else {}
    async with Observer(cluster, with_listing=True) as observer:
        facts = await observer.look(fresh_units=True)
        planner = verb.planner(cluster.topology, facts)
        runner = Runner(cluster, observer, units, journal, progress)
        async with _Watch(cluster, allowance, journal, progress) as watch:
            control = Control(progress, watch.check)
            with control.listening():
                phases, _ = await converge(runner, planner, facts, control.safe_point)
    return ChangeReport(
        verb=verb.name, cluster=cluster.topology.name, what=verb.what, phases=phases, probe=watch.report
    )


class _Watch:
    """The probe of a verb, if it is wanted; however the verb ends, what clients noticed is told and kept."""

    def __init__(self, cluster: Cluster, allowance: Allowance, journal: Journal, progress: Progress) -> None:
        self._limit_ms = allowance.abort_over_ms
        self._journal = journal
        self._progress = progress
        self._probe: ClientProbe | None = None
        if allowance.probe or allowance.abort_over_ms is not None:
            from redisforge.runbooks.client_probe import ClientProbe

            self._probe = ClientProbe(cluster)
        self.report: ProbeReport | None = None

    def check(self) -> None:
        """For safe points. Raises AbortedError."""
        if self._probe and self._limit_ms is not None:
            self._probe.check_budget(self._limit_ms)

    async def __aenter__(self) -> _Watch:
        if self._probe:
            await self._probe.__aenter__()
        return self

    async def __aexit__(self, *ended: Any) -> None:
        if self._probe is None:
            return
        try:
            self.report = await self._probe.finish()
            self._journal.write("probe", what=str(self.report), result="ok", seconds=self.report.seconds)
            if ended[0]:  # else the verb's report says it
                self._progress(str(self.report))
        finally:
            await self._probe.__aexit__(*ended)


def prepared_units(cluster: Cluster, environment: Mapping[str, str], progress: Progress) -> dict[str, Unit]:
    """The Units of a cluster with the programs that they run with. Raises BinaryError, ConfigError."""
    topology, cache = cluster.topology, cache_folder(environment)
    engine = ensure_engine(topology.engine, cache, progress, environment)
    envoy = ensure_envoy(topology.envoy.version, topology.envoy.path, cache, progress, environment)
    return build_units(topology, cluster.layout, cluster.credentials, Programs(engine, envoy))
