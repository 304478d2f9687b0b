"""Several hosts as one runtime: every Unit is asked for where it stands, all hosts at the same time.

A host that cannot be reached keeps nobody waiting: what is known of its Units is that nothing is known (UNKNOWN).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from redisforge.errors import HostError, UnreachableError
from redisforge.fleet.runtime import Runtime
from redisforge.fleet.transport import Transport
from redisforge.model.facts import Stray, UnitFacts, UnitState
from redisforge.model.layout import ClusterLayout
from redisforge.model.unit import Unit


class Site(msgspec.Struct, frozen=True):
    """A machine, as one cluster uses it. `layout` has the paths of the cluster's folder there."""

    name: str
    transport: Transport
    layout: ClusterLayout
    runtime: Runtime


class HostsRuntime:
    """A Runtime over several sites. `places` says on which site each declared Unit stands, by name."""

    def __init__(self, sites: Sequence[Site], places: Mapping[str, Site]) -> None:
        self._sites = tuple(sites)
        self._declared = dict(places)
        self._places = dict(places)
        self._own_names: dict[str, str] = {}
        """What a Unit is called on its site, for those that `observe` had to tell from another of that name."""

    async def check(self, units: Sequence[Unit]) -> None:
        """See Runtime.check. Every site is asked before an error is raised; one that cannot be reached is left out."""

        async def check(site: Site, names: Sequence[str]) -> None:
            with contextlib.suppress(UnreachableError):
                await site.runtime.check([unit for unit in units if unit.name in names])

        await self._over([unit.name for unit in units], check)

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        """See Runtime.start. Every site that can be reached starts its Units before an error is raised."""
        permitted = frozenset(permit_blank)

        async def start(site: Site, names: Sequence[str]) -> None:
            wanted = frozenset(names)
            await site.runtime.start([unit for unit in units if unit.name in wanted], permit_blank=permitted & wanted)

        await self._over([unit.name for unit in units], start)

    async def place(self, units: Sequence[Unit]) -> None:
        """See Runtime.place."""

        async def place(site: Site, names: Sequence[str]) -> None:
            await site.runtime.place([unit for unit in units if unit.name in names])

        await self._over([unit.name for unit in units], place)

    async def tell_keepers(self, units: Sequence[Unit]) -> tuple[str, ...]:
        """See Runtime.tell_keepers. A site that cannot be reached is told by a later `up`."""
        changed: list[str] = []

        async def tell(site: Site, names: Sequence[str]) -> None:
            changed.extend(await site.runtime.tell_keepers([unit for unit in units if unit.name in names]))

        await self._over([unit.name for unit in units], tell, check=False)
        return tuple(changed)

    async def note_applied(self, unit: Unit, told: UnitFacts) -> None:
        """See Runtime.note_applied."""
        await self._at(unit.name).runtime.note_applied(unit, told)

    async def stop(self, names: Sequence[str]) -> None:
        """See Runtime.stop. Every site that can be reached stops its Units before an error is raised."""
        await self._over(names, lambda site, here: site.runtime.stop(here))

    async def observe(self) -> dict[str, UnitFacts]:
        """See Runtime.observe. The Units of a site that cannot be reached are UNKNOWN, with the reason.

        A Unit is the one of that name at its declared place. Another one elsewhere is called NAME@SITE, here and in the
        names that the other methods take.
        """
        seen = await asyncio.gather(*(_seen(site) for site in self._sites))
        units: dict[str, UnitFacts] = {}
        elsewhere: list[tuple[Site, UnitFacts]] = []
        for site, found in zip(self._sites, seen, strict=True):
            if isinstance(found, HostError):
                here = [name for name, place in self._places.items() if place is site]
                units |= {name: _unknown(name, found) for name in here}
                continue
            for name, unit in found.items():
                home, known = self._declared.get(name), units.get(name)
                if home is site or (home is None and (known is None or known.state is UnitState.UNKNOWN)):
                    self._places[name] = site
                    units[name] = unit
                else:
                    elsewhere.append((site, unit))
        for site, unit in elsewhere:
            if not _may_be_same(units.get(unit.name), unit):
                name = f"{unit.name}@{site.name}"
                self._places[name], self._own_names[name] = site, unit.name
                units[name] = msgspec.structs.replace(unit, name=name)
        return units

    async def note_election(self, elected: str, replaced: str) -> None:
        """See Runtime.note_election. It is an advice: a site that cannot be reached does without."""

        async def note(site: Site, names: Sequence[str]) -> None:
            here = [name if name in names else "" for name in (elected, replaced)]
            await site.runtime.note_election(*here)

        await self._over([name for name in (elected, replaced) if name], note, check=False)

    async def remove(self, names: Sequence[str]) -> None:
        """See Runtime.remove."""
        await self._over(names, lambda site, here: site.runtime.remove(here))

    def log_path(self, name: str) -> str:
        """See Runtime.log_path. The path on the Unit's host."""
        return self._at(name).runtime.log_path(self._own_name(name))

    def log_command(self, name: str) -> tuple[str, ...]:
        """See Runtime.log_command."""
        return self._at(name).runtime.log_command(self._own_name(name))

    def as_stray(self, unit: UnitFacts) -> Stray:
        """See Runtime.as_stray."""
        return self._at(unit.name).runtime.as_stray(msgspec.structs.replace(unit, name=self._own_name(unit.name)))

    def _own_name(self, name: str) -> str:
        return self._own_names.get(name, name)

    def _at(self, name: str) -> Site:
        """Where a Unit stands. Raises HostError for one that nobody declared and no site has."""
        if name not in self._places:
            raise HostError(f"{name} is on none of the cluster's hosts")
        return self._places[name]

    async def _over(
        self, names: Iterable[str], work: Callable[[Site, Sequence[str]], Awaitable[None]], *, check: bool = True
    ) -> None:
        """Do the work on every site that holds some of these Units, at the same time, each to its end.

        With `check`, raises HostError for the sites that failed.
        """
        by_site: dict[str, tuple[Site, list[str]]] = {}
        for name in names:
            site = self._at(name)
            by_site.setdefault(site.name, (site, []))[1].append(self._own_name(name))
        outcomes = await asyncio.gather(*(work(site, here) for site, here in by_site.values()), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in failures:
            if not isinstance(failure, HostError):
                raise failure
        if check and failures:
            raise _together([failure for failure in failures if isinstance(failure, HostError)])


async def _seen(site: Site) -> dict[str, UnitFacts] | HostError:
    try:
        return await site.runtime.observe()
    except HostError as error:
        return error


def _may_be_same(declared: UnitFacts | None, found: UnitFacts) -> bool:
    """Whether what was found away from a Unit's place may be the Unit itself: two sites can be one machine, and what
    stands on a site that cannot be reached nobody knows."""

    def traits(unit: UnitFacts) -> tuple[int, int, float, str]:
        return unit.pid, unit.keeper_pid, unit.started_at_s, unit.node_id

    if declared is None:
        return False
    return declared.state is UnitState.UNKNOWN or traits(declared) == traits(found)


def _unknown(name: str, error: HostError) -> UnitFacts:
    reason = ": ".join(part for part in (error.where, error.what, error.why) if part)
    return UnitFacts(name=name, state=UnitState.UNKNOWN, reason=reason, cure=error.next_step or "")


def _together(failures: list[HostError]) -> HostError:
    """One error that names every host; a single one stays as it is."""
    if len(failures) == 1:
        return failures[0]
    return HostError(
        f"{len(failures)} hosts did not do what was asked",
        where=", ".join(failure.where for failure in failures),
        why="\n".join(f"{failure.where}: {failure.what}: {failure.why}" for failure in failures),
        next_step=failures[0].next_step,
    )
