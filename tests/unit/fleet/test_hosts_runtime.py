"""Several hosts as one runtime: who is asked for what, and what one dead host costs the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from redisforge.errors import HostError, UnreachableError
from redisforge.fleet.fake import FakeRuntime, FakeTransport
from redisforge.fleet.hosts import HostsRuntime, Site
from redisforge.fleet.transport import CommandResult
from redisforge.model.facts import UnitFacts, UnitState
from redisforge.model.layout import ClusterLayout
from redisforge.model.unit import Unit


class DeadRuntime(FakeRuntime):
    """A host that does not answer."""

    async def check(self, units: Sequence[Unit]) -> None:
        raise UnreachableError("cannot connect", where="h2")

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        raise self._dead()

    async def place(self, units: Sequence[Unit]) -> None:
        raise self._dead()

    async def tell_keepers(self, units: Sequence[Unit]) -> tuple[str, ...]:
        raise self._dead()

    async def stop(self, names: Sequence[str]) -> None:
        raise self._dead()

    async def observe(self) -> dict[str, UnitFacts]:
        raise self._dead()

    async def note_election(self, elected: str, replaced: str) -> None:
        raise self._dead()

    async def remove(self, names: Sequence[str]) -> None:
        raise self._dead()

    def _dead(self) -> HostError:
        return HostError("cannot connect", where="h2", why="no answer within 5 s")


def no_command(argv: tuple[str, ...]) -> CommandResult:
    raise AssertionError(argv)


def unit(name: str, host: str) -> Unit:
    return Unit(name=name, kind="redis", host=host, folder=f"/srv/{name}", argv=("true",), files=(), ports=())


A, B, C = unit("a", "h1"), unit("b", "h2"), unit("c", "h3")


class Fleet:
    """Three hosts, a Unit on each; those in `dead` do not answer."""

    def __init__(self, *dead: str) -> None:
        hosts = ("h1", "h2", "h3")
        self.runtimes = {host: DeadRuntime() if host in dead else FakeRuntime() for host in hosts}
        sites = [
            Site(host, FakeTransport(no_command), ClusterLayout(f"/srv/{host}"), runtime)
            for host, runtime in self.runtimes.items()
        ]
        self.runtime = HostsRuntime(sites, dict(zip(("a", "b", "c"), sites, strict=True)))

    def units_on(self, host: str) -> set[str]:
        return {name for name, seen in self.runtimes[host].units.items() if seen.state is UnitState.RUNNING}

    def state_of(self, name: str) -> UnitFacts:
        return asyncio.run(self.runtime.observe())[name]


def test_each_unit_is_started_stopped_and_removed_where_it_stands() -> None:
    fleet = Fleet()
    asyncio.run(fleet.runtime.start([A, B, C]))
    assert [fleet.units_on(host) for host in ("h1", "h2", "h3")] == [{"a"}, {"b"}, {"c"}]
    asyncio.run(fleet.runtime.stop(["b"]))
    asyncio.run(fleet.runtime.remove(["b"]))
    assert set(asyncio.run(fleet.runtime.observe())) == {"a", "c"}


def test_all_hosts_are_checked_but_for_one_that_cannot_be_reached() -> None:
    fleet = Fleet("h2")
    asyncio.run(fleet.runtime.check([A, B, C]))
    for host, name in (("h1", "a"), ("h3", "c")):
        fleet.runtimes[host].strangers.add(name)
    with pytest.raises(HostError, match="2 hosts did not do what was asked") as raised:
        asyncio.run(fleet.runtime.check([A, B, C]))
    assert "something else is called a" in raised.value.why
    assert "something else is called c" in raised.value.why


def test_a_dead_host_does_not_keep_the_others_from_starting_and_stopping() -> None:
    fleet = Fleet("h2")
    with pytest.raises(HostError, match="cannot connect") as raised:
        asyncio.run(fleet.runtime.start([A, B, C]))
    assert raised.value.where == "h2"
    assert fleet.units_on("h1") | fleet.units_on("h3") == {"a", "c"}
    with pytest.raises(HostError):
        asyncio.run(fleet.runtime.stop(["a", "b", "c"]))
    assert not fleet.units_on("h1") | fleet.units_on("h3")


def test_the_units_of_a_dead_host_are_unknown_with_the_reason() -> None:
    fleet = Fleet("h2")
    asyncio.run(fleet.runtime.start([A, C]))
    assert fleet.state_of("a").state is UnitState.RUNNING
    seen = fleet.state_of("b")
    assert seen.state is UnitState.UNKNOWN
    assert seen.reason == "h2: cannot connect: no answer within 5 s"


def test_two_dead_hosts_are_both_named() -> None:
    fleet = Fleet("h1", "h2")
    with pytest.raises(HostError, match="2 hosts did not do what was asked") as raised:
        asyncio.run(fleet.runtime.stop(["a", "b", "c"]))
    assert raised.value.why.count("no answer within 5 s") == 2


def test_an_election_is_noted_on_both_hosts_and_a_dead_one_does_without() -> None:
    fleet = Fleet("h2")
    asyncio.run(fleet.runtime.note_election("a", "c"))
    asyncio.run(fleet.runtime.note_election("a", "b"))
    assert fleet.runtimes["h1"].elections == [("a", ""), ("a", "")]
    assert fleet.runtimes["h3"].elections == [("", "c")]


def test_a_unit_that_is_found_on_a_host_is_known_there_from_then_on() -> None:
    fleet = Fleet()
    asyncio.run(fleet.runtimes["h3"].start([unit("left", "h3")]))
    with pytest.raises(HostError, match="on none of the cluster's hosts"):
        asyncio.run(fleet.runtime.stop(["left"]))
    asyncio.run(fleet.runtime.observe())
    asyncio.run(fleet.runtime.stop(["left"]))
    assert fleet.units_on("h3") == set()


def observed(runtime: HostsRuntime) -> dict[str, UnitState]:
    return {name: seen.state for name, seen in asyncio.run(runtime.observe()).items()}


def brought_back(*dead: str) -> Fleet:
    """h3 runs c, and a b that is not the declared one."""
    fleet = Fleet(*dead)
    asyncio.run(fleet.runtimes["h3"].start([C, unit("b", "h3")]))
    return fleet


def test_another_unit_of_a_declared_name_is_not_taken_for_it() -> None:
    fleet = brought_back()
    assert observed(fleet.runtime) == {"c": UnitState.RUNNING, "b@h3": UnitState.RUNNING}

    asyncio.run(fleet.runtime.start([B]))
    assert (fleet.units_on("h2"), fleet.units_on("h3")) == ({"b"}, {"b", "c"})
    assert fleet.state_of("b") == fleet.runtimes["h2"].units["b"]

    asyncio.run(fleet.runtime.stop(["b"]))
    assert (fleet.units_on("h2"), fleet.units_on("h3")) == (set(), {"b", "c"})
    asyncio.run(fleet.runtime.stop(["b@h3"]))
    assert fleet.units_on("h3") == {"c"}
    asyncio.run(fleet.runtime.remove(["b@h3"]))
    assert set(fleet.runtimes["h3"].units) == {"c"}
    assert set(fleet.runtimes["h2"].units) == {"b"}


def test_while_a_units_own_host_is_away_nobody_else_is_called_another() -> None:
    assert observed(brought_back("h2").runtime) == {"b": UnitState.UNKNOWN, "c": UnitState.RUNNING}


def test_two_sites_that_are_one_machine_have_one_unit() -> None:
    machine = FakeRuntime()
    sites = [Site(name, FakeTransport(no_command), ClusterLayout("/srv"), machine) for name in ("h1", "h2")]
    runtime = HostsRuntime(sites, {"a": sites[0], "b": sites[1]})
    asyncio.run(runtime.start([A, B]))
    assert observed(runtime) == {"a": UnitState.RUNNING, "b": UnitState.RUNNING}


def test_what_is_left_on_two_hosts_under_one_name_is_two() -> None:
    fleet = Fleet()
    asyncio.run(fleet.runtimes["h1"].start([A, unit("left", "h1")]))
    asyncio.run(fleet.runtimes["h3"].start([unit("left", "h3")]))
    assert set(observed(fleet.runtime)) == {"a", "left", "left@h3"}
    asyncio.run(fleet.runtime.stop(["left@h3"]))
    assert (fleet.units_on("h1"), fleet.units_on("h3")) == ({"a", "left"}, set())
    assert set(observed(fleet.runtime)) == {"a", "left", "left@h3"}


def test_a_stray_is_told_by_the_host_that_runs_it_under_its_own_name() -> None:
    fleet = brought_back()
    seen = asyncio.run(fleet.runtime.observe())["b@h3"]
    stray = fleet.runtime.as_stray(seen)
    assert (stray.unit.name, stray.host, stray.stop_command) == ("b", "fake", ("true", "b"))
