"""`deploy redis|envoy`: one node, or one Envoy, on the host itself, from the .env of the usual convention.

    .env → names resolved → passwords → certificates → programs → ports → image → start → answer → what to do next

What may be refused comes before the image, which takes minutes. The host knows of the others what .env says; once the
cluster is formed, it learns all members from it, and the verbs of a whole cluster work here too. A Unit that runs as
.env says is left alone, so the command can be run again.
"""

from __future__ import annotations

import asyncio
import getpass
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from redisforge.config.deployment import Deployment
from redisforge.config.load import LoadedConfig
from redisforge.errors import NodeError, UnitError
from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy
from redisforge.fleet.journal import Journal
from redisforge.fleet.lock import cluster_lock
from redisforge.model.deploy_report import DeployOutcome
from redisforge.model.facts import Facts, UnitState
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import Topology
from redisforge.model.unit import Unit
from redisforge.plan.deploying import may_be_blank, outcome_of
from redisforge.runbooks.cluster import Cluster, cluster_layout, make_cluster, record_topology
from redisforge.runbooks.deploy_image import need_image
from redisforge.runbooks.deploy_input import Wanted, need_files, on_runtime, read_input, refuse_other_passwords
from redisforge.runbooks.deployed import Names, deployed_topology, resolve_names, where_of, with_members
from redisforge.runbooks.next_steps import next_steps
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.preflight import (
    check_certificate_names,
    check_configuration,
    check_space,
    was_raised,
)
from redisforge.runbooks.preflight_ports import OTHER_PORTS_IN_ENV, check_ports
from redisforge.runbooks.run import Progress, log_tail
from redisforge.runbooks.units import Programs, build_units, certificate_names

_PAUSE_S = 0.1
_CRASHES_TO_GIVE_UP = 3


class DeployReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was done: the Unit, where it listens, and what to do next, a command or a sentence each."""

    cluster: str
    unit: str
    address: str
    port: int
    version: str
    done: DeployOutcome
    next_steps: tuple[str, ...]
    notices: tuple[str, ...]
    seconds: float


def deploy(wanted: Wanted, home: Path, environment: Mapping[str, str], progress: Progress) -> DeployReport:
    """Start the Unit, or see that it runs.

    Raises:
        ConfigError, SecretError: what .env lacks or has wrong, all of it.
        CertificateError: a file is missing, unreadable, or not for this address.
        UnitError: it does not stay up.
        NodeError: it does not answer in time.
    """
    deployment, loaded = read_input(wanted, environment)
    names = resolve_names(deployment, is_envoy=wanted.role == "envoy")
    need_files(deployment)
    layout = cluster_layout(home, deployment.name)
    existed = Path(layout.folder).exists()
    try:
        return _deploy(wanted, (deployment, loaded, names), layout, environment, progress)
    except BaseException:
        if not existed and not was_raised(layout):
            shutil.rmtree(layout.folder, ignore_errors=True)  # nothing was started: leave nothing
        raise


def _deploy(
    wanted: Wanted,
    read: tuple[Deployment, LoadedConfig, Names],
    layout: ClusterLayout,
    environment: Mapping[str, str],
    progress: Progress,
) -> DeployReport:
    deployment, loaded, names = read
    began = time.monotonic()
    with cluster_lock(Path(layout.lock), f"deploy {wanted.role}"):
        topology, name = deployed_topology(wanted.role, deployment, loaded.topology, names, layout)
        topology = on_runtime(topology, wanted.runtime)
        cluster, units, programs = _prepare(topology, loaded, layout, environment, progress)
        need_image(wanted, cluster, units[name], environment, progress)
        journal = Journal(Path(layout.journal), verb="deploy", user=getpass.getuser())
        journal.write("begin", what=name)
        try:
            done, cluster, facts = asyncio.run(_start(cluster, units[name], wanted))
        except BaseException as error:
            journal.write_end(error, what=name, seconds=time.monotonic() - began)
            raise
        journal.write_end(what=name, seconds=time.monotonic() - began)
    address, port = where_of(cluster.topology, name)
    return DeployReport(
        cluster=deployment.name, unit=name, address=address, port=port,
        version=programs.envoy.version if wanted.role == "envoy" else programs.engine.version,
        done=done, next_steps=next_steps(cluster, facts, name), notices=loaded.notices,
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


def _prepare(
    topology: Topology,
    loaded: LoadedConfig,
    layout: ClusterLayout,
    environment: Mapping[str, str],
    progress: Progress,
) -> tuple[Cluster, dict[str, Unit], Programs]:
    """Everything before the first process. Raises as `deploy`."""
    from redisforge.security.certificates import ensure_certificates
    from redisforge.security.secrets import resolve_credentials

    check_certificate_names(topology)
    refuse_other_passwords(topology, loaded, layout)
    check_space(layout, topology)
    credentials, _ = resolve_credentials(topology, loaded.passwords, layout, on_notice=progress)
    ensure_certificates(layout, certificate_names(topology), topology.tls, datetime.now(UTC))
    cache = cache_folder(environment)
    programs = Programs(
        ensure_engine(topology.engine, cache, progress, environment),
        ensure_envoy(topology.envoy.version, topology.envoy.path, cache, progress, environment),
    )
    units = build_units(topology, layout, credentials, programs)
    if topology.own_nodes:
        check_configuration(topology, programs.engine, units)
    return make_cluster(topology, layout, credentials), units, programs


async def _start(cluster: Cluster, unit: Unit, wanted: Wanted) -> tuple[DeployOutcome, Cluster, Facts]:
    """Start the Unit if it does not run as it should, wait until it answers, and record what the cluster is now."""
    async with Observer(cluster, with_listing=True) as observer:
        facts = await observer.look(fresh_units=True)
        seen = facts.units.get(unit.name)
        outcome = outcome_of(seen, unit.config_hash)
        check_ports(cluster.topology, cluster.layout, facts, {unit.name: unit}, other_ports=OTHER_PORTS_IN_ENV)
        record_topology(cluster)  # before anything starts: `status`, `logs` and `down` must find it
        if outcome == "restarted":
            await cluster.runtime.stop([unit.name])  # its keeper hands its slots over
        permitted = [unit.name] if may_be_blank(cluster.topology, facts, unit.name) else []
        await cluster.runtime.start([unit], permit_blank=permitted)
        facts = await _answered(cluster, observer, unit, wanted.wait_s)
    full, facts = await with_members(cluster, facts)
    record_topology(full)
    return outcome, full, facts


async def _answered(cluster: Cluster, observer: Observer, unit: Unit, wait_s: float) -> Facts:
    """Wait until the node answers, or the Envoy is live. Raises UnitError, NodeError."""
    deadline = time.monotonic() + wait_s
    while True:
        facts = await observer.look(fresh_units=True)
        seen = facts.units.get(unit.name)
        problem = _silence(facts, unit)
        if not problem:
            return facts
        held = seen is not None and seen.state is UnitState.HELD
        if seen is not None and (held or seen.restart_count >= _CRASHES_TO_GIVE_UP):
            raise UnitError(
                f"{unit.name} is held back" if held else f"{unit.name} does not stay up: {seen.last_exit}",
                where=cluster.runtime.log_path(unit.name),
                why=seen.reason if held else await log_tail(cluster, unit.name),
                next_step="it starts by itself once nobody expects slots of it any more"
                if held
                else "mend the cause and run the command again",
            )
        if time.monotonic() > deadline:
            raise NodeError(
                f"{unit.name} does not answer within {wait_s:g} s",
                where=", ".join(f"{address}:{port}" for address, port in unit.ports[:1]),
                why=problem,
                next_step=f"`redisforge logs {unit.name}` says what it does",
            )
        await asyncio.sleep(_PAUSE_S)


def _silence(facts: Facts, unit: Unit) -> str:
    if unit.kind == "redis":
        return facts.nodes[unit.name].problem
    envoy = facts.envoys.get(unit.name)
    return "" if envoy and envoy.version else (envoy.problem if envoy else "") or "no answer yet"
