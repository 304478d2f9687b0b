"""A cluster that somebody else runs (`external` in redisforge.yaml): healed, and what cannot be done there.

RedisForge has no Units in it. What needs one (to start, restart, configure or delete a process) is refused, with what
does the same there; everything that is a matter of the cluster itself works as with nodes of its own.
"""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from redisforge.errors import UsageError
from redisforge.fleet.journal import Journal, command_line
from redisforge.fleet.lock import cluster_lock
from redisforge.model.facts import Facts
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.steps import Plan
from redisforge.model.topology import Topology
from redisforge.model.unit import Unit
from redisforge.plan.bring_up import next_phase
from redisforge.plan.predict import predict_plan
from redisforge.plan.starting import Wishes
from redisforge.runbooks.cluster import Cluster, make_cluster, read_topology, record_topology
from redisforge.runbooks.converge import converge
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.run import Account, Progress, Runner


class Healed(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` did. `phases` are (title, seconds); empty when nothing had to change."""

    phases: tuple[tuple[str, float], ...]
    seconds: float


def heal(topology: Topology, passwords: Mapping[str, Secret], layout: ClusterLayout, progress: Progress) -> Healed:
    """`up`: record the cluster as it is declared and bring its nodes together: introduce, replicate, forget, agree.

    Raises:
        SecretError: the password is not known.
        RedisForgeError: as `up`.
    """
    from redisforge.security.secrets import resolve_credentials

    began = time.monotonic()
    with cluster_lock(Path(layout.lock), "up"):
        known = read_topology(layout).node_settings if Path(layout.topology).exists() else None
        topology = msgspec.structs.replace(topology, node_settings=known)  # `apply-config` brings them, not this
        credentials, _ = resolve_credentials(topology, passwords, layout, on_notice=progress)
        cluster = make_cluster(topology, layout, credentials)
        journal = Journal(Path(layout.journal), verb="up", user=getpass.getuser())
        journal.write("begin", what=topology.name)
        try:
            phases = asyncio.run(_converge(cluster, journal, progress))
        except BaseException as error:
            journal.write_end(error, what=topology.name, seconds=time.monotonic() - began)
            raise
        journal.write_end(what=topology.name, seconds=time.monotonic() - began)
    return Healed(phases=phases, seconds=time.monotonic() - began)


def plan_heal(topology: Topology, passwords: Mapping[str, Secret], layout: ClusterLayout) -> Plan:
    """`up --dry-run`. Raises as `heal`."""
    from redisforge.security.secrets import resolve_credentials

    credentials, _ = resolve_credentials(topology, passwords, layout, store=False)

    async def look() -> Facts:
        async with Observer(make_cluster(topology, layout, credentials), with_listing=True) as observer:
            return await observer.look()

    return predict_plan(topology, asyncio.run(look()), Wishes())


async def _converge(cluster: Cluster, journal: Journal, progress: Progress) -> tuple[tuple[str, float], ...]:
    async with Observer(cluster, with_listing=True) as observer:
        facts = await observer.look()
        runner = Runner(cluster, observer, {}, Account(journal, progress, command_line("redisforge up")))
        phases, _ = await converge(
            runner,
            lambda seen: next_phase(cluster.topology, seen, Wishes()),
            facts,
            lambda: record_topology(cluster),
        )
        record_topology(cluster)
    return phases


def refuse_without_units(topology: Topology, verb: str, instead: str) -> None:
    """A verb that starts, stops or configures processes, in a cluster whose processes are somebody else's.

    Raises:
        UsageError: with what does the same there.
    """
    if topology.access is not None:
        raise UsageError(
            f"{verb} works on processes, and those of {topology.name} are not RedisForge's",
            where=topology.source or topology.name,
            why="somebody else runs this cluster (external.nodes)",
            next_step=instead,
        )


def service_units(topology: Topology) -> dict[str, Unit]:
    """The nodes of which it is known what runs them, as Units that can be stopped and started and no more."""
    return {
        node.name: Unit(
            name=node.name, kind="redis", host=node.host, folder="", argv=(), files=(),
            ports=((node.address, node.port),),
        )
        for node in topology.nodes
        if node.service
    }  # fmt: skip
