"""What a verb that empties a host must know before it begins: what is declared, and the memory of the other hosts."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path

from redisforge.errors import HostError
from redisforge.fleet.hosts import Site
from redisforge.fleet.ssh_pool import over_hosts
from redisforge.model.topology import Host, Topology
from redisforge.plan.relocate import Machine
from redisforge.runbooks.cluster import Cluster, make_sites
from redisforge.runbooks.host_change import Leaving

_LIMIT_S = 20.0
_KIBIBYTE = 1024


def declared_hosts(cluster: Cluster) -> tuple[Host, ...]:
    """The hosts that redisforge.yaml has now. Raises ConfigError."""
    return _declared(cluster).hosts


def left_before(cluster: Cluster, host: str, what: str) -> bool:
    """Whether a host that is no part of the cluster was one: an earlier run of `host` with these words has taken it
    out, and may have been cut off before redisforge.yaml said so, too."""
    from redisforge.runbooks.audit import has_worked

    return has_worked(cluster.layout, "host", what) or any(other.name == host for other in declared_hosts(cluster))


def ways_out(cluster: Cluster, *, force: bool = False, with_host: str = "") -> Leaving:
    """Ask every host for its memory, `with_host` too, all at once. One that does not answer is not judged.

    Raises ConfigError when redisforge.yaml is not valid.
    """
    declared = _declared(cluster)
    new = {host.name: host for host in declared.hosts if host.name == with_host}
    missing = {name for name in new if name not in cluster.sites}
    sites = dict(cluster.sites)
    if missing:
        made = make_sites(declared, cluster.layout)
        sites |= {name: made[name] for name in missing}
    return Leaving(machines=asyncio.run(_machines(sites)), envoy_count=len(declared.envoys), force=force)


def _declared(cluster: Cluster) -> Topology:
    """Without a file, what is recorded."""
    from redisforge.config.load import load

    source = cluster.topology.source
    return load(Path(source), os.environ, Path.cwd()).topology if source else cluster.topology


async def _machines(sites: Mapping[str, Site]) -> dict[str, Machine]:
    distinct = {site.name: site for site in sites.values()}

    async def ask(site: Site) -> Machine:
        result = await site.transport.run(("cat", "/proc/meminfo"), timeout_s=_LIMIT_S)
        return read_memory(site.name, result.stdout)

    answers = dict(zip(distinct, await over_hosts(ask, distinct.values()), strict=True))
    found = ((name, answers[site.name]) for name, site in sites.items())
    return {name: answer for name, answer in found if not isinstance(answer, HostError) and answer.total_bytes}


def read_memory(name: str, text: str) -> Machine:
    """/proc/meminfo (proc(5)); 0 for what it does not say."""
    sizes = {key: int(size) * _KIBIBYTE for key, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return Machine(name, sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0))
