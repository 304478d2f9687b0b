"""Topologies for the planner's tests, and facts of clusters that are in order."""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from redisforge.model.facts import Facts, NodeFacts, UnitFacts, UnitState
from redisforge.model.topology import (
    Endpoint,
    EndpointKind,
    Engine,
    EnvoyInstance,
    EnvoySettings,
    ExternalAccess,
    Host,
    Listener,
    Persistence,
    RedisNode,
    RedisSettings,
    Role,
    TlsSettings,
    Topology,
    User,
    UserRole,
)
from redisforge.plan.bring_up import next_phase
from redisforge.plan.placement import place
from redisforge.plan.predict import apply, settle
from redisforge.plan.starting import Wishes

HASH = "declared"
"""The configuration hash of every Unit that runs as it is declared."""


def hosts_in_zones(*machines_per_zone: int) -> tuple[Host, ...]:
    """Hosts with an address each: `hosts_in_zones(2, 1)` are two machines in zone-1 and one in zone-2."""
    return tuple(
        Host(f"host-{zone}-{number}", f"10.{zone}.0.{number}", f"zone-{zone}")
        for zone, machines in enumerate(machines_per_zone, 1)
        for number in range(1, machines + 1)
    )


def make_topology(
    shards: int = 3,
    replicas: int = 1,
    hosts: tuple[Host, ...] = (Host("local", "127.0.0.1", "local"),),
    *,
    mode: Literal["aof", "rdb", "none"] = "aof",
    envoys: int = 1,
) -> Topology:
    """A placed topology with one endpoint; nodes are redis-1, redis-2, …, masters first."""
    nodes = tuple(
        RedisNode(
            f"redis-{index}", seat.host.name, seat.host.address, seat.host.zone, 7000 + index, 17000 + index,
            seat.shard, seat.role,
        )
        for index, seat in enumerate(place(hosts, shards, replicas), 1)
    )  # fmt: skip
    proxies = tuple(
        EnvoyInstance(f"envoy-{number}", hosts[0].name, hosts[0].address, hosts[0].zone, 9900 + number)
        for number in range(1, envoys + 1)
    )
    listeners = tuple(Listener(envoy.name, envoy.address, 6379 + envoy.admin_port) for envoy in proxies)
    return Topology(
        name="main",
        engine=Engine(),
        shards=shards,
        replicas=replicas,
        hosts=hosts,
        nodes=nodes,
        envoys=proxies,
        endpoints=(Endpoint("primary", EndpointKind.COMMANDS, "RESP2", "app_user", False, listeners),),
        users=tuple(User(f"{role}_user", role) for role in UserRole),
        redis=RedisSettings(2**28, "noeviction", Persistence(mode), 5000, 10000, 511, 1, "notice"),
        envoy=EnvoySettings(">=1.32", "", 10000, 10000, 1.0, 5000, 1000),
        tls=TlsSettings("", "", "", 825, (), require_client_certificates=False),
    )


def run_by_others(topology: Topology, service: str = "systemd:{}") -> Topology:
    """The same nodes as somebody else runs them; `service` of each, with its name."""
    nodes = tuple(replace(node, managed=False, service=service.format(node.name)) for node in topology.nodes)
    return replace(topology, nodes=nodes, envoys=(), endpoints=(), users=(), access=ExternalAccess(tls=False))


def served_by_others(topology: Topology) -> Facts:
    """Facts of such a cluster in order; its supervisors tell a pid of every node whose service is named."""
    facts = formed(replace(topology, nodes=tuple(replace(node, managed=True) for node in topology.nodes)))
    units = {
        node.name: UnitFacts(name=node.name, state=UnitState.RUNNING, pid=100 + number)
        for number, node in enumerate(topology.nodes)
        if node.service
    }
    return replace(facts, units=units, envoys={}, endpoints=())


def all_names(topology: Topology) -> tuple[str, ...]:
    """Every Unit."""
    return tuple(unit.name for unit in (*topology.nodes, *topology.envoys))


def wishes_for(topology: Topology, *accepted: str) -> Wishes:
    """All Units as declared; the losses of `accepted` are accepted."""
    return Wishes(dict.fromkeys(all_names(topology), HASH), frozenset(accepted))


def nothing_runs(topology: Topology) -> Facts:
    """A machine on which nothing of the cluster has ever been."""
    return Facts(observed_at_s=0.0, nodes={node.name: silent(node) for node in topology.nodes})


def silent(node: RedisNode) -> NodeFacts:
    """A node that cannot be asked."""
    return NodeFacts(name=node.name, address=node.address, port=node.port, problem="refused: nothing listens")


def formed(topology: Topology) -> Facts:
    """A cluster in which nothing is left to do, as the planner's own model brings it up."""
    facts, wishes = nothing_runs(topology), wishes_for(topology)
    while phase := next_phase(topology, facts, wishes):
        facts = settle(topology, apply(topology, facts, phase.steps, wishes))
    return facts


def master_of(topology: Topology, shard: int) -> RedisNode:
    """The node that is declared as the master of a shard (from 0)."""
    return next(node for node in topology.nodes if node.shard == shard and node.intended_role is Role.MASTER)


def replicas_in(topology: Topology, shard: int) -> tuple[RedisNode, ...]:
    """The nodes that are declared as replicas of a shard (from 0)."""
    return tuple(node for node in topology.nodes if node.shard == shard and node.intended_role is Role.REPLICA)
