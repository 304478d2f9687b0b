"""What the declared system asks of each host: ports, room, memory, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from redisforge.model.topology import Topology
from redisforge.plan.low_ports import ListensAs, listens_as

OPEN_FILES = 100_000
"""As many as a Unit asks for (model/unit.py)."""

PortUse = Literal["node", "bus", "endpoint", "admin"]


class NeededPort(msgspec.Struct, frozen=True):
    """A socket that a Unit will listen on: at `bind_address`, if that is not the `address` at which others reach it."""

    unit: str
    address: str
    port: int
    use: PortUse
    bind_address: str = ""
    listener: ListensAs = "process"

    @property
    def socket(self) -> tuple[str, int]:
        """Where it listens."""
        return self.bind_address or self.address, self.port


class HostNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What one host must provide. `folder` (absolute there) is where the cluster's files and data go."""

    host: str
    zone: str
    is_remote: bool
    folder: str
    home: str
    """What of `folder` RedisForge has for itself on that host, for all clusters (`folder` in redisforge.yaml)."""
    ports: tuple[NeededPort, ...]
    node_count: int
    unit_count: int
    memory_bytes: int
    """What the data of its nodes may take, all together."""
    is_persistent: bool
    tcp_backlog: int
    max_clients: int
    node_timeout_ms: int
    runtime: Literal["process", "docker"] = "process"


def host_needs(topology: Topology, folders: Mapping[str, str]) -> dict[str, HostNeeds]:
    """The needs of every declared host, by its name. `folders` has the cluster's folder on each."""
    needs: dict[str, HostNeeds] = {}
    for host in topology.hosts:
        nodes = [node for node in topology.own_nodes if node.host == host.name]
        envoys = [envoy for envoy in topology.envoys if envoy.host == host.name]
        needs[host.name] = HostNeeds(
            host=host.name,
            zone=host.zone,
            is_remote=host.ssh is not None,
            folder=folders[host.name],
            home=host.folder or folders[host.name],
            ports=_ports(topology, host.name),
            node_count=len(nodes),
            unit_count=len(nodes) + len(envoys),
            memory_bytes=len(nodes) * topology.redis.max_memory_bytes,
            is_persistent=topology.redis.persistence.mode != "none",
            tcp_backlog=topology.redis.tcp_backlog,
            max_clients=topology.redis.max_clients,
            node_timeout_ms=topology.redis.node_timeout_ms,
            runtime=host.runtime,
        )
    return needs


def _ports(topology: Topology, host: str) -> tuple[NeededPort, ...]:
    found: list[NeededPort] = []
    for node in topology.own_nodes:
        if node.host == host:
            bound, listener = topology.listens_on(node), listens_as(topology, node)
            found.append(NeededPort(node.name, node.address, node.port, "node", bound, listener))
            found.append(NeededPort(node.name, node.address, node.bus_port, "bus", bound, listener))
    envoys = {envoy.name: envoy for envoy in topology.envoys if envoy.host == host}
    for endpoint in topology.endpoints:
        for door in endpoint.listeners:
            if envoy := envoys.get(door.envoy):
                bound, listener = topology.listens_on(envoy), listens_as(topology, envoy)
                found.append(NeededPort(door.envoy, door.address, door.port, "endpoint", bound, listener))
    found += [
        NeededPort(envoy.name, "127.0.0.1", envoy.admin_port, "admin", listener=listens_as(topology, envoy))
        for envoy in envoys.values()
    ]
    return tuple(found)
