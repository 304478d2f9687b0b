"""A node that did not come up with a new version: what has no other copy is not deleted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from topologies import formed, make_topology

from redisforge.errors import GateError, UnitError
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.topology import Topology
from redisforge.plan.upgrade import Upgrade
from redisforge.runbooks import put_back
from redisforge.runbooks.placed import PlacedNode
from redisforge.runbooks.put_back import PutBack

WANTED = Upgrade(version="8.6.3", config_hashes={})
ERROR = GateError("the cluster did not come into order")


class Stage:
    """A cluster in memory. `starts` are those that the node was put back with: True for a blank one."""

    def __init__(self, topology: Topology, facts: Facts) -> None:
        self.facts = facts
        self.starts: list[bool] = []
        self.runtime = self
        self.topology = topology

    def log_path(self, name: str) -> str:
        return f"{name}.log"

    def unit_folder(self, name: str) -> str:
        return f"/units/{name}"

    async def look(self, **_: object) -> Facts:
        return self.facts


def here(_cluster: object, _name: str, path: str, _image: str) -> str:
    return path


def stage(topology: Topology, lost: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Stage, dict[str, Any]]:
    facts = formed(topology)
    facts = replace(
        facts,
        nodes={**facts.nodes, lost: replace(facts.nodes[lost], id="", problem="Connection refused")},
        units={name: replace(unit, placed_hash=name) for name, unit in facts.units.items()},
    )
    made = Stage(topology, facts)
    units = {
        node.name: SimpleNamespace(placed_hash=node.name, argv=("/new/redis-server",), container=None)
        for node in topology.nodes
    }

    async def start(_: object, name: str, unit: object, *, blank: bool) -> bool:
        made.starts.append(blank)
        return False

    async def nothing(*_: object) -> str:
        return ""

    monkeypatch.setattr(PutBack, "_start", start)
    monkeypatch.setattr(PutBack, "_give_identity_back", nothing)
    monkeypatch.setattr(PutBack, "_await_whole", nothing)
    monkeypatch.setattr(put_back, "log_tail", nothing)
    monkeypatch.setattr(put_back, "local_program", here)
    return made, units


def old_units(units: dict[str, Any]) -> Any:
    def old_unit(_: object, name: str, master: object) -> Any:
        del master
        return units[name]

    return old_unit


def put_back_of(made: Stage, units: dict[str, Any], path: str) -> PutBack:
    before = {name: PlacedNode(name, path, {}) for name in units}
    observer: Any = made
    cluster: Any = made
    return PutBack(cluster, observer, WANTED, units, before, lambda _: None)


@pytest.mark.parametrize("replicas", [0, 1])
async def test_without_an_older_program_nothing_is_put_back(replicas: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster ran the version before: the error of the upgrade stands, whatever keeps the node down."""
    made, units = stage(make_topology(3, replicas), "redis-1", monkeypatch)
    await put_back_of(made, units, "/new/redis-server").run(ERROR)
    assert made.starts == []


async def test_the_only_copy_does_not_start_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    made, units = stage(make_topology(3, 0), "redis-1", monkeypatch)
    monkeypatch.setattr(PutBack, "_old_unit", old_units(units))
    with pytest.raises(UnitError) as error:
        await put_back_of(made, units, "/old/redis-server").run(ERROR)
    assert made.starts == [False]
    assert "no other node has a copy of its data" in error.value.what
    assert "the cluster works" not in error.value.next_step
    assert "/units/redis-1/data" in error.value.next_step


async def test_a_replica_starts_blank_when_its_files_are_of_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = make_topology(3, 1)
    replica: NodeFacts = next(node for node in formed(topology).nodes.values() if node.master_id)
    made, units = stage(topology, replica.name, monkeypatch)
    monkeypatch.setattr(PutBack, "_old_unit", old_units(units))
    with pytest.raises(UnitError, match="its master serves the shard"):
        await put_back_of(made, units, "/old/redis-server").run(ERROR)
    assert made.starts == [False, True]
