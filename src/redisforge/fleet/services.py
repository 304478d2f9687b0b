"""Nodes that somebody else runs, where it is known by what: a unit of systemd, or a container.

They are stopped and started by their own supervisor, with its own command; nothing is placed, changed or deleted. So a
rolling restart works with them, and all else that needs a Unit's files does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from redisforge.errors import HostError
from redisforge.fleet.runtime import NoRuntime
from redisforge.fleet.transport import Transport
from redisforge.model.facts import UnitFacts, UnitState
from redisforge.model.unit import Unit

_LOOK_LIMIT_S = 15.0
_COMMAND_LIMIT_S = 900.0
"""A node may save its data set while it stops."""
_LOOK = """
case $1 in
  systemd) pid=$(systemctl show --property=MainPID --value "$2") || exit ;;
  docker) pid=$(docker inspect --type container --format '{{.State.Pid}}' "$2") || exit ;;
esac
echo "${pid:-0} $(sed 's/.*) //' "/proc/${pid:-0}/stat" 2>/dev/null | cut -d ' ' -f 20)" \\
  "$(getconf CLK_TCK) $(cut -d ' ' -f 1 /proc/uptime) $(date +%s.%N)" | tr -s ' '
"""
"""Prints: pid, its start in ticks since the boot (left out if it does not run), ticks in a second, seconds since the
boot, now. proc_pid_stat(5): field 22 is the 20th behind the command's name."""
_PROGRAMS = {"systemd": "systemctl", "docker": "docker"}


class Service(msgspec.Struct, frozen=True):
    """What runs a node: `systemd` or `docker`, the unit's or container's name, and the way to its host."""

    kind: str
    name: str
    transport: Transport


def read_service(text: str) -> tuple[str, str]:
    """`systemd:redis@7000` as ("systemd", "redis@7000")."""
    kind, _, name = text.partition(":")
    return kind, name


class ServiceRuntime(NoRuntime):
    """A Runtime for nodes whose service is known, by the node's name. Every other node is refused as by NoRuntime."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = dict(services)

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        """See Runtime.start. What is there to be placed is its owner's."""
        del permit_blank
        await self._do("start", [unit.name for unit in units])

    async def stop(self, names: Sequence[str]) -> None:
        """See Runtime.stop. The supervisor does not start again what it was told to stop."""
        await self._do("stop", names)

    async def observe(self) -> dict[str, UnitFacts]:
        """See Runtime.observe."""
        seen = await asyncio.gather(*(self._look(name) for name in self._services))
        return {unit.name: unit for unit in seen}

    async def remove(self, names: Sequence[str]) -> None:
        """See NoRuntime.remove."""
        await NoRuntime().remove(names)

    async def place(self, units: Sequence[Unit]) -> None:
        """See NoRuntime.place."""
        await NoRuntime().place(units)

    async def note_applied(self, unit: Unit, told: UnitFacts) -> None:
        """See NoRuntime.note_applied."""
        await NoRuntime().note_applied(unit, told)

    async def _do(self, what: str, names: Sequence[str]) -> None:
        if unknown := [name for name in names if name not in self._services]:
            raise HostError(
                f"nobody knows what runs {', '.join(unknown)}",
                next_step="name it in external.nodes: `service: systemd:UNIT` or `service: docker:CONTAINER`",
            )
        services = [self._services[name] for name in names]
        await asyncio.gather(
            *(
                service.transport.run((_PROGRAMS[service.kind], what, service.name), timeout_s=_COMMAND_LIMIT_S)
                for service in services
            )
        )

    async def _look(self, name: str) -> UnitFacts:
        service = self._services[name]
        argv = ("sh", "-c", _LOOK, "sh", service.kind, service.name)
        try:
            words = (await service.transport.run(argv, timeout_s=_LOOK_LIMIT_S)).stdout.split()
        except HostError as error:
            return UnitFacts(name=name, state=UnitState.UNKNOWN, reason=error.why or error.what)
        return service_facts(name, words)


def service_facts(name: str, words: Sequence[str]) -> UnitFacts:
    """What `_LOOK` printed, as facts."""
    if len(words) != 5:
        return UnitFacts(name=name, state=UnitState.STOPPED)
    pid, ticks, per_second, uptime_s, now_s = words
    started_at_s = float(now_s) - float(uptime_s) + float(ticks) / float(per_second)
    return UnitFacts(name=name, state=UnitState.RUNNING, pid=int(pid), started_at_s=started_at_s)
