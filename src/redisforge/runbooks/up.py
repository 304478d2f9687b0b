"""`up`: raise what is declared, or heal what runs to what is declared.

    lock → programs → passwords → certificates → preflight → observe ⇄ plan, phase by phase → smoke test

Every part can be interrupted anywhere; the next `up` observes and goes on from there. A first `up` that fails
before the cluster was formed takes back what it started.
"""

from __future__ import annotations

import asyncio
import getpass
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from redisforge.errors import GateError, NotFoundError, RedisForgeError, RefusedError, SecretError, UnhealthyError
from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy
from redisforge.fleet.journal import Journal, command_line
from redisforge.model.facts import Facts, NodeFacts, UnitState
from redisforge.model.layout import ClusterLayout
from redisforge.model.report import SmokeReport
from redisforge.model.secret import Secret
from redisforge.model.steps import Plan
from redisforge.model.topology import Host, Topology
from redisforge.model.unit import Unit
from redisforge.plan.bring_up import next_phase
from redisforge.plan.predict import predict_plan
from redisforge.plan.resting import left_out_words
from redisforge.plan.starting import Wishes
from redisforge.plan.strays import strays
from redisforge.plan.upgrade import refuse_older
from redisforge.runbooks.cluster import (
    Cluster,
    cluster_layout,
    make_cluster,
    make_sites,
    record_topology,
    remove_from_hosts,
)
from redisforge.runbooks.converge import converge
from redisforge.runbooks.holding import Held, holding
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.preflight import (
    check_addresses,
    check_certificate_names,
    check_cluster_folder,
    check_configuration,
    check_space,
    refuse_fewer_nodes,
    was_raised,
)
from redisforge.runbooks.preflight_hosts import check_other_hosts
from redisforge.runbooks.preflight_ports import check_ports
from redisforge.runbooks.run import Account, Progress, Runner
from redisforge.runbooks.shared_record import share_record
from redisforge.runbooks.smoke import SmokeTest
from redisforge.runbooks.test_cluster import cluster_doors
from redisforge.runbooks.units import Programs, build_units, certificate_names


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator asked for."""

    topology: Topology
    passwords: Mapping[str, Secret] = {}
    accepted_losses: frozenset[str] = frozenset()


class Raised(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` did. `phases` are (title, seconds); empty when nothing had to change."""

    cluster: Cluster
    programs: Programs
    phases: tuple[tuple[str, float], ...]
    smoke: SmokeReport
    seconds: float


class _Site(msgspec.Struct, frozen=True):
    """Where `up` works. `fresh`: no Unit of this cluster has ever been placed, so there can be no data. The engine's
    version in full is that which nodes are started with."""

    cluster: Cluster
    fresh: bool
    engine_version: str
    held: Held


def up(wanted: Wanted, home: Path, environment: Mapping[str, str], progress: Progress) -> Raised:
    """Bring the cluster to its declared state and test it.

    Raises:
        RedisForgeError: of the kind that says what went wrong (errors.py); what was already running still runs.
    """
    began = time.monotonic()
    layout = cluster_layout(home, wanted.topology.name)
    _check_names(wanted)
    existed, fresh = Path(layout.folder).exists(), not was_raised(layout)
    with holding(wanted.topology, layout, "up", progress, supplied=wanted.passwords) as held:
        try:
            cluster, units, programs = _prepare(wanted, layout, environment, progress)
            journal = Journal(Path(layout.journal), verb="up", user=getpass.getuser())
            journal.write("begin", what=wanted.topology.name)
            try:
                phases, smoke = asyncio.run(
                    _converge(_Site(cluster, fresh, programs.engine.version, held), units, wanted, journal, progress)
                )
            except BaseException as error:
                journal.write_end(error, what=wanted.topology.name, seconds=time.monotonic() - began)
                raise
        except BaseException:
            if not existed and not was_raised(layout):
                _take_back_folder(layout)
            raise
        seconds = time.monotonic() - began
        journal.write(
            "end",
            what=wanted.topology.name,
            result="ok" if smoke.passed else "smoke test failed",
            seconds=seconds,
        )
    if not smoke.passed:
        failed = [f"{check.name}: {check.detail}" for check in smoke.checks if not check.passed]
        raise UnhealthyError(
            "the cluster is up, but its smoke test failed",
            where=wanted.topology.name,
            why="\n".join(failed),
            next_step="`redisforge test-cluster` runs it again, `redisforge status` shows the state",
        )
    return Raised(cluster=cluster, programs=programs, phases=phases, smoke=smoke, seconds=seconds)


