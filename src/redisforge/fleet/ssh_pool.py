"""Many hosts at once: one transport for each, and work that is done on all of them side by side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from redisforge.errors import HostError
from redisforge.fleet.ssh import SshTransport
from redisforge.fleet.ssh_connection import SshConnection, SshLimits, jump_access, known_hosts_paths
from redisforge.model.hosts import SshAccess

HostT = TypeVar("HostT")
ResultT = TypeVar("ResultT")

AT_ONCE = 32
"""Hosts that are worked on at the same time: enough for a fleet, and not more than one machine can look after."""


def make_transports(
    hosts: Mapping[str, SshAccess], *, own_known_hosts: Path | None = None, limits: SshLimits | None = None
) -> dict[str, SshTransport]:
    """The same without a block that closes them: for a command, with whose end they end."""
    jumps: dict[SshAccess, SshConnection] = {}
    made: dict[str, SshTransport] = {}
    for name, declared in hosts.items():
        access = msgspec.structs.replace(declared, address=declared.address or name)
        paths = known_hosts_paths(access, own_known_hosts)
        jump: SshConnection | None = None
        if access.jump:
            through = jump_access(access)
            if through not in jumps:
                jumps[through] = made_jump = SshConnection(access.jump, through, paths, limits=limits)
                made_jump.target = msgspec.structs.replace(made_jump.target, trusted_with=name)
            jump = jumps[through]
        made[name] = SshTransport(SshConnection(name, access, paths, jump=jump, limits=limits))
    return made


@contextlib.asynccontextmanager
async def transports(
    hosts: Mapping[str, SshAccess], *, own_known_hosts: Path | None = None, limits: SshLimits | None = None
) -> AsyncGenerator[dict[str, SshTransport]]:
    """One transport per host, by its name; nothing is connected before it is used, everything is closed afterwards.

    Hosts behind the same jump host share the connection to it. An access without an address is the host of that name.
    """
    made = make_transports(hosts, own_known_hosts=own_known_hosts, limits=limits)
    try:
        yield made
    finally:
        await asyncio.gather(*(transport.close() for transport in made.values()))
        jumps = {id(jump): jump for transport in made.values() if (jump := transport.connection.jump)}
        await asyncio.gather(*(jump.close() for jump in jumps.values()))


async def over_hosts(
    work: Callable[[HostT], Awaitable[ResultT]], hosts: Iterable[HostT], *, limit: int = AT_ONCE
) -> list[ResultT | HostError]:
    """Do `work` for every host, at most `limit` at the same time; results and HostErrors in the order of the hosts.

    A host that fails is an answer like any other. Any other exception is a defect: it is raised, the rest is cut off.
    """
    turns = asyncio.Semaphore(limit)

    async def one(host: HostT) -> ResultT | HostError:
        async with turns:
            try:
                return await work(host)
            except HostError as error:
                return error

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(host)) for host in hosts]
    except* Exception as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
