"""Spreading things evenly over machines and zones with the fewest moves: minimum-cost flow, and nothing of Redis.

Each thing stands on one machine and could stand on some others. Wanted is the least sum of squared zone loads, then of
squared machine loads, then the fewest things that move. Moving one is a flow of one unit from machine to machine; a
unit pays on its way out of its machine and zone what their loads make of it. A placement is the best one exactly when
no cycle of negative cost is left (Klein's cycle cancelling; Ahuja, Magnanti, Orlin, "Network Flows", section 9.6), so
cycles are looked for (Bellman-Ford) and carried out until there is none.
"""

from __future__ import annotations

from collections import Counter
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
    now = list(places)
    # Each level counts more than all that the levels below it can add up to.
    machine_cost = 2 * len(now) ** 2 + 2 * len(now) + 1
    zone_cost = machine_cost * machine_cost
    while cycle := _negative_cycle(_arcs(places, now, choices, (zone_cost, machine_cost))):
        for thing, machine in cycle.items():
            now[thing] = machine
    return tuple(now)


def zone_loads(places: Sequence[Machine]) -> Counter[str]:
    """Things by zone."""
    return Counter(machine.zone for machine in places)


def _arcs(
    first: Sequence[Machine], now: Sequence[Machine], choices: Sequence[frozenset[Machine]], costs: tuple[int, int]
) -> _Arcs:
    zone_cost, machine_cost = costs
    arcs: _Arcs = {}
    for thing, (here, possible) in enumerate(zip(now, choices, strict=True)):
        for there in sorted({*possible, first[thing]} - {here}):
            cost = (there != first[thing]) - (here != first[thing])
            if (here, there) not in arcs or cost < arcs[here, there][0]:
                arcs[here, there] = (cost, thing)
    by_machine, by_zone = Counter(now), zone_loads(now)
    machines = sorted({*now, *(machine for possible in choices for machine in possible)})
    for machine in machines:
        load = by_machine[machine]
        arcs[machine, machine.zone] = ((2 * load + 1) * machine_cost, -1)
        if load:
            arcs[machine.zone, machine] = (-(2 * load - 1) * machine_cost, -1)
    for zone in sorted({machine.zone for machine in machines}):
        arcs[zone, _SINK] = ((2 * by_zone[zone] + 1) * zone_cost, -1)
        if by_zone[zone]:
            arcs[_SINK, zone] = (-(2 * by_zone[zone] - 1) * zone_cost, -1)
    return arcs


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