def plan_only(wanted: Wanted, home: Path, environment: Mapping[str, str], progress: Progress) -> Plan:
    """`up --dry-run`: the plan that `up` would carry out now. Nothing is started, written or kept.

    Raises:
        RedisForgeError: as `up`.
    """
    layout = cluster_layout(home, wanted.topology.name)
    _check_names(wanted)
    _refuse_other_passwords(wanted, layout)
    if not Path(layout.topology).exists():
        nodes = {
            node.name: NodeFacts(name=node.name, address=node.address, port=node.port, problem="does not run")
            for node in wanted.topology.nodes
        }
        facts = Facts(observed_at_s=time.time(), nodes=nodes)
        check_ports(wanted.topology, layout, facts)
        asyncio.run(check_other_hosts(wanted.topology, make_sites(wanted.topology, layout), facts))
        names = [unit.name for unit in (*wanted.topology.nodes, *wanted.topology.envoys)]
        return predict_plan(wanted.topology, facts, Wishes(dict.fromkeys(names, "new")))
    from redisforge.security.secrets import resolve_credentials

    refuse_fewer_nodes(wanted.topology, layout)
    programs = _programs(wanted.topology, environment, progress)
    credentials, _ = resolve_credentials(wanted.topology, wanted.passwords, layout, store=False)
    cluster = make_cluster(wanted.topology, layout, credentials)
    units = build_units(wanted.topology, layout, credentials, programs)

    async def look() -> Facts:
        async with Observer(cluster, with_listing=True) as observer:
            facts = await observer.look(fresh_units=True)
        _tell_strays(facts, progress)
        check_addresses(cluster, facts)
        refuse_older(wanted.topology, facts, programs.engine.version)
        check_ports(wanted.topology, layout, facts, units)
        await check_other_hosts(wanted.topology, cluster.sites, facts, units)
        return facts

    facts = asyncio.run(look())
    for line in left_out_words(wanted.topology, facts):
        progress(line)
    return predict_plan(wanted.topology, facts, _wishes(wanted, units))


def _prepare(
    wanted: Wanted, layout: ClusterLayout, environment: Mapping[str, str], progress: Progress
) -> tuple[Cluster, dict[str, Unit], Programs]:
    """Programs, passwords, certificates and configuration: everything before the first process."""
    from redisforge.security.certificates import ensure_certificates
    from redisforge.security.secrets import resolve_credentials

    topology = wanted.topology
    check_cluster_folder(layout)
    _refuse_other_passwords(wanted, layout)
    refuse_fewer_nodes(topology, layout)
    check_space(layout, topology)
    check_certificate_names(topology)
    with ThreadPoolExecutor(1) as aside:  # looking for programs is waiting for them: make certificates meanwhile
        finding = aside.submit(_programs, topology, environment, progress)
        credentials, _ = resolve_credentials(topology, wanted.passwords, layout, on_notice=progress)
        made = ensure_certificates(layout, certificate_names(topology), topology.tls, datetime.now(UTC))
        programs = finding.result()
    if made:
        progress(f"certificates: {len(made)} files made in {layout.tls}")
    units = build_units(topology, layout, credentials, programs)
    check_configuration(topology, programs.engine, units)
    return make_cluster(topology, layout, credentials), units, programs


def _check_names(wanted: Wanted) -> None:
    """--accept-data-loss names declared nodes. Raises NotFoundError."""
    names = [node.name for node in wanted.topology.nodes]
    unknown = sorted(wanted.accepted_losses.difference(names))
    if unknown:
        raise NotFoundError(
            f"no node called {', '.join(unknown)}",
            where=wanted.topology.name,
            next_step=f"the nodes are: {', '.join(names)}",
        )


def _refuse_other_passwords(wanted: Wanted, layout: ClusterLayout) -> None:
    """The supplied passwords are those of the cluster, once it has been raised. Raises SecretError."""
    from redisforge.security.secrets import changed_users

    if was_raised(layout) and (changed := changed_users(wanted.topology, wanted.passwords, layout)):
        raise SecretError(
            "a password is not the one that the running cluster uses",
            where=", ".join(changed),
            why="changing the passwords of a running cluster is a rotation; `up` does not do that",
            next_step=f"give the password that is stored in {layout.secrets}, or give none",
        )


def _programs(topology: Topology, environment: Mapping[str, str], progress: Progress) -> Programs:
    cache = cache_folder(environment)
    with ThreadPoolExecutor(1) as aside:
        envoy = aside.submit(ensure_envoy, topology.envoy.version, topology.envoy.path, cache, progress, environment)
        engine = ensure_engine(topology.engine, cache, progress, environment)
        return Programs(engine, envoy.result())


