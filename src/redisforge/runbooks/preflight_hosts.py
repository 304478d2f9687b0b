"""Before anything starts on other hosts: are the ports free there, is there room, and can what runs Units there start
them? All hosts are asked at the same time.

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
from redisforge.fleet.ssh_pool import over_hosts
from redisforge.model.facts import Facts, UnitState
from redisforge.model.topology import Topology
from redisforge.model.unit import Unit
from redisforge.runbooks.preflight import BYTES_PER_NODE, declared_ports

_IDLE = (UnitState.ABSENT, UnitState.STOPPED)


class _Need(msgspec.Struct, frozen=True):
    """What is to start on one host. `sizes`: bytes that each path will take, if nothing is there yet."""

    site: Site
    sockets: tuple[tuple[str, str, int], ...]
    """(Unit, address, port)."""
    sizes: Mapping[str, int]


async def check_other_hosts(
    topology: Topology, sites: Mapping[str, Site], facts: Facts, units: Mapping[str, Unit] | None = None
) -> None:
    """The ports of every Unit that is to start on another host are free there, and there is room for it and for the
    programs that are carried with it. What runs `units`, on this machine too, can start those that are to start, or to
    be started again with another configuration.

    Raises:
        HostError: names every host and what it lacks.
    """
    needs = list(_needs(topology, sites, facts, units or {}))
    due = [unit for unit in (units or {}).values() if _is_due(unit, facts)]
    runtime = HostsRuntime(list(sites.values()), {unit.name: sites[unit.host] for unit in due})

    async def look(need: _Need) -> Room | None:
        sockets = [(address, port) for _, address, port in need.sockets]
        return await look_for_room(need.site.transport, need.site.layout.folder, sockets, list(need.sizes))

    problems: list[str] = []
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
    if problems:
        raise HostError(
            "other hosts cannot take what is to start there",
            where=", ".join(sorted({problem.partition(":")[0] for problem in problems})),
            why="\n".join(problems),
            next_step="stop what uses the ports and make room there, or declare other ports or folders in "
            "redisforge.yaml; `redisforge host check` looks at everything that a host needs",
        )


def _needs(topology: Topology, sites: Mapping[str, Site], facts: Facts, units: Mapping[str, Unit]) -> Iterator[_Need]:
    remote = {host.name for host in topology.hosts if host.ssh is not None}
    nodes = {node.name for node in topology.own_nodes}
    idle: dict[str, list[str]] = {}
    for unit in (*topology.own_nodes, *topology.envoys):
        if unit.host in remote and _is_idle(unit.name, facts):
            idle.setdefault(unit.host, []).append(unit.name)
    ports = list(declared_ports(topology))
    for host, names in idle.items():
        site = sites[host]
        carried = {folder.target: folder.source for name in names if name in units for folder in units[name].carried}
        sizes = {site.layout.unit(name): BYTES_PER_NODE for name in names if name in nodes}
        sizes |= {target: _size_bytes(Path(source)) for target, source in carried.items()}
        yield _Need(site, tuple(port for port in ports if port[0] in names), sizes)


def _is_idle(name: str, facts: Facts) -> bool:
    return name not in facts.units or facts.units[name].state in _IDLE


def _is_due(unit: Unit, facts: Facts) -> bool:
    """Whether it is to start, or to be started again with another configuration."""
    if _is_idle(unit.name, facts):
        return True
    seen = facts.units[unit.name]
    return seen.state is not UnitState.UNKNOWN and seen.config_hash != unit.config_hash


def _size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _lacks(need: _Need, room: Room) -> Iterator[str]:
    host = need.site.name
    for (unit, address, port), problem in zip(need.sockets, room.problems, strict=True):
        if problem:
            yield f"{host}: {unit} needs {address}:{port}: {problem}"
    needed = sum(need.sizes[path] for path in room.missing)
    if room.missing and room.free_bytes < needed:
        yield (
            f"{host}: {room.free_bytes >> 20} MB free in {need.site.layout.folder}, {needed >> 20} MB needed for "
            f"{len(room.missing)} nodes and programs"
        )
