"""How often the Units are looked at: a look at them over SSH costs more than everything else together."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from test_status_report import TOPOLOGY

from redisforge.errors import UnreachableError
from redisforge.fleet.fake import FakeRuntime, FakeTransport
from redisforge.fleet.hosts import Site
from redisforge.fleet.transport import CommandResult
from redisforge.model.facts import NodeFacts, UnitFacts, UnitState
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import Credentials
from redisforge.redis.connection import Login
from redisforge.runbooks import observe
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.observe import Observer

LOOK_S = 0.5
"""What a look at the Units takes here."""


class SlowRuntime(FakeRuntime):
    """Counts the looks, each of which takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.now_s = 100.0
        self.look_s = LOOK_S

    async def observe(self) -> dict[str, UnitFacts]:
        self.looks += 1
        self.now_s += self.look_s
        return await super().observe()


class Asker:
    """All nodes answer but those in `gone`."""

    def __init__(self, nodes: dict[str, NodeFacts]) -> None:
        self._nodes = nodes
        self.gone: set[str] = set()
        self.dies = ""
        """Who answers once more and then no longer."""

    async def observe_all(self, nodes: object) -> dict[str, NodeFacts]:
        del nodes
        if self.dies:
            self.gone, self.dies, before = {self.dies}, "", self._nodes
            return before
        lost = {name: msgspec.structs.replace(self._nodes[name], id="", problem="gone") for name in self.gone}
        return {**self._nodes, **lost}


class LostTransport(FakeTransport):
    """No way leads to the host."""

    async def open(self) -> None:
        raise UnreachableError("the host does not answer", where="h1", why="no route")


class Watched:
    """An Observer over a runtime, an asker and a clock that the test holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, transport: type[FakeTransport] = FakeTransport) -> None:
        topology = TOPOLOGY
        layout = ClusterLayout("/nowhere")
        self.runtime = SlowRuntime()
        self.runtime.units = {
            node.name: UnitFacts(name=node.name, state=UnitState.RUNNING, pid=number)
            for number, node in enumerate(topology.nodes, 1)
        }
        way = transport(lambda argv: CommandResult(tuple(argv), 0, "", ""))
        sites = {host.name: Site(host.name, way, layout, self.runtime) for host in topology.hosts}
        cluster = Cluster(topology, layout, Credentials({}), sites, self.runtime)
        self.observer = Observer(cluster, login=Login())
        self.asker = Asker(
            {node.name: NodeFacts(name=node.name, address=node.address, port=node.port) for node in topology.nodes}
        )
        monkeypatch.setattr(self.observer, "asker", self.asker)
        clock = SimpleNamespace(monotonic=lambda: self.runtime.now_s, time=lambda: self.runtime.now_s)
        monkeypatch.setattr(observe, "time", clock)

    async def looks_after(self, seconds: float, *, fresh: bool = False) -> int:
        """How often the Units were looked at, after one more look at the cluster so much later."""
        self.runtime.now_s += seconds
        facts = await self.observer.look(fresh_units=fresh)
        assert set(facts.units) == set(self.runtime.units)
        return self.runtime.looks


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


async def test_units_are_not_asked_again_while_every_node_answers(watched: Watched) -> None:
    assert await watched.looks_after(0) == 1
    assert await watched.looks_after(2.5) == 1
    assert await watched.looks_after(0.6) == 2, "it was 3.1 s ago"


async def test_units_are_asked_when_a_node_is_silent_that_should_run(watched: Watched) -> None:
    assert await watched.looks_after(0) == 1
    watched.asker.gone = {"redis-2"}
    assert await watched.looks_after(0.2) == 1, "not more often than this"
    assert await watched.looks_after(0.2) == 2
    watched.runtime.units["redis-2"] = UnitFacts(name="redis-2", state=UnitState.STOPPED)
    assert await watched.looks_after(0.4) == 3
    assert await watched.looks_after(2) == 3, "it is known to be stopped"
    watched.asker.gone = set()
    assert await watched.looks_after(0.4) == 4, "somebody has started it"


async def test_units_are_asked_when_that_is_wanted_or_somebody_changed_them(watched: Watched) -> None:
    assert await watched.looks_after(0) == 1
    assert await watched.looks_after(0, fresh=True) == 2
    watched.observer.forget_units()
    assert await watched.looks_after(0) == 3


async def test_an_envoy_on_a_host_out_of_reach_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, LostTransport)
    facts = await watched.observer.look()
    assert "the host does not answer: no route" in facts.envoys["envoy-1"].problem
    assert facts.units


async def test_a_unit_that_runs_and_is_not_declared_is_told_without_another_look(watched: Watched) -> None:
    stray = UnitFacts(name="redis-9", state=UnitState.BACKOFF)
    idle = [UnitFacts(name=state, state=state) for state in (UnitState.STOPPED, UnitState.ABSENT, UnitState.UNKNOWN)]
    watched.runtime.units |= {unit.name: unit for unit in (stray, *idle)}

    facts = await watched.observer.look()

    assert [found.unit for found in facts.strays] == [stray]
    assert watched.runtime.looks == 1


async def test_what_nodes_said_while_a_host_was_waited_for_is_asked_again(watched: Watched) -> None:
    watched.asker.dies = "redis-2"
    facts = await watched.observer.look(fresh_units=True)
    assert facts.nodes["redis-2"].reachable, "a moment ago is soon enough"

    watched.asker.gone, watched.asker.dies = set(), "redis-2"
    watched.runtime.look_s = 10.0
    facts = await watched.observer.look(fresh_units=True)
    assert facts.nodes["redis-2"].problem == "gone"
    assert facts.nodes["redis-1"].reachable
    assert facts.observed_at_s == watched.runtime.now_s
