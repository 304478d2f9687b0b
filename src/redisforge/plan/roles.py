"""Which node of a shard should be its master, so that zones and hosts carry an even number of masters.

Failovers, planned or not, let masters drift together. What brings them back is planned failovers, and no data moves.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.report import Problem
from redisforge.model.topology import RedisNode, Topology
from redisforge.plan.spread import Machine, spread, zone_loads
from redisforge.plan.view import actual_shards, copies_of, newest_owners, replicas_of

HANDOVER_LAG_BYTES = 64 * 1024 * 1024
"""A replica further behind its master is no candidate: CLUSTER FAILOVER stops the master's clients until it has caught
up, and gives up after 5 s (Redis `CLUSTER_MF_TIMEOUT`)."""
_COMMAND = "`redisforge rebalance --roles`"


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """A planned failover: the node `replica` takes over from the node `master`, and why."""

    replica: str
    master: str
    why: str


class _Shard(msgspec.Struct, frozen=True):
    """A shard: the declared nodes of its master and of the replicas that could be it, the best replica first."""

    master: RedisNode
    candidates: tuple[RedisNode, ...]

    @property
    def choices(self) -> frozenset[Machine]:
        return frozenset(map(_machine, (self.master, *self.candidates)))


def even_roles(topology: Topology, facts: Facts) -> tuple[Promotion, ...]:
    """The fewest planned failovers after which masters are spread as evenly as can be: over zones, then over hosts.

    Only replicas in sync are candidates. Shards whose master cannot be asked are left out. After any of the failovers
    the rest is what this gives again. Empty when no failover would make it more even.
    """
    shards = tuple(_shards(topology, facts, in_sync_only=True))
    places = [_machine(shard.master) for shard in shards]
    wanted = spread(places, [shard.choices for shard in shards])
    before, after = zone_loads(places), zone_loads(wanted)
    promotions: list[Promotion] = []
    for shard, here, there in zip(shards, places, wanted, strict=True):
        if here == there:
            continue
        replica = next(node for node in shard.candidates if _machine(node) == there)
        if before == after:
            why = f"{shard.master.host} has {places.count(here)} masters, {replica.host} {places.count(there)}"
        else:
            why = f"masters by zone: {_loads(before, after)}"
        promotions.append(Promotion(replica=replica.name, master=shard.master.name, why=why))
    return tuple(promotions)


def crowded(topology: Topology, facts: Facts) -> tuple[Problem, ...]:
    """What of the placement is worse than the hosts and zones allow, in words; nothing on a single host.

    Shards that use fewer hosts or zones than they could, and hosts or zones with more masters than their even share
    if other roles would relieve them.
    """
    if len({node.address for node in topology.nodes}) < 2:
        return ()
    return (*_shared(topology, facts), *_heaped(topology, facts))


def is_in_sync(master: NodeFacts, replica: NodeFacts) -> bool:
    """Whether the replica follows its master closely enough to take over from it while it lives, and would take
    writes then."""
    return (
        replica.master_link_up
        and replica.aof_ok
        and not replica.sync_in_progress
        and not replica.loading
        and replica.replication_offset > 0
        and master.replication_offset - replica.replication_offset <= HANDOVER_LAG_BYTES
    )


def _shards(topology: Topology, facts: Facts, *, in_sync_only: bool) -> Iterator[_Shard]:
    declared = {node.name: node for node in topology.nodes}
    for master in newest_owners(facts):
        if master.name not in declared:
            continue
        if in_sync_only:
            copies = [replica for replica in copies_of(topology, facts, master.id) if is_in_sync(master, replica)]
        else:
            copies = list(replicas_of(facts, master.id))
        known = (declared[replica.name] for replica in copies if replica.name in declared)
        candidates = tuple(node for node in known if node.host not in topology.maintenance)
        yield _Shard(declared[master.name], candidates)


def _machine(node: RedisNode) -> Machine:
    return Machine(node.zone, node.address)


def _loads(before: Counter[str], after: Counter[str]) -> str:
    zones = sorted({*before, *after})
    return ", ".join(f"{zone} {before[zone]}→{after[zone]}" for zone in zones if before[zone] != after[zone])


def _shared(topology: Topology, facts: Facts) -> Iterator[Problem]:
    """Shards on fewer hosts, or else in fewer zones, than their number of nodes and the topology allow."""
    addresses = {node.address: node.host for node in topology.nodes}
    zones = {node.zone for node in topology.nodes}
    declared = {node.name: node for node in topology.nodes}
    members: defaultdict[int, list[RedisNode]] = defaultdict(list)
    for name, shard in actual_shards(topology, facts).items():
        members[shard].append(declared[name])
    for shard, nodes in sorted(members.items()):
        on_hosts, in_zones = Counter(node.address for node in nodes), Counter(node.zone for node in nodes)
        if len(on_hosts) < min(len(nodes), len(addresses)):
            for address, copies in sorted(on_hosts.items()):
                if copies > 1:
                    names = [node.name for node in nodes if node.address == address]
                    yield _sharing(topology, shard, names, f"the host {address}", len(nodes))
        elif len(in_zones) < min(len(nodes), len(zones)):
            for zone, copies in sorted(in_zones.items()):
                if copies > 1:
                    names = [node.name for node in nodes if node.zone == zone]
                    yield _sharing(topology, shard, names, f"the zone {zone}", len(nodes))


def _sharing(topology: Topology, shard: int, names: Sequence[str], what: str, copies: int) -> Problem:
    loss = "lose the shard" if len(names) == copies else f"take {len(names)} of its {copies} copies at once"
    return Problem(
        severity="warning", where=f"shard {shard + 1}", what=f"{', '.join(names)} share {what}",
        next_step=f"its loss would {loss}: {_apart(topology)}",
    )  # fmt: skip


def _apart(topology: Topology) -> str:
    """How a copy gets to another place: what is added goes where it protects most, what protects least leaves."""
    if topology.access:
        return "place a replica elsewhere and remove one here"
    more, now = (f"`redisforge scale --replicas {number}`" for number in (topology.replicas + 1, topology.replicas))
    return f"{more} makes a copy elsewhere, then {now} removes the one here"


def _heaped(topology: Topology, facts: Facts) -> Iterator[Problem]:
    """Hosts and zones with more masters than their even share, and than they would have with other roles."""
    shards = tuple(_shards(topology, facts, in_sync_only=False))
    places = [_machine(shard.master) for shard in shards]
    hosts = {_machine(node): node.host for node in topology.nodes}
    zones = {node.zone for node in topology.nodes}
    host_share, zone_share = math.ceil(len(places) / len(hosts)), math.ceil(len(places) / len(zones))
    loads, by_zone = Counter(places), zone_loads(places)
    if max(loads.values(), default=0) <= host_share and max(by_zone.values(), default=0) <= zone_share:
        return
    best = spread(places, [shard.choices for shard in shards])
    best_loads, best_by_zone = Counter(best), zone_loads(best)
    told: set[str] = set()
    for machine, load in sorted(loads.items()):
        if load > max(host_share, best_loads[machine]):
            told.add(machine.zone)
            yield _heap(f"host {hosts[machine]}", load, best_loads[machine], len(places))
    for zone, load in sorted(by_zone.items()):
        if zone not in told and load > max(zone_share, best_by_zone[zone]):
            yield _heap(f"zone {zone}", load, best_by_zone[zone], len(places))


def _heap(where: str, load: int, best: int, masters: int) -> Problem:
    return Problem(
        severity="warning", where=where, what=f"carries {load} of {masters} masters; {best} would be even",
        next_step=f"{_COMMAND} hands the roles over, once the replicas are in sync",
    )  # fmt: skip
