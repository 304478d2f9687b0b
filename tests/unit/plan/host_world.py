"""Facts of hosts that are in order, and what is declared for them, for the tests of checks and changes."""

from __future__ import annotations

from msgspec.structs import replace
from topologies import hosts_in_zones, make_topology

from redisforge.model.host_facts import ClockSample, DockerFacts, FleetLook, FolderFacts, HostFacts, HostLook
from redisforge.model.host_report import Check
from redisforge.model.hosts import SshAccess
from redisforge.model.topology import Topology
from redisforge.plan.host_checks import judge
from redisforge.plan.host_needs import HostNeeds, host_needs

HOME = "/srv/redisforge"
FOLDER = f"{HOME}/clusters/main"
GIB = 2**30
HERE = "x86_64"
"""The operator's architecture."""
SYSCTLS = {
    "vm.overcommit_memory": 1,
    "vm.swappiness": 60,
    "net.core.somaxconn": 4096,
    "net.ipv4.tcp_max_syn_backlog": 4096,
}


def remote_topology(*machines_per_zone: int) -> Topology:
    """Three shards with a replica each, on hosts over SSH; the first one has the Envoy."""
    hosts = tuple(replace(host, ssh=SshAccess(), folder=HOME) for host in hosts_in_zones(*machines_per_zone))
    return make_topology(hosts=hosts)


TOPOLOGY = remote_topology(1, 1, 1)
NEEDS = host_needs(TOPOLOGY, dict.fromkeys((host.name for host in TOPOLOGY.hosts), FOLDER))
FIRST = TOPOLOGY.hosts[0].name


def good_facts(host: str = FIRST) -> HostFacts:
    """A host about which no check complains."""
    return HostFacts(
        host=host,
        system="Linux",
        distribution="Debian GNU/Linux 13 (trixie)",
        kernel="6.12.0",
        architecture=HERE,
        machine=f"{host} boot",
        user="deploy",
        can_sudo=True,
        init="systemd",
        python="3.13.5",
        docker=DockerFacts("27.1.0", "27.1.0", "overlay2"),
        folder=FolderFacts(FOLDER, "/srv/redisforge", True, 100 * GIB, 400.0 * 2**20),
        cores=8,
        memory_bytes=16 * GIB,
        huge_pages="madvise",
        open_files=524_288,
        sysctls=SYSCTLS,
        clock=ClockSample(0.0, 0.001),
    )


def look_of(*facts: HostFacts) -> FleetLook:
    """A look at these hosts, without attempts to reach each other."""
    return FleetLook(tuple(HostLook(one.host, one) for one in facts))


def judged(facts: HostFacts, needs: HostNeeds | None = None) -> dict[str, Check]:
    """The checks of one host, by name."""
    checks = judge(look_of(facts), {facts.host: needs or NEEDS[facts.host]}, HERE)
    return {check.name: check for check in checks}
