"""Another number of nodes: where new ones stand, which ones leave, and what stays where it is.

What runs keeps its name, host and port. New nodes are numbered on and stand where they protect most: apart from the
rest of their shard, on the machine with the fewest nodes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from redisforge.errors import ConfigError
from redisforge.model.facts import Facts, NodeFacts, UnitState
from redisforge.model.slots import count
from redisforge.model.topology import Host, RedisNode, Role, Topology
from redisforge.plan.view import actual_shards, newest_owners, replicas_of, slot_owners, view_of

_HIGHEST_PORT = 65535
_NUMBERED = re.compile(r"redis-(\d+)")


def grow(topology: Topology, shards: int, replicas: int, actual: Mapping[str, int]) -> Topology:
    """`topology` with at least `shards` shards of `replicas` replicas each; no node is taken away.

    `actual` is the shard of each node as the cluster has it (plan/view.actual_shards).

    Raises:
        ConfigError: a new node would need a port above 65535.
    """
    nodes = list(topology.nodes)
    members: dict[int, list[RedisNode]] = {shard: [] for shard in range(shards)}
    for node in nodes:
        members.setdefault(actual.get(node.name, node.shard), []).append(node)
    for shard in sorted(members):
        while len(members[shard]) < replicas + 1:
            role = Role.REPLICA if members[shard] else Role.MASTER
            node = _new_node(topology, nodes, members[shard], shard, role)
            members[shard].append(node)
            nodes.append(node)
    return replace(topology, nodes=tuple(nodes), shards=max(shards, topology.shards), replicas=replicas)


def _new_node(
    topology: Topology, nodes: Sequence[RedisNode], shard_nodes: Sequence[RedisNode], shard: int, role: Role
) -> RedisNode:
    open_hosts = [host for host in topology.hosts if host.name not in topology.maintenance]
    host = best_host(open_hosts or topology.hosts, nodes, shard_nodes, role)
    return node_at(topology, nodes, host, shard, role)


def node_at(topology: Topology, nodes: Sequence[RedisNode], host: Host, shard: int, role: Role) -> RedisNode:
    """A new node on a host, with the next number and a free port; `nodes` are all that there are.

    Raises:
        ConfigError: it would need a port above 65535.
    """
    numbers = [int(match[1]) for node in nodes if (match := _NUMBERED.fullmatch(node.name))]
    port = _free_port(topology, nodes, host.address)
    return RedisNode(
        name=f"redis-{max(numbers, default=0) + 1}",
        host=host.name,
        address=host.address,
        zone=host.zone,
        port=port,
        bus_port=port + topology.bus_offset,
        shard=shard,
        intended_role=role,
    )


def best_host(hosts: Sequence[Host], nodes: Sequence[RedisNode], shard: Sequence[RedisNode], role: Role) -> Host:
    """Apart from the shard by machine, then by zone; then where the fewest of its kind, and the fewest nodes, are."""
    per_address = Counter(node.address for node in nodes)
    alike_in_zone = Counter(node.zone for node in nodes if node.intended_role is role)
    alike = Counter(node.address for node in nodes if node.intended_role is role)

    def cost(host: Host) -> tuple[int, int, int, int, int, str]:
        return (
            sum(node.address == host.address for node in shard),
            sum(node.zone == host.zone for node in shard),
            alike_in_zone[host.zone],
            alike[host.address],
            per_address[host.address],
            host.name,
        )

    return min(hosts, key=cost)


def _free_port(topology: Topology, nodes: Sequence[RedisNode], address: str) -> int:
    """The lowest port from `ports.redis` on that nothing declared on this address uses, with its bus port free too."""
    taken = {port for node in nodes if node.address == address for port in (node.port, node.bus_port)}
    taken |= {door.port for endpoint in topology.endpoints for door in endpoint.listeners if door.address == address}
    taken |= {envoy.admin_port for envoy in topology.envoys}
    port = topology.first_port or min((node.port for node in nodes), default=0)
    while port in taken or port + topology.bus_offset in taken:
        port += 1
    if port + topology.bus_offset > _HIGHEST_PORT:
        raise ConfigError(
            f"no port is left for a node more on {address}",
            problems=(f"the next one is {port}, and its bus port would be {port + topology.bus_offset}",),
            next_step="declare a lower ports.redis or ports.bus_offset",
        )
    return port


def keep_places(declared: Topology, recorded: Topology) -> Topology:
    """`declared` with the nodes that `recorded` has, where both mean the same hosts: what runs stays where it is,
    however the nodes would be placed afresh. With more shards or replicas declared, new nodes are added to those.

    Raises:
        ConfigError: a new node would need a port above 65535.
    """
    if declared.access or recorded.access:
        return declared  # it lists every node itself
    hosts = {host.name: host for host in declared.hosts}
    if resting := tuple(name for name in recorded.maintenance if name in hosts):
        declared = replace(declared, maintenance=resting)
    theirs = [node for node in recorded.nodes if node.managed]
    fewer = declared.shards < recorded.shards or declared.replicas < recorded.replicas
    if fewer or any(node.host not in hosts for node in theirs):
        return declared
    shift = declared.first_port - recorded.first_port if recorded.first_port else 0
    nodes = tuple(
        replace(
            node,
            address=hosts[node.host].address,
            zone=hosts[node.host].zone,
            port=node.port + shift,
            bus_port=node.port + shift + declared.bus_offset,
        )
        if node.managed
        else node
        for node in recorded.nodes
    )
    kept = replace(declared, nodes=nodes)
    if (declared.shards, declared.replicas) == (recorded.shards, recorded.replicas):
        return kept
    return grow(kept, declared.shards, declared.replicas, {node.name: node.shard for node in nodes})


def leaving_nodes(topology: Topology, facts: Facts, shards: int, replicas: int) -> frozenset[str]:
    """The nodes that leave so that `shards` shards with `replicas` replicas each are left.

    Whole shards leave: the one with the fewest slots first (it may be half empty already), then the youngest. Of a
    shard with too many replicas those leave that protect least: on the machine or in the zone of another, then the
    youngest.
    """
    owners = sorted(newest_owners(facts), key=lambda node: (count(node.slots), -_number(node.name)))
    surplus, staying = owners[: max(0, len(owners) - shards)], owners[max(0, len(owners) - shards) :]
    leaving = {name for owner in surplus for name in (owner.name, *_replica_names(topology, facts, owner.id))}
    idle = idle_masters(topology, facts)
    new = shards - len(staying)
    declared = {node.name: node for node in topology.nodes}
    room = shards * (replicas + 1)
    for master in (*staying, *idle[:new]):
        kept = [declared[master.name]]
        spare = [declared[name] for name in _replica_names(topology, facts, master.id)]
        while spare and len(kept) <= replicas:
            best = min(spare, key=lambda node: _closeness(node, kept))
            spare.remove(best)
            kept.append(best)
        leaving |= {node.name for node in spare}
        room -= len(kept)
    # What belongs to no shard yet, or no more, is to be a replica while one is missing: nodes that run before ghosts.
    loose = [name for node in idle[new:] for name in (node.name, *_replica_names(topology, facts, node.id))]
    loose += _orphans(topology, facts, owners)
    loose += sorted((node.name for node in topology.nodes if is_ghost(topology, facts, node.name)), key=_number)
    return frozenset(leaving.union(loose[max(0, room) :]))


def idle_masters(topology: Topology, facts: Facts) -> list[NodeFacts]:
    """Masters without slots: new ones, nodes that are to be replicas, and those that a run which was cut off has
    emptied. First those that are to get slots."""
    declared = {node.name: node for node in topology.nodes}
    with_replicas = {node.master_id for node in facts.reachable_nodes() if node.master_id}
    idle = [
        node
        for node in facts.reachable_nodes()
        if node.role is Role.MASTER and not node.slots and node.name in declared
    ]
    return sorted(
        idle,
        key=lambda node: (
            node.id not in with_replicas,
            declared[node.name].intended_role is not Role.MASTER,
            declared[node.name].shard,
            node.name,
        ),
    )


def _orphans(topology: Topology, facts: Facts, owners: Sequence[NodeFacts]) -> list[str]:
    """Replicas of a master that is none any more and left no slots: a run that was then cut off has reset it, or made
    it a replica itself."""
    living = {node.id for node in facts.reachable_nodes() if node.role is Role.MASTER}
    claimed = {peer.id for owner in owners for peer in owner.peers if peer.slots}
    declared = {node.name for node in topology.nodes}
    return [
        node.name
        for node in facts.reachable_nodes()
        if node.role is Role.REPLICA and node.master_id not in living | claimed and node.name in declared
    ]


def _replica_names(topology: Topology, facts: Facts, master_id: str) -> list[str]:
    """The replicas of a master, those that do not answer included."""
    members = newest_owners(facts) or facts.reachable_nodes()
    views = [peer for node in members for peer in node.peers if peer.master_id == master_id]
    listed = {(peer.address, peer.port) for peer in views}
    silent = [n.name for n in topology.nodes if (n.address, n.port) in listed and not facts.nodes[n.name].reachable]
    return [*(node.name for node in replicas_of(facts, master_id)), *silent]


def _closeness(node: RedisNode, others: Sequence[RedisNode]) -> tuple[int, int, int]:
    same_machine = sum(node.address == other.address for other in others)
    return same_machine, sum(node.zone == other.zone for other in others), _number(node.name)


def _number(name: str) -> int:
    match = _NUMBERED.fullmatch(name)
    return int(match[1]) if match else 0


def is_ghost(topology: Topology, facts: Facts, name: str) -> bool:
    """Whether a declared node is gone for good: it does not answer, its Unit is stopped or deleted, and nobody knows
    its address. Only those who own slots are asked: others may have been forgotten, and still list each other."""
    seen, unit = facts.nodes[name], facts.units.get(name)
    gone = (UnitState.ABSENT, UnitState.STOPPED)
    if seen.reachable or not facts.reachable_nodes() or (unit is not None and unit.state not in gone):
        return False
    here = (seen.address, seen.port)
    members = newest_owners(facts) or facts.reachable_nodes()
    was_here = any((peer.address, peer.port) == here for node in members for peer in node.peers)
    return not was_here and not Counter(node.name for node in topology.nodes if not node.managed)[name]


def without(topology: Topology, names: frozenset[str]) -> Topology:
    """`topology` less the nodes called `names`."""
    return replace(topology, nodes=tuple(node for node in topology.nodes if node.name not in names))


def numbered_as_it_is(topology: Topology, facts: Facts) -> Topology:
    """`topology` with every node's shard as the cluster has it now, and as many shards as it has masters, those
    included that are silent and not replaced yet."""
    counted = replace(topology, shards=len(slot_owners(facts)) or topology.shards)
    shards = actual_shards(counted, facts)
    return replace(counted, nodes=tuple(replace(node, shard=shards[node.name]) for node in topology.nodes))


def as_it_is(topology: Topology, facts: Facts) -> Topology:
    """The same, with every node's role too."""
    numbered = numbered_as_it_is(topology, facts)

    def now(node: RedisNode) -> RedisNode:
        seen: NodeFacts = facts.nodes[node.name]
        return replace(node, intended_role=seen.role if seen.reachable else node.intended_role)

    return replace(numbered, nodes=tuple(now(node) for node in numbered.nodes))


def id_of(facts: Facts, name: str) -> str:
    """A node's id: its own word, or, if it is silent, what the others call the node at its address; "" if nothing."""
    seen = facts.nodes[name]
    if seen.reachable:
        return seen.id
    here = (seen.address, seen.port)
    found = (peer for node in facts.reachable_nodes() for peer in node.peers if (peer.address, peer.port) == here)
    return next((peer.id for peer in found if view_of(facts, peer.id)), "")
