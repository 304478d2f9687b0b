"""Which node stands on which host, and which shard and role it is formed with.

The construction. Deal N = shards x (replicas + 1) seats evenly to zones and, inside a zone, to hosts; write the
seats down zone by zone and host by host; give the k-th seat to shard k mod shards. Seats of one host are
neighbours in that list, so two of them fall into the same shard only when the host has more seats than there
are shards, that is, when it cannot be avoided (pigeonhole). The same holds for zones, because the hosts of a
zone are neighbours too. So one pass gives the best separation by zone first and by host second, in O(N).

Masters are then picked, one seat of each shard, so that zones and hosts carry an even number of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from redisforge.model.slots import SLOT_COUNT, SlotRange
from redisforge.model.topology import Host, Role
from redisforge.plan.spread import Machine, spread


class Seat(msgspec.Struct, frozen=True):
    """A place for a node: its host, its shard (from 0) and the role that it is formed with."""

    host: Host
    shard: int
    role: Role


def place(hosts: Sequence[Host], shards: int, replicas: int) -> tuple[Seat, ...]:
    """Seat `shards` x (`replicas` + 1) nodes on `hosts`.

    Hosts that share an address are one machine. The result is ordered for naming: masters first, by shard.

    Raises:
        ValueError: no hosts, or a count below 1.
    """
    if not hosts or shards < 1 or replicas < 0:
        raise ValueError("placement needs a host, a shard, and no negative number of replicas")
    seats = _deal(hosts, shards, shards * (replicas + 1))
    return assign(seats, shards)


def assign(seats: Sequence[Host], shards: int) -> tuple[Seat, ...]:
    """Group existing nodes, given as one host per node, into `shards` and pick the masters.

    The result holds the masters by shard, then the first replica of each shard, then the second: so that further
    replicas of a running cluster are appended, and what runs keeps its name and port. Its order is not that of
    `seats`; nodes of one host are interchangeable.

    Raises:
        ValueError: fewer seats than shards.
    """
    if len(seats) < shards:
        raise ValueError(f"{len(seats)} nodes cannot form {shards} shards")
    ordered = sorted(seats, key=lambda host: (host.zone, host.address, host.name))
    members: list[list[Host]] = [ordered[shard::shards] for shard in range(shards)]
    masters = _choose_masters(members)
    seated = [Seat(members[shard][masters[shard]], shard, Role.MASTER) for shard in range(shards)]
    copies = [
        (rank, shard, host)
        for shard in range(shards)
        for rank, host in enumerate(members[shard][: masters[shard]] + members[shard][masters[shard] + 1 :])
    ]
    seated.extend(Seat(host, shard, Role.REPLICA) for _, shard, host in sorted(copies, key=lambda copy: copy[:2]))
    return tuple(seated)


def split_slots(shards: int) -> tuple[SlotRange, ...]:
    """Divide the 16384 slots into `shards` contiguous ranges whose sizes differ by at most one."""
    bounds = [shard * SLOT_COUNT // shards for shard in range(shards + 1)]
    return tuple(SlotRange(first, after - 1) for first, after in pairwise(bounds))


def sharing_is_forced(hosts: Sequence[Host], replicas: int) -> bool:
    """Whether a replica must share a machine with its master: fewer addresses than nodes of a shard."""
    return len({host.address for host in hosts}) < replicas + 1


def _deal(hosts: Sequence[Host], shards: int, seat_count: int) -> list[Host]:
    """Give every zone, and every machine in it, its even share of `seat_count` seats.

    A machine takes at most one seat of each shard while others have room, however few machines its zone has.
    """
    zones: dict[str, list[Host]] = {}
    seen: set[str] = set()
    for host in sorted(hosts, key=lambda host: (host.zone, host.name)):
        if host.address not in seen:  # a second name of a machine adds no capacity
            seen.add(host.address)
            zones.setdefault(host.zone, []).append(host)
    seats: list[Host] = []
    zone_shares = _share(seat_count, [shards * len(zone) for zone in zones.values()])
    for zone_share, zone in zip(zone_shares, zones.values(), strict=True):
        for host_share, host in zip(_share(zone_share, [shards] * len(zone)), zone, strict=True):
            seats.extend([host] * host_share)
    return seats


def _share(total: int, capacities: list[int]) -> list[int]:
    """Divide `total` as evenly as the capacities allow; what exceeds all of them is divided evenly on top."""
    shares = [0] * len(capacities)
    excess = max(0, total - sum(capacities))
    left = total - excess
    while left:
        open_parts = [part for part, capacity in enumerate(capacities) if shares[part] < capacity]
        each = max(1, left // len(open_parts))
        for part in open_parts:
            given = min(each, capacities[part] - shares[part], left)
            shares[part] += given
            left -= given
    for part in range(excess):
        shares[part % len(shares)] += 1
    return shares


def _choose_masters(members: list[list[Host]]) -> list[int]:
    """Pick one member of each shard; returns its index. First greedily, then with what plan/spread.py makes more even:
    so that right after formation there is nothing for `rebalance --roles` to do."""
    zone_load: Counter[str] = Counter()
    host_load: Counter[str] = Counter()
    chosen: list[int] = []
    for shard in members:
        best = min(range(len(shard)), key=lambda i: (zone_load[shard[i].zone], host_load[shard[i].address], i))
        chosen.append(best)
        zone_load[shard[best].zone] += 1
        host_load[shard[best].address] += 1
    machines = [[Machine(host.zone, host.address) for host in shard] for shard in members]
    places = [shard[index] for shard, index in zip(machines, chosen, strict=True)]
    wanted = spread(places, [frozenset(shard) for shard in machines])
    return [
        index if here == there else shard.index(there)
        for shard, index, here, there in zip(machines, chosen, places, wanted, strict=True)
    ]
