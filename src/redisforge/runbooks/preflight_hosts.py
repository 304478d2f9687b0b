"""Before anything starts on other hosts: are the ports free there, and may the Units listen on them, is there room, and
can what runs Units there start them? All hosts are asked at the same time.

A host that cannot be reached is no business of this: its Units are UNKNOWN, and whoever needs them says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from redisforge.errors import HostError, UnreachableError
from redisforge.fleet.host_room import Room, look_for_room
from redisforge.fleet.hosts import HostsRuntime, Site
from redisforge.fleet.ports import DENIED
from redisforge.fleet.ssh_pool import over_hosts
from redisforge.model.facts import Facts
from redisforge.model.topology import Topology
from redisforge.model.unit import Unit
from redisforge.plan.host_needs import NeededPort, needed_ports
from redisforge.plan.low_ports import USUAL_LIMIT
from redisforge.runbooks.preflight import BYTES_PER_NODE
from redisforge.runbooks.preflight_ports import cures, denial, due_units, is_idle_unit

_COPIES = 2
"""So often a new node may have what it copies on its disk: as it arrives, and as it is written anew."""


class _Need(msgspec.Struct, frozen=True):
    """What is to start on one host. `sizes`: bytes that each path will take, if nothing is there yet.

    `sockets` must be free; `again` are those of Units that run, and are to be started again.
    """

    site: Site
    sockets: tuple[NeededPort, ...]
    again: tuple[NeededPort, ...]
    sizes: Mapping[str, int]


async def check_other_hosts(
    topology: Topology, sites: Mapping[str, Site], facts: Facts, units: Mapping[str, Unit] | None = None
) -> None:
    """The ports of every Unit that is to start on another host are free there, it may listen on them, and there is room
    for it and for the programs that are carried with it. What runs `units`, on this machine too, can start those that
    are to start, or to be started again with another configuration.

    Raises:
        HostError: names every host and what it lacks.
    """
    names = due_units(facts, units or {})
    due = [unit for unit in (units or {}).values() if unit.name in names]
    needs = list(_needs(topology, sites, facts, {unit.name: unit for unit in due}))
    runtime = HostsRuntime(list(sites.values()), {unit.name: sites[unit.host] for unit in due})

    async def look(need: _Need) -> Room | None:
        sockets = [asked.socket for asked in need.sockets]
        return await look_for_room(need.site.transport, need.site.layout.folder, sockets, list(need.sizes))

    problems: list[str] = []
    ways: list[str] = []
    check = asyncio.create_task(runtime.check(due))
    try:
        rooms = await over_hosts(look, needs)
    finally:
        await check
    for need, room in zip(needs, rooms, strict=True):
        if isinstance(room, HostError):
            if not isinstance(room, UnreachableError):
                raise room
        elif room is not None:
            problems += _lacks(need, room)
            denied = [asked for asked, _ in _denied(need, room)]
            ways += cures((asked.listener for asked in denied), room.unprivileged_from)
    if problems:
        raise HostError(
            "other hosts cannot take what is to start there",
            where=", ".join(sorted({problem.partition(":")[0] for problem in problems})),
            why="\n".join(problems),
            next_step="\n".join(dict.fromkeys((*ways, _CURE))),
        )


_CURE = (
    "stop what uses the ports and make room there, or declare other ports or folders in redisforge.yaml; "
    "`redisforge host check` looks at everything that a host needs"
)


def _needs(topology: Topology, sites: Mapping[str, Site], facts: Facts, due: Mapping[str, Unit]) -> Iterator[_Need]:
    """For every other host on which a Unit is to start. One that runs is no reason to ask a host, unless it is started
    again and listens on a port that may be root's alone."""
    remote = {host.name for host in topology.hosts if host.ssh is not None}
    nodes = {node.name for node in topology.own_nodes}
    ports = [asked for asked in needed_ports(topology) if asked.host in remote]
    idle = {asked.unit for asked in ports if is_idle_unit(asked.unit, facts)}
    again = [asked for asked in ports if asked.unit in due and asked.unit not in idle]
    hosts = [asked.host for asked in ports if asked.unit in idle]
    hosts += [asked.host for asked in again if asked.port < USUAL_LIMIT]
    data = max((node.used_memory_bytes for node in facts.reachable_nodes()), default=0)
    node_bytes = max(BYTES_PER_NODE, _COPIES * data)
    for host in dict.fromkeys(hosts):
        site = sites[host]
        names = dict.fromkeys(asked.unit for asked in ports if asked.host == host and asked.unit in idle)
        carried = {folder.target: folder.source for name in names if name in due for folder in due[name].carried}
        sizes = {site.layout.unit(name): node_bytes for name in names if name in nodes}
        sizes |= {target: _size_bytes(Path(source)) for target, source in carried.items()}
        yield _Need(
            site,
            tuple(asked for asked in ports if asked.unit in names),
            tuple(asked for asked in again if asked.host == host),
            sizes,
        )


def _size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _denied(need: _Need, room: Room) -> Iterator[tuple[NeededPort, str]]:
    """The sockets on which the kernel will not let a Unit listen, and why."""
    tried = zip(need.sockets, room.problems, strict=True)
    for asked, found in (*tried, *((asked, "") for asked in need.again)):
        if why := denial(asked, room.unprivileged_from, found, privileged=room.is_privileged):
            yield asked, why


def _lacks(need: _Need, room: Room) -> Iterator[str]:
    host = need.site.name
    denied = dict(_denied(need, room))
    yield from (f"{host}: {asked}: {why}" for asked, why in denied.items())
    for asked, problem in zip(need.sockets, room.problems, strict=True):
        if problem and problem != DENIED and asked not in denied:
            yield f"{host}: {asked}: {problem}"
    needed = sum(need.sizes[path] for path in room.missing)
    if room.missing and room.free_bytes < needed:
        yield (
            f"{host}: {room.free_bytes >> 20} MB free in {need.site.layout.folder}, {needed >> 20} MB needed for "
            f"{len(room.missing)} nodes and programs"
        )