def _wishes(wanted: Wanted, units: Mapping[str, Unit]) -> Wishes:
    return Wishes(
        {name: unit.config_hash for name, unit in units.items()},
        wanted.accepted_losses,
        {name: unit.placed_hash for name, unit in units.items()},
    )


async def _converge(
    site: _Site, units: Mapping[str, Unit], wanted: Wanted, journal: Journal, progress: Progress
) -> tuple[tuple[tuple[str, float], ...], SmokeReport]:
    cluster = site.cluster
    async with Observer(cluster, with_listing=True) as observer:
        facts = await observer.look(fresh_units=True)
        _refuse_others_units(site, facts)  # before their ports are taken for a stranger's
        _tell_strays(facts, progress)
        check_addresses(cluster, facts)
        refuse_older(cluster.topology, facts, site.engine_version)
        check_ports(cluster.topology, cluster.layout, facts, units)
        await check_other_hosts(cluster.topology, cluster.sites, facts, units)
        if any(unit.state is not UnitState.ABSENT for unit in facts.units.values()):
            await _tell_keepers(cluster, units, journal, progress)
        runner = Runner(cluster, observer, units, Account(journal, progress, command_line("redisforge up")))
        try:
            wishes, shared = _wishes(wanted, units), dict[str, int]()

            # Before the first process starts: `down` must find what a killed `up` left.
            async def safe_point() -> None:
                site.held.check()
                record_topology(cluster)
                await share_record(cluster, shared)

            phases, seen = await converge(
                runner, lambda seen: next_phase(cluster.topology, seen, wishes), facts, safe_point
            )
            for line in left_out_words(cluster.topology, seen):
                progress(line)
            record_topology(cluster)
            await share_record(cluster, shared)
        except RedisForgeError as error:
            if site.fresh and not facts.units and not runner.gave_slots and not isinstance(error, GateError):
                await _take_back(cluster, runner.started, progress)
            raise
        smoke = await SmokeTest(cluster_doors(cluster), secrets.token_hex(4)).run(cluster.topology.name)
    return phases, smoke


def _refuse_others_units(site: _Site, facts: Facts) -> None:
    """Units that were placed by somebody else, of whose passwords and CA nothing is known here. Raises RefusedError."""
    nothing = (UnitState.ABSENT, UnitState.UNKNOWN)
    found = sorted(name for name, unit in facts.units.items() if unit.state not in nothing)
    if site.fresh and found:
        hosts = {name: site.cluster.sites[h.name].layout.folder for name, h in _hosts_of(site.cluster).items()}
        raise RefusedError(
            "there are processes or data of a cluster of this name already, and this machine has no record of it",
            where=site.cluster.topology.name,
            why="\n".join(f"{name} in {hosts[name]}" for name in found if name in hosts) or ", ".join(found),
            next_step="if it is to live on, bring its secrets from the machine that raised it (`redisforge access "
            "export` there, `import` here); give this cluster another name; or delete these folders on the hosts",
        )


def _tell_strays(facts: Facts, progress: Progress) -> None:
    """They are left alone; but they may hold the ports of what is to start."""
    for stray in strays(facts):
        progress(f"{stray.where} {stray.what}; {stray.next_step}")


def _hosts_of(cluster: Cluster) -> dict[str, Host]:
    units = (*cluster.topology.own_nodes, *cluster.topology.envoys)
    return {unit.name: cluster.topology.host(unit.host) for unit in units}


async def _tell_keepers(cluster: Cluster, units: Mapping[str, Unit], journal: Journal, progress: Progress) -> None:
    """A changed `handoff` needs no restart: only keepers read it, each time anew."""
    if changed := await cluster.runtime.tell_keepers(list(units.values())):
        setting = "on" if cluster.topology.handoff.enabled else "off"
        journal.write("step", what=f"hand-off {setting}: {', '.join(changed)}", result="ok")
        progress(f"hand-off {setting}, as declared now: {', '.join(changed)}")


async def _take_back(cluster: Cluster, started: set[str], progress: Progress) -> None:
    """After a first `up` that failed before any slot was given out: stop and delete what it started."""
    progress("taking back what was started …")
    await cluster.runtime.stop(sorted(started))
    await cluster.runtime.remove(sorted(started))
    await remove_from_hosts(cluster)
    _take_back_folder(cluster.layout)


def _take_back_folder(layout: ClusterLayout) -> None:
    """Delete the folder of a cluster that never came to be."""
    import shutil

    shutil.rmtree(layout.folder, ignore_errors=True)
