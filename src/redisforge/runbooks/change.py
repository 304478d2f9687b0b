"""What all verbs that change a running cluster share: lock, programs, journal, the loop, the probe, the report.

A verb is a pure planner. It is made from the first facts (that is when names are looked up and bad input is refused)
and then asked again and again; so a verb that was cut off is repeated with the same words and goes on.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from redisforge.errors import AbortedError, RedisForgeError
from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy, find_engine, find_envoy
from redisforge.fleet.journal import Journal, command_line
from redisforge.model.facts import Facts
from redisforge.model.report import ChangeReport, ProbeReport
from redisforge.model.steps import Plan
from redisforge.model.topology import Topology
from redisforge.model.unit import Unit
from redisforge.plan.envoy_places import without_envoys
from redisforge.plan.predict import Planner, foresee
from redisforge.plan.roles import crowded
from redisforge.plan.starting import Wishes
from redisforge.runbooks.cluster import Cluster, record_topology, with_topology
from redisforge.runbooks.control import Control
from redisforge.runbooks.converge import converge
from redisforge.runbooks.declare import declare_options, undeclare_hosts
from redisforge.runbooks.external import service_units
from redisforge.runbooks.holding import Held, holding
from redisforge.runbooks.leftovers import clear_hosts
from redisforge.runbooks.moving import MoveLimits, SlotMover
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.preflight import check_certificate_names, check_space
from redisforge.runbooks.preflight_hosts import check_other_hosts
from redisforge.runbooks.preflight_ports import check_ports
from redisforge.runbooks.run import Account, Progress, Runner
from redisforge.runbooks.shared_record import share_record
from redisforge.runbooks.units import Programs, build_units, certificate_names
from redisforge.runbooks.watch import Allowance, Watch

_WORTH_TELLING_S = 0.5
"""What takes longer than this is told, so that the lines add up to what the verb took."""


def _same(topology: Topology, _: Facts) -> Topology:
    return topology


def _all_are_here(_: Topology, __: Facts) -> None:
    return None


def _nothing(_: Topology) -> Mapping[tuple[str, ...], str]:
    return {}


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """A change: its name, what it is asked to do (for the journal), and how the facts become its planner.

    `restarts`: all that it needs of Units is to stop and start them, which works with nodes that somebody else runs,
    too, where it is known what runs them. `keeps_nodes`: it neither adds nor removes any, so what redisforge.yaml lists
    of nodes that somebody else runs stays as it is written, which may be ahead of the record.
    `needs_units`: it starts, restarts or removes Units, so their files and programs are prepared; or it brings its own
    `units`. `gather`: what has to be done before `target` can count the nodes, if anything. `target`: the topology that
    the verb works towards, if that is another one. `result`: the topology that is left when it is done; it is recorded.
    `declares`: options that redisforge.yaml has to have from then on; `undeclares`: hosts that it is not to have any
    more. `settings`: the directives that nodes are asked for. `notices`: what its planner has to say. `prepare`: what
    has to succeed before the first phase; `recover`: what is done when a phase failed, it may raise a better error.
    """

    name: str
    what: str
    planner: Callable[[Topology, Facts, Wishes], Planner]
    needs_units: bool = False
    restarts: bool = False
    keeps_nodes: bool = False
    gather: Callable[[Topology, Facts], Planner | None] = _all_are_here
    target: Callable[[Topology, Facts], Topology] = _same
    result: Callable[[Topology, Facts], Topology] = _same
    declares: Callable[[Topology], Mapping[tuple[str, ...], str]] = _nothing
    undeclares: tuple[str, ...] = ()
    limits: MoveLimits = MoveLimits()
    units: Mapping[str, Unit] = {}
    settings: tuple[str, ...] = ()
    notices: list[str] = []
    prepare: Callable[[Facts], Awaitable[None]] | None = None
    recover: Callable[[Observer, RedisForgeError], Awaitable[None]] | None = None

    @property
    def command(self) -> str:
        """The command line that does, or goes on with, the same."""
        return f"redisforge {self.name} {self.what}".strip()


def change(cluster: Cluster, verb: Verb, allowance: Allowance, progress: Progress) -> ChangeReport:
    """Carry out `verb` under the cluster's lock.

    Raises:
        RedisForgeError: of the kind that says what went wrong; the same command goes on from there.
    """
    began = time.monotonic()
    with holding(cluster.topology, cluster.layout, verb.name, progress) as held:
        journal = Journal(Path(cluster.layout.journal), verb=verb.name, user=getpass.getuser())
        journal.write("begin", what=verb.what)
        try:
            report = asyncio.run(
                _carry_out(cluster, verb, allowance, Account(journal, progress, command_line(verb.command)), held)
            )
        except BaseException as error:
            journal.write_end(error, what=verb.what, seconds=time.monotonic() - began)
            raise
        seconds = time.monotonic() - began
        journal.write_end(what=verb.what, seconds=seconds)
    return msgspec.structs.replace(report, seconds=round(seconds, 3))


def plan_change(cluster: Cluster, verb: Verb) -> Plan:
    """`--dry-run`: the plan that `change` would carry out now. Nothing is changed or fetched.

    Raises as `change`, but for what an engine or Envoy that is not here yet would say.
    """

    async def plan() -> Plan:
        facts = seen = await _look(cluster, verb)
        before = Plan()
        if gathering := verb.gather(cluster.topology, facts):
            await _check_before_starting(cluster, seen)
            before, facts = foresee(cluster.topology, facts, wishes_for(cluster.topology), gathering)
            if before.is_open:
                return before
        topology, grown = verb.target(cluster.topology, facts), cluster
        if topology != cluster.topology:
            grown = with_topology(cluster, topology)
            seen = await _look(grown, verb)
            facts = _with_foreseen(seen, facts) if before.phases else seen
        if verb.needs_units:
            await _check_before_starting(grown, seen)
        wishes = wishes_for(topology)
        plan, foreseen = foresee(topology, facts, wishes, verb.planner(topology, facts, wishes))
        records = not plan.is_open and verb.result(topology, foreseen) != cluster.topology
        return Plan((*before.phases, *plan.phases), records)

    def wishes_for(topology: Topology) -> Wishes:
        names = (*(node.name for node in topology.own_nodes), *(envoy.name for envoy in topology.envoys))
        return Wishes(dict.fromkeys(names, "")) if verb.needs_units else _wishes(verb.units)

    return asyncio.run(plan())


async def _check_before_starting(cluster: Cluster, facts: Facts) -> None:
    """What `change` looks at before anything starts, as far as it can be seen without writing anything; with programs
    that are not here yet, it is not seen whether hosts have the images for them. Raises RedisForgeError: what a host
    lacks."""
    if cluster.topology.access:
        return
    _check_this_machine(cluster, facts)
    topology, cache = cluster.topology, cache_folder(os.environ)
    engine = find_engine(topology.engine, cache, os.environ)
    envoy = find_envoy(topology.envoy.version, topology.envoy.path, cache, os.environ)
    units: Mapping[str, Unit] = {}
    if engine and envoy:
        programs = Programs(engine, envoy)
        units = build_units(
            topology, cluster.layout, cluster.credentials, programs, with_certificates=False
        )  # of new nodes there are none yet
    await check_other_hosts(topology, cluster.sites, facts, units)


def _check_this_machine(cluster: Cluster, facts: Facts) -> None:
    check_space(cluster.layout, cluster.topology)
    check_certificate_names(cluster.topology)
    check_ports(cluster.topology, cluster.layout, facts)


def _with_foreseen(seen: Facts, foreseen: Facts) -> Facts:
    """What was seen of more nodes than before, with what will have become of those until then."""
    return msgspec.structs.replace(
        seen,
        observed_at_s=foreseen.observed_at_s,
        nodes={**seen.nodes, **foreseen.nodes},
        units={**seen.units, **foreseen.units},
        envoys={**seen.envoys, **foreseen.envoys},
    )


def _wishes(units: Mapping[str, Unit]) -> Wishes:
    return Wishes(
        {name: unit.config_hash for name, unit in units.items()},
        placed_hashes={name: unit.placed_hash for name, unit in units.items()},
    )


async def _look(cluster: Cluster, verb: Verb) -> Facts:
    async with Observer(cluster, with_listing=True, settings=verb.settings) as observer:
        return await observer.look(fresh_units=True, always_probe=True)


async def _carry_out(before: Cluster, verb: Verb, allowance: Allowance, account: Account, held: Held) -> ChangeReport:
    journal, progress = account.journal, account.progress
    shared: dict[str, int] = {}
    gathered, facts, noticed_before = await _gathered(before, verb, allowance, account, held)
    crowded_before = _crowding(before.topology, facts)
    topology = verb.target(before.topology, facts)
    cluster = with_topology(before, topology)
    async with Observer(cluster, with_listing=True, settings=verb.settings) as observer:
        if topology != before.topology:
            facts = await observer.look(fresh_units=True, always_probe=True)
        units, programs = ready_units(cluster, facts, progress) if verb.needs_units else (verb.units, None)
        if verb.restarts and topology.access:
            units = service_units(topology)
        if verb.needs_units and not topology.access:
            await check_other_hosts(topology, cluster.sites, facts, units)
        wishes = _wishes(units)
        planner = verb.planner(topology, facts, wishes)
        notices: tuple[str, ...] = ()
        if topology != before.topology:
            record_topology(cluster)  # before anything starts: `status` and `down` must find what a killed run left
            await share_record(cluster, shared)
            notices = declare_options(topology, verb.declares(topology), with_nodes=not verb.keeps_nodes)
        if verb.prepare:
            await verb.prepare(facts)
        watched = _staying(cluster, facts, verb.result(topology, facts))
        async with Watch(watched, allowance, journal, progress) as watch:
            control = Control(progress, _safe_point(held, watch))
            mover = SlotMover(cluster, journal, progress, verb.limits, control.stop_requested)
            runner = Runner(cluster, observer, units, account, mover)
            with control.listening():
                try:
                    phases, facts = await converge(runner, planner, facts, control.safe_point)
                except RedisForgeError as error:
                    if verb.recover and not isinstance(error, AbortedError):
                        await verb.recover(observer, error)
                    raise
    gone = [host for host in topology.hosts if not {host.name, host.address}.isdisjoint(verb.undeclares)]
    cleared = await clear_hosts(gone, cluster.sites)  # while it is still known which hosts these are
    left = msgspec.structs.replace(cluster, topology=verb.result(topology, facts))
    if left.topology != topology:
        record_topology(left)
    await share_record(left, shared)
    declared = await _declare(left, verb, programs)
    crowded_now = [said for said in _crowding(left.topology, facts) if said not in crowded_before]
    return ChangeReport(
        verb=verb.name, cluster=topology.name, what=verb.what, phases=(*gathered, *phases),
        probe=noticed_before.then(watch.report) if noticed_before and watch.report else watch.report,
        recorded=left.topology != before.topology,
        notices=(*verb.notices, *dict.fromkeys((*notices, *declared, *cleared, *watch.notices, *crowded_now))),
    )  # fmt: skip


def _crowding(topology: Topology, facts: Facts) -> list[str]:
    """Where masters, or the copies of a shard, stand closer together than they have to; what helps."""
    return [f"{problem.where}: {problem.what}: {problem.next_step}" for problem in crowded(topology, facts)]


async def _gathered(
    cluster: Cluster, verb: Verb, allowance: Allowance, account: Account, held: Held
) -> tuple[tuple[tuple[str, float], ...], Facts, ProbeReport | None]:
    """The phases after which the nodes that are on record can be counted, mostly none; what is seen then; and what
    clients noticed of them. Raises as `change`."""
    facts = await _look(cluster, verb)
    planner = verb.gather(cluster.topology, facts)
    if planner is None:
        return (), facts, None
    async with Observer(cluster, with_listing=True, settings=verb.settings) as observer:
        units, _ = ready_units(cluster, facts, account.progress)
        await check_other_hosts(cluster.topology, cluster.sites, facts, units)
        watched = _staying(cluster, facts, cluster.topology)
        async with Watch(watched, allowance, account.journal, account.progress) as watch:
            control = Control(account.progress, _safe_point(held, watch))
            with control.listening():
                runner = Runner(cluster, observer, units, account)
                phases, facts = await converge(runner, planner, facts, control.safe_point)
        return phases, facts, watch.report


def _safe_point(held: Held, watch: Watch) -> Callable[[], None]:
    """What is asked between two steps. Raises what ends a verb there."""

    def check() -> None:
        held.check()
        watch.check()

    return check


async def _declare(left: Cluster, verb: Verb, programs: Programs | None) -> tuple[str, ...]:
    """Make redisforge.yaml and the files of the Units say what is left; what was said about that.

    A run that was killed may have recorded what it had not declared or placed yet: so it is always done.
    """
    notices = (
        *declare_options(left.topology, verb.declares(left.topology), with_nodes=not verb.keeps_nodes),
        *undeclare_hosts(left.topology, verb.undeclares),
    )
    if programs and verb.target is not _same:  # every Unit's files name the nodes that there are now; nothing restarts
        units = build_units(left.topology, left.layout, left.credentials, programs)
        await left.runtime.place(list(units.values()))
    return notices


def ready_units(cluster: Cluster, facts: Facts, progress: Progress) -> tuple[Mapping[str, Unit], Programs | None]:
    """The Units of a cluster, with room, ports and certificates for those that are new, and the programs that they run
    with; none if somebody else runs it.

    Raises:
        RedisForgeError: what a host lacks, before anything was started.
    """
    if cluster.topology.access:
        return {}, None
    from redisforge.security.certificates import ensure_certificates

    _check_this_machine(cluster, facts)
    names = certificate_names(cluster.topology)
    ensure_certificates(cluster.layout, names, cluster.topology.tls, datetime.now(UTC))
    programs = _find_programs(cluster, os.environ, progress)
    return build_units(cluster.topology, cluster.layout, cluster.credentials, programs), programs


def _staying(cluster: Cluster, facts: Facts, left: Topology) -> Cluster:
    """The cluster with those Envoys alone that serve now and still do afterwards: a client of an Envoy that goes has to
    connect to another one, whatever the verb does."""
    serving = {name for name, envoy in facts.envoys.items() if not envoy.problem}
    going = {envoy.name for envoy in cluster.topology.envoys} - (serving & {envoy.name for envoy in left.envoys})
    if len(going) == len(cluster.topology.envoys):
        return cluster
    return msgspec.structs.replace(cluster, topology=without_envoys(cluster.topology, going))


def _find_programs(cluster: Cluster, environment: Mapping[str, str], progress: Progress) -> Programs:
    """Once for a verb: each is asked for its version, and Envoy alone takes half a second to answer.

    Raises BinaryError, ConfigError.
    """
    began = time.monotonic()
    topology, cache = cluster.topology, cache_folder(environment)
    engine = ensure_engine(topology.engine, cache, progress, environment)
    envoy = ensure_envoy(topology.envoy.version, topology.envoy.path, cache, progress, environment)
    if (seconds := time.monotonic() - began) >= _WORTH_TELLING_S:
        progress(f"look at the programs: {seconds:.2f} s")
    return Programs(engine, envoy)
