"""Who takes the place of the nodes and Envoys of a host that is emptied, and whether the other hosts have room for it.

Refused before anything is done: no host left, a host with two copies of one shard, too little memory, and masters that
could not be spread any more so that a majority survives the loss of any zone or host.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts
from redisforge.model.topology import Host, RedisNode, Role, Topology
from redisforge.model.words import counted
from redisforge.plan.resize import best_host, node_at
from redisforge.plan.view import actual_shards, newest_owners


class Machine(msgspec.Struct, frozen=True):
    """The memory of the machine behind a host. `name` is the same for hosts that are one machine."""

    name: str
    total_bytes: int
    available_bytes: int


def relocated(topology: Topology, facts: Facts, leaving: Collection[str], hosts: Sequence[Host]) -> Topology:
    """`topology` with new nodes on `hosts`, so that every shard is as large as declared without `leaving`.

    Shards are numbered as they are now, for all nodes alike: a run that is cut off must find who belongs together.

    Raises:
        RefusedError: there is no host to place them on.
        ConfigError: a new node would need a port above 65535.
    """
    actual = actual_shards(topology, facts)
    nodes = [replace(node, shard=actual.get(node.name, node.shard)) for node in topology.nodes]
    for shard in range(topology.shards):
        members = [node for node in nodes if node.name not in leaving and node.shard == shard]
        while len(members) < topology.replicas + 1:
            if not hosts:
                raise RefusedError(
                    "there is no other host",
                    where=topology.name,
                    why="every other host is in maintenance, or there is none",
                    next_step="declare one more under hosts: in redisforge.yaml and run `redisforge up`, or end the "
                    "maintenance of one (`redisforge host maintenance exit HOST`)",
                )
            staying = [node for node in nodes if node.name not in leaving]
            host = best_host(hosts, staying, members, Role.REPLICA)
            node = node_at(topology, nodes, host, shard, Role.REPLICA)
            nodes.append(node)
            members.append(node)
    return replace(topology, nodes=tuple(nodes))


def refuse_shared_hosts(topology: Topology, facts: Facts, leaving: Collection[str], new: Sequence[RedisNode]) -> None:
    """No new node stands on the machine of another copy of its shard. Raises RefusedError."""
    actual = actual_shards(topology, facts)
    shard_of = {node.name: actual.get(node.name, node.shard) for node in topology.nodes}
    crowded = {
        node.name: other.name
        for node in new
        for other in topology.nodes
        if other.name != node.name
        and other.name not in leaving
        and (other.address, shard_of[other.name]) == (node.address, shard_of[node.name])
    }
    if crowded:
        node = next(node for node in new if node.name in crowded)
        raise RefusedError(
            f"no room: {node.host} would hold two copies of a shard",
            where=f"shard {shard_of[node.name] + 1}: {crowded[node.name]} is there already",
            why="with that host both copies would be lost; no other host is free for one",
            next_step="declare one more host and run `redisforge up`; or accept that with --force; or only hand the "
            "masters over: `redisforge host maintenance enter`",
        )


def refuse_no_room(topology: Topology, facts: Facts, new: Sequence[RedisNode], machines: Mapping[str, Machine]) -> None:
    """The machines that get new nodes have the memory. `machines` by the name of the host; who is not there is not
    judged. Raises RefusedError with the bytes."""
    data = {owner.name: owner.used_memory_bytes for owner in newest_owners(facts)}
    largest = max(data.values(), default=0)
    for name in sorted({machines[node.host].name for node in new if node.host in machines}):
        hosts = {host for host, machine in machines.items() if machine.name == name}
        machine = next(machines[host] for host in hosts)
        coming = [node for node in new if node.host in hosts]
        there = [node for node in topology.own_nodes if node.host in hosts]
        promised = len(there) * topology.redis.max_memory_bytes
        needed = len(coming) * largest
        if promised > machine.total_bytes or needed > machine.available_bytes:
            limits = f"{len(there)} nodes may take {_megabytes(promised)} of {_megabytes(machine.total_bytes)}"
            now = f"{len(coming)} new ones hold {_megabytes(needed)}, {_megabytes(machine.available_bytes)} are free"
            raise RefusedError(
                f"no room: {', '.join(sorted({node.host for node in coming}))} has too little memory",
                where=", ".join(node.name for node in coming),
                why=f"{limits}; {now}",
                next_step="declare one more host and run `redisforge up`, or lower memory.max",
            )


def refuse_lost_majority(topology: Topology, gone: Host) -> None:
    """Without `gone` the masters can still be spread so that a majority survives the loss of any zone, and of any host,
    if they could before. Raises RefusedError."""
    before = [host for host in topology.hosts if host.name == gone.name or host.name not in topology.maintenance]
    after = [host for host in before if host.address != gone.address]
    kinds: tuple[tuple[str, Callable[[Host], str]], ...] = (
        ("zone", lambda host: host.zone),
        ("host", lambda host: host.address),
    )
    for kind, label in kinds:
        if _survives(topology, before, label) and not _survives(topology, after, label):
            raise RefusedError(
                f"without {gone.name} one {kind} would have half of the masters",
                where=f"{topology.shards} masters on {counted(len({label(host) for host in after}), kind)}",
                why=f"the loss of that {kind} would leave no majority, and nothing would fail over",
                next_step=f"add a host in another {kind} first, or accept that with --force",
            )


def _survives(topology: Topology, hosts: Sequence[Host], label: Callable[[Host], str]) -> bool:
    """Whether masters that are spread evenly keep a majority without any one of the labels."""
    places = Counter(label(host) for host in hosts)
    return bool(places) and math.ceil(topology.shards / len(places)) * 2 < topology.shards


def _megabytes(size: int) -> str:
    return f"{size // 2**20} MB"
