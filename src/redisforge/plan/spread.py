"""Spreading things evenly over machines and zones with the fewest moves: minimum-cost flow, and nothing of Redis.

Each thing stands on one machine and could stand on some others. Wanted is the least sum of squared zone loads, then of
squared machine loads, then the fewest things that move. Moving one is a flow of one unit from machine to machine; a
unit pays on its way out of its machine and zone what their loads make of it. A placement is the best one exactly when
no cycle of negative cost is left (Klein's cycle cancelling; Ahuja, Magnanti, Orlin, "Network Flows", section 9.6), so
cycles are looked for (Bellman-Ford) and carried out until there is none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Machine(NamedTuple):
    """A machine and the zone in which it stands."""

    zone: str
    address: str


_Vertex = Machine | str | int
"""A machine, a zone by its name, or `_SINK`."""
_SINK = 0
_Arcs = dict[tuple[_Vertex, _Vertex], tuple[int, int]]
"""(cost, number of the thing that moves along it, or -1) by where it leads."""


def spread(places: Sequence[Machine], choices: Sequence[frozenset[Machine]]) -> tuple[Machine, ...]:
    """Where each thing should stand.

    Args:
        places: where each thing stands now.
        choices: the machines on which it could stand, beside its present one.
    """
    board = _Board(places, choices)
    while cycle := _negative_cycle(board.arcs()):
        board.move(cycle)
    return tuple(board.now)


def zone_loads(places: Sequence[Machine]) -> Counter[str]:
    """Things by zone."""
    return Counter(machine.zone for machine in places)


class _Board:
    """Where things stand, and what it costs to move one."""

    def __init__(self, places: Sequence[Machine], choices: Sequence[frozenset[Machine]]) -> None:
        self.now = list(places)
        self._first = tuple(places)
        self._choices = [sorted({place, *possible}) for place, possible in zip(places, choices, strict=True)]
        self._things: defaultdict[Machine, set[int]] = defaultdict(set)
        for thing, place in enumerate(places):
            self._things[place].add(thing)
        self._machines = sorted({machine for possible in self._choices for machine in possible})
        self._exits = {machine: self._exits_of(machine) for machine in self._machines}
        # Each level counts more than all that the levels below it can add up to.
        self._machine_cost = 2 * len(places) ** 2 + 2 * len(places) + 1
        self._zone_cost = self._machine_cost**2

    def move(self, places: Mapping[int, Machine]) -> None:
        """Put each of these things somewhere else."""
        touched = {*(self.now[thing] for thing in places), *places.values()}
        for thing, machine in places.items():
            self._things[self.now[thing]].remove(thing)
            self._things[machine].add(thing)
            self.now[thing] = machine
        self._exits |= {machine: self._exits_of(machine) for machine in touched}

    def arcs(self) -> _Arcs:
        """The network in which a unit flows from machine to machine, or through zones and the sink."""
        arcs: _Arcs = {}
        for exits in self._exits.values():
            arcs |= exits
        by_zone = zone_loads(self.now)
        for machine in self._machines:
            load = len(self._things[machine])
            arcs[machine, machine.zone] = ((2 * load + 1) * self._machine_cost, -1)
            if load:
                arcs[machine.zone, machine] = (-(2 * load - 1) * self._machine_cost, -1)
        for zone in sorted({machine.zone for machine in self._machines}):
            arcs[zone, _SINK] = ((2 * by_zone[zone] + 1) * self._zone_cost, -1)
            if by_zone[zone]:
                arcs[_SINK, zone] = (-(2 * by_zone[zone] - 1) * self._zone_cost, -1)
        return arcs

    def _exits_of(self, here: Machine) -> _Arcs:
        """The cheapest thing to move from here to each other machine; going back where it stood takes a move back."""
        exits: _Arcs = {}
        for thing in sorted(self._things[here]):
            first = self._first[thing]
            for there in self._choices[thing]:
                cost = (there != first) - (here != first)
                if there != here and ((here, there) not in exits or cost < exits[here, there][0]):
                    exits[here, there] = (cost, thing)
        return exits


def _negative_cycle(arcs: _Arcs) -> dict[int, Machine]:
    """The things that move along a cycle of negative cost, and where to; empty if there is no such cycle."""
    distance: dict[_Vertex, int] = dict.fromkeys((end for arc in arcs for end in arc), 0)
    came_from: dict[_Vertex, _Vertex] = {}
    changed = True
    while changed:
        changed = False
        for (start, end), (cost, _) in arcs.items():
            if distance[start] + cost < distance[end]:
                distance[end] = distance[start] + cost
                came_from[end] = start
                changed = True
        if ring := _ring(came_from):
            steps = [(arcs[came_from[vertex], vertex][1], vertex) for vertex in ring]
            return {thing: vertex for thing, vertex in steps if isinstance(vertex, Machine) and thing >= 0}
    return {}


def _ring(came_from: Mapping[_Vertex, _Vertex]) -> list[_Vertex]:
    """A cycle of the predecessors, which is one of negative cost; empty if there is none."""
    seen: dict[_Vertex, _Vertex] = {}
    for start in came_from:
        vertex: _Vertex | None = start
        while vertex is not None and vertex not in seen:
            seen[vertex] = start
            vertex = came_from.get(vertex)
        if vertex is not None and seen[vertex] == start:
            ring = [vertex]
            while (vertex := came_from[vertex]) != ring[0]:
                ring.append(vertex)
            return ring
    return []
