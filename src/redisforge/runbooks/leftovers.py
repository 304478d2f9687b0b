"""What a host keeps of a cluster that it is no part of any more: certificates with their keys, the record, the lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from redisforge.errors import HostError
from redisforge.fleet.hosts import Site
from redisforge.fleet.ssh_pool import over_hosts
from redisforge.model.topology import Host

_LIMIT_S = 30.0
_OPERATORS = ("topology.json", "secrets.env")
"""Whoever has these operates the cluster from there; the folder is theirs."""
_CLEAR = """\
cd -- "$1" 2>/dev/null || exit 0
folder=$PWD
rmdir units 2>/dev/null
for path in units "$2" "$3"; do
  if [ -e "$path" ]; then echo "$path"; exit 0; fi
done
cd / && rm -rf -- "$folder"
"""


async def clear_hosts(hosts: Iterable[Host], sites: Mapping[str, Site]) -> tuple[str, ...]:
    """Delete the cluster's folder on each of these hosts, which run nothing of it any more; what could not be deleted,
    in words. A folder stays that still has Units (a host that was away when they were forgotten), and that of an
    operator. This machine's is never touched.
    """
    remote = [sites[host.name] for host in hosts if host.ssh is not None]

    async def clear(site: Site) -> str:
        argv = ("sh", "-c", _CLEAR, "clear", site.layout.folder, *_OPERATORS)
        return (await site.transport.run(argv, timeout_s=_LIMIT_S)).stdout.strip()

    told: list[str] = []
    for site, found in zip(remote, await over_hosts(clear, remote), strict=True):
        if isinstance(found, HostError):
            told.append(f"{site.name}: {site.layout.folder} could not be deleted: {found.why or found.what}")
        elif found == "units":
            told.append(f"{site.name}: {site.layout.folder} still has nodes that are forgotten; delete it by hand")
    return tuple(told)
