"""Zones that protect less than they seem to: what is allowed, and what would cure it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from redisforge.model.topology import Host
from redisforge.plan.placement import place

_MUCH_MORE = 2.0
"""A host that carries so many times the nodes of another one is the first to run out of memory or of cores."""


def zone_notices(hosts: Sequence[Host], shards: int, replicas: int) -> list[str]:
    """Sentences on too few zones, and on zones with too few hosts; none for a single machine."""
    machines = {host.address: host.zone for host in hosts}
    zones = sorted(set(machines.values()))
    if len(machines) < 2:
        return []
    if len(zones) == 1:
        return [
            f"all hosts are in zone {zones[0]}: its loss would stop the cluster. Give hosts of other racks or sites "
            "another zone"
        ]
    notices: list[str] = []
    if len(zones) == 2:
        notices.append(
            f"there are two zones, {zones[0]} and {zones[1]}: the loss of the one with more masters would leave no "
            "majority, and nothing would fail over. Add a host in a third zone"
        )
    if len(zones) <= replicas:
        notices.append(
            f"a shard has {replicas + 1} copies, and there are {len(zones)} zones: the loss of one may take two of "
            "them. Add a host in another zone, or ask for fewer replicas"
        )
    return [*notices, *_small_zones(hosts, machines, shards, replicas)]


def _small_zones(hosts: Sequence[Host], machines: dict[str, str], shards: int, replicas: int) -> list[str]:
    """Zones with so few hosts that each carries much more than hosts elsewhere."""
    load = Counter(seat.host.address for seat in place(hosts, shards, replicas))
    heaviest: dict[str, int] = {}
    for address, zone in machines.items():
        heaviest[zone] = max(heaviest.get(zone, 0), load[address])
    lightest = min(heaviest, key=lambda zone: (heaviest[zone], zone))
    sizes = Counter(machines.values())
    return [
        f"zone {zone} has {_hosts(sizes[zone])}, and each carries up to {heaviest[zone]} nodes; in {lightest} it is "
        f"{heaviest[lightest]}. Add hosts to {zone}, so that zones are of one size"
        for zone in sorted(heaviest)
        if heaviest[zone] >= _MUCH_MORE * heaviest[lightest] and sizes[zone] < sizes[lightest]
    ]


def _hosts(count: int) -> str:
    return "one host" if count == 1 else f"{count} hosts"
