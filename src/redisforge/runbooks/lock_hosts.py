"""`lock status` and `lock release` for a holder on another machine: through the hosts (fleet/host_lock.py).

Its command cannot be killed from here. It can be asked to stop, which it hears with its next beat and does at its next
safe point; or the lock can be taken away: then it ends at its next safe point too, but others may begin before that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from redisforge.errors import GateError, HostError
from redisforge.fleet.host_lock_look import ask_to_stop, break_lock, look_at_lock
from redisforge.fleet.lock import LockHolder
from redisforge.fleet.ssh import SshTransport
from redisforge.fleet.ssh_pool import over_hosts
from redisforge.model.layout import ClusterLayout
from redisforge.model.report import LockReport, running
from redisforge.model.topology import Topology
from redisforge.runbooks.holding import lock_places
from redisforge.runbooks.run import Progress

_POLL_S = 0.5


class HostLocks:
    """The lock of one cluster on its hosts, seen from outside; empty for a cluster of this machine alone."""

    def __init__(self, topology: Topology | None, layout: ClusterLayout) -> None:
        places = lock_places(topology, layout) if topology else ()
        self._paths = {place.name: place.path for place in places}
        self._ways = {place.name: SshTransport(place.connection) for place in places}
        self._cluster = topology.name if topology else ""

    def report(self) -> LockReport | None:
        """Who holds it; None if nobody does, as far as the hosts can be asked and there are any."""
        return asyncio.run(self._report())

    def release(self, progress: Progress, *, wait_s: float, force: bool) -> LockReport | None:
        """Have the holder stop, or take the lock away; returns who held it.

        Raises:
            GateError: it was not given back within `wait_s`.
        """
        return asyncio.run(self._release(progress, wait_s, force=force))

    async def _report(self) -> LockReport | None:
        holders, unreachable = await self._look()
        if not self._ways:
            return None
        held_on = tuple(name for name, holder in holders.items() if holder)
        holder = next((holder for holder in holders.values() if holder), None)
        if holder is None:
            known = 2 * len(unreachable) <= len(self._ways)
            if not unreachable:
                return None
            return LockReport(cluster=self._cluster, held=False, known=known, unreachable=unreachable)
        seconds = (datetime.now(UTC) - datetime.fromisoformat(holder.since)).total_seconds()
        return LockReport(
            cluster=self._cluster, held=True, user=holder.user, host=holder.host, pid=holder.pid, verb=holder.verb,
            command=holder.command, since=holder.since, alive=True, seconds=seconds, held_on=held_on,
            unreachable=unreachable,
        )  # fmt: skip

    async def _release(self, progress: Progress, wait_s: float, *, force: bool) -> LockReport | None:
        report = await self._report()
        if report is None or not report.held:
            return report
        holders, _ = await self._look()
        for name, holder in holders.items():
            if holder and force:
                await self._at(name, lambda way, path, who=holder: break_lock(way, path, who))
            elif holder:
                await self._at(name, ask_to_stop)
        what = "the lock was taken from it" if force else f"it was asked to stop; waiting at most {wait_s:g} s"
        progress(f"{running(report.verb, report.command)} of {report.user} on {report.host}: {what}")
        deadline = time.monotonic() + wait_s
        while (left := await self._report()) and left.held and (left.host, left.pid) == (report.host, report.pid):
            if time.monotonic() > deadline:
                raise GateError(
                    f"{running(report.verb, report.command)} on {report.host} did not end within {wait_s:g} s",
                    where=", ".join(left.held_on),
                    why="it has not come to a safe point yet",
                    next_step="wait and run the command again, or take its lock with `redisforge lock release --force`",
                )
            await asyncio.sleep(_POLL_S)
        return report

    async def _at(self, name: str, work: Callable[[SshTransport, str], Awaitable[None]]) -> None:
        try:
            await work(self._ways[name], self._paths[name])
        except HostError:
            return  # it has been reached a moment ago; what it holds is looked at again

    async def _look(self) -> tuple[dict[str, LockHolder | None], tuple[str, ...]]:
        """The holder by host, and the hosts that cannot be reached."""

        async def look(name: str) -> LockHolder | None:
            return await look_at_lock(self._ways[name], self._paths[name])

        found = dict(zip(self._ways, await over_hosts(look, self._ways), strict=True))
        gone = tuple(name for name, outcome in found.items() if isinstance(outcome, HostError))
        return {name: who for name, who in found.items() if not isinstance(who, HostError)}, gone
