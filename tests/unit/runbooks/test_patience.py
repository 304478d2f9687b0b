"""What is heard of a gate that does not hold: what is waited for, after a while, and once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from test_status_report import TOPOLOGY

from redisforge.errors import GateError
from redisforge.fleet.fake import FakeRuntime
from redisforge.fleet.journal import Journal
from redisforge.model.facts import Facts, NodeFacts, UnitFacts, UnitState
from redisforge.model.layout import ClusterLayout
from redisforge.model.steps import Gate, Phase
from redisforge.model.topology import Credentials, Topology
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.patience import Patience
from redisforge.runbooks.run import Account, Runner

NOBODY = Facts(observed_at_s=1.0)
LINE = "restart redis-1: still waiting, for at most 50 s more: "


def hung(*names: str) -> Facts:
    """What is seen where these nodes run and do not answer."""
    nodes = {
        name: NodeFacts(name=name, address="127.0.0.1", port=7004, problem="no answer within 2 s") for name in names
    }
    units = {name: UnitFacts(name=name, state=UnitState.RUNNING, pid=99) for name in names}
    return Facts(observed_at_s=1.0, nodes=nodes, units=units)


def heard(*moments: tuple[float, str], facts: Facts = NOBODY) -> list[str]:
    """What is said of a wait that began at second 100, with the reasons (by comma) of each moment."""
    patience = Patience("restart redis-1", 100.0)
    lines = [patience.line(100.0 + now_s, 50.0, reasons.split(", "), facts) for now_s, reasons in moments]
    return [line for line in lines if line]


def test_a_short_wait_is_not_told_of() -> None:
    assert heard((0.0, "a"), (1.0, "b"), (4.9, "c")) == []


def test_a_reason_is_told_once_and_another_one_after_it() -> None:
    moments = ((4.0, "a"), (5.0, "a"), (6.0, "a"), (30.0, "a"), (31.0, "b"), (40.0, "a"), (50.0, "b"))
    assert heard(*moments) == [f"{LINE}a", f"{LINE}b"]


def test_reasons_that_change_all_the_time_are_told_every_5_s() -> None:
    """Gossip goes round."""
    moments = [(0.5 * number, f"reason {number}") for number in range(40)]
    assert heard(*moments) == [f"{LINE}reason {number}" for number in (10, 20, 30)]


def test_a_reason_that_counts_down_is_one() -> None:
    moments = ((5.0, "redis-4 may be elected in 9 s"), (10.0, "redis-4 may be elected in 4 s"))
    assert heard(*moments) == [f"{LINE}redis-4 may be elected in 9 s"]


def test_of_many_reasons_the_first_is_told() -> None:
    assert heard((5.0, "a, b, c")) == [f"{LINE}a (and 2 more)"]


def test_a_node_that_hangs_is_named_where_the_gate_does_not_ask_it() -> None:
    assert heard((5.0, "redis-4: silence"), facts=hung("redis-4")) == [f"{LINE}redis-4: silence"]
    assert heard((5.0, "slots without an owner"), facts=hung("redis-4")) == [
        f"{LINE}slots without an owner; redis-4 does not answer"
    ]
    both = heard((5.0, "slots without an owner"), facts=hung("redis-1", "redis-4"))
    assert both == [f"{LINE}slots without an owner; redis-1, redis-4 do not answer"]


class Clock:
    """Stands for the module `time`; it goes on when somebody looks."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


async def waited_in_vain(
    monkeypatch: pytest.MonkeyPatch, folder: Path, topology: Topology, seen: Facts, gate: str = "nodes_answer"
) -> tuple[GateError, list[str]]:
    """The error of a wait in which always the same is `seen`, and what was said. Each look takes 2 s: so long a node
    that hangs is given for its answer."""
    clock = Clock()
    monkeypatch.setattr("redisforge.runbooks.run.time", clock)

    async def look(**_: object) -> Facts:
        clock.now_s += 2.0
        return seen

    observer: Any = SimpleNamespace(asker=None, look=look)
    cluster = Cluster(topology, ClusterLayout(str(folder)), Credentials({}), {}, FakeRuntime())
    said: list[str] = []
    journal = Journal(folder / "journal.jsonl", verb="restart", user="ann", arguments=())
    runner = Runner(cluster, observer, {}, Account(journal, said.append, "redisforge restart"))
    with pytest.raises(GateError, match="not reached within 30 s") as caught:
        await runner.carry_out(Phase(title="wait", steps=(), gate=Gate(gate, 30.0)), seen)
    return caught.value, said


def only(topology: Topology, *names: str) -> Topology:
    return replace(topology, nodes=tuple(node for node in topology.nodes if node.name in names))


async def test_the_runner_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    error, said = await waited_in_vain(monkeypatch, tmp_path, only(TOPOLOGY, "redis-4"), hung("redis-4"))
    assert said == [
        "wait …",
        "wait: still waiting, for at most 24 s more: redis-4 (127.0.0.1:7004): no answer within 2 s",
    ]
    assert (error.next_step or "").startswith("redis-4 (process 99): if it hangs, kill -9 that process")


async def test_the_number_of_a_process_is_that_in_its_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hosts = tuple(replace(host, runtime="docker") for host in TOPOLOGY.hosts)
    contained = only(replace(TOPOLOGY, hosts=hosts), "redis-4")
    error, _ = await waited_in_vain(monkeypatch, tmp_path, contained, hung("redis-4"))
    assert (error.next_step or "").startswith("redis-4 (process 99 in its container): if it hangs")


async def test_a_host_that_is_away_is_named_as_a_cause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the gate asks of others may hang together with it."""
    facts = hung("redis-3", "redis-4")
    unit = replace(facts.units["redis-4"], state=UnitState.UNKNOWN, reason="no route")
    facts = replace(facts, units={**facts.units, "redis-4": unit})
    error, _ = await waited_in_vain(monkeypatch, tmp_path, only(TOPOLOGY, "redis-3", "redis-4"), facts)
    assert (error.why or "").splitlines() == [
        "redis-3 (127.0.0.1:7003): no answer within 2 s",
        f"{TOPOLOGY.hosts[0].name} cannot be reached (redis-4)",
    ]
