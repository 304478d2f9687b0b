"""`host list`, `host check` and `host prepare`: look at the declared hosts, judge, and make right what can be.

Nothing of a running cluster is touched. What is changed on a host is its operating system's configuration, in files
that are RedisForge's own, shown before they are written.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from redisforge.config.load import load
from redisforge.errors import HostError, NotFoundError
from redisforge.fleet.host_change import make_change
from redisforge.fleet.host_look import Clock, Place, look_at
from redisforge.fleet.hosts import Site
from redisforge.fleet.ssh_pool import over_hosts
from redisforge.fleet.transport import Transport
from redisforge.model.host_report import (
    ChangeResult,
    HostChange,
    HostList,
    HostsReport,
    ListedHost,
    Verdict,
)
from redisforge.model.topology import Host, Topology
from redisforge.plan.host_checks import judge
from redisforge.plan.host_fixes import propose
from redisforge.plan.host_needs import HostNeeds, host_needs
from redisforge.render.host_files import OWN_PATHS
from redisforge.runbooks.cluster import cluster_layout, home_folder, known_hosts, make_sites

INNER_USES = ("node", "bus")
"""Ports that hosts must reach among each other; who reaches an endpoint is for its clients' network to say."""


class Fleet(msgspec.Struct, frozen=True):
    """The hosts that a verb is about, in the order of the declaration, and the ways to them."""

    topology: Topology
    hosts: tuple[Host, ...]
    sites: Mapping[str, Site]
    known_hosts: Path = Path()
    """RedisForge's own list of trusted host keys."""

    def transport_of(self, host: str) -> Transport:
        """The way to a host: the one place where it is chosen is make_sites."""
        return self.sites[host].transport

    def needs(self) -> dict[str, HostNeeds]:
        """What the declared system asks of each."""
        return host_needs(self.topology, {name: site.layout.folder for name, site in self.sites.items()})


def declared_fleet(
    config: Path | None, names: Iterable[str], environment: Mapping[str, str], working_folder: Path
) -> Fleet:
    """The declared hosts, or those of them that are named.

    Raises:
        ConfigError: redisforge.yaml is not valid.
        NotFoundError: no host of that name is declared.
    """
    topology = load(config, environment, working_folder).topology
    known = [host.name for host in topology.hosts]
    if unknown := sorted(set(names) - set(known)):
        raise NotFoundError(
            f"no host called {', '.join(map(repr, unknown))}",
            where=topology.source or "the built-in topology",
            why=f"declared are: {', '.join(known)}",
            next_step="name hosts as redisforge.yaml does; without names, all of them are meant",
        )
    chosen = set(names) or set(known)
    layout = cluster_layout(home_folder(environment), topology.name)
    sites = make_sites(topology, layout)
    return Fleet(topology, tuple(host for host in topology.hosts if host.name in chosen), sites, known_hosts(layout))


def list_hosts(fleet: Fleet) -> HostList:
    """Every host with its Units. Nobody is asked."""
    topology = fleet.topology
    units = (*topology.own_nodes, *topology.envoys)
    return HostList(
        cluster=topology.name,
        hosts=tuple(
            ListedHost(
                name=host.name,
                address=host.address,
                bind_address=host.bind_address or host.address,
                labels=dict(host.labels),
                zone=host.zone,
                way=_way(host),
                folder=host.folder or fleet.sites[host.name].layout.folder,
                units=tuple(unit.name for unit in units if unit.host == host.name),
            )
            for host in fleet.hosts
        ),
    )


def check_hosts(fleet: Fleet, *, lasting: bool = False, reach: bool = True, clock: Clock = time.time) -> HostsReport:
    """Ask all hosts, judge the answers, and propose changes. `lasting`: see plan/host_fixes.py."""
    began = time.monotonic()
    needs = fleet.needs()
    look = asyncio.run(look_at(_places(fleet, needs), OWN_PATHS, clock, reach=reach))
    checks = judge(look, needs, platform.machine())
    return HostsReport(
        cluster=fleet.topology.name,
        passed=all(check.verdict is not Verdict.FAIL for check in checks),
        checks=checks,
        changes=propose(look, needs, checks, lasting=lasting),
        facts={host.host: host.facts for host in look.hosts},
        seconds=time.monotonic() - began,
    )


def change_hosts(fleet: Fleet, report: HostsReport, *, lasting: bool = False, clock: Clock = time.time) -> HostsReport:
    """Make the proposed changes, all hosts at the same time, then check again. `changes` are then those that were made.

    A host that fails is in `results`; the others get what is proposed for them.
    """
    results = asyncio.run(_change_all(fleet, report))
    after = check_hosts(fleet, lasting=lasting, clock=clock)
    failed = any(result.problem for result in results)
    return msgspec.structs.replace(
        after, changes=report.changes, results=results, passed=after.passed and not failed,
        seconds=report.seconds + after.seconds,
    )  # fmt: skip


async def _change_all(fleet: Fleet, report: HostsReport) -> tuple[ChangeResult, ...]:
    by_host: dict[str, list[HostChange]] = {}
    for change in report.changes:
        by_host.setdefault(change.host, []).append(change)

    async def work(host: str) -> list[ChangeResult]:
        facts = report.facts[host]
        return [] if facts is None else [await _changed(fleet, report, change) for change in by_host[host]]

    done = await over_hosts(work, by_host)
    return tuple(result for results in done if not isinstance(results, HostError) for result in results)


async def _changed(fleet: Fleet, report: HostsReport, change: HostChange) -> ChangeResult:
    facts = report.facts[change.host]
    assert facts is not None
    try:
        await make_change(fleet.transport_of(change.host), facts, change)
    except HostError as error:
        problem = ": ".join(part for part in (error.what, error.why.strip(), error.next_step) if part)
        return ChangeResult(host=change.host, why=change.why, problem=problem)
    return ChangeResult(host=change.host, why=change.why)


def _places(fleet: Fleet, needs: Mapping[str, HostNeeds]) -> Sequence[Place]:
    return [
        Place(
            name=host.name,
            transport=fleet.transport_of(host.name),
            folder=needs[host.name].folder,
            ports=tuple(port.socket for port in needs[host.name].ports),
            inner_ports=tuple(port.socket for port in needs[host.name].ports if port.use in INNER_USES),
            known_at=host.address if host.bind_address else "",
        )
        for host in fleet.hosts
    ]


def _way(host: Host) -> str:
    if host.ssh is None:
        return "this machine"
    user = f"{host.ssh.user}@" if host.ssh.user else ""
    port = f":{host.ssh.port}" if host.ssh.port else ""
    through = f" through {host.ssh.jump}" if host.ssh.jump else ""
    return f"ssh {user}{host.ssh.address or host.address}{port}{through}"
