"""What the declared system asks of each host: ports, room, memory, limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from redisforge.model.topology import EnvoyInstance, RedisNode, Topology
from redisforge.plan.low_ports import ListensAs, listens_as

OPEN_FILES = 100_000
"""As many as a Unit asks for (model/unit.py)."""

PortUse = Literal["node", "bus", "endpoint", "admin"]


class NeededPort(msgspec.Struct, frozen=True):
    """A socket that a Unit will listen on: at `bind_address`, if that is not the `address` at which others reach it."""

    unit: str
    host: str
    address: str
    port: int
    use: PortUse
    bind_address: str = ""
    listener: ListensAs = "process"

    @property
    def socket(self) -> tuple[str, int]:
        """Where it listens."""
        return self.bind_address or self.address, self.port

    def __str__(self) -> str:
        address, port = self.socket
        return f"{self.unit} needs {address}:{port}"


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
    ports = tuple(needed_ports(topology))
    for host in topology.hosts:
        nodes = [node for node in topology.own_nodes if node.host == host.name]
        envoys = [envoy for envoy in topology.envoys if envoy.host == host.name]
        needs[host.name] = HostNeeds(
            host=host.name,
            zone=host.zone,
            is_remote=host.ssh is not None,
            folder=folders[host.name],
            home=host.folder or folders[host.name],
            ports=tuple(port for port in ports if port.host == host.name),
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


def needed_ports(topology: Topology) -> Iterator[NeededPort]:
    """Every socket that the topology asks for."""

    def at(unit: RedisNode | EnvoyInstance, address: str, port: int, use: PortUse) -> NeededPort:
        bound = "" if use == "admin" else topology.listens_on(unit)
        return NeededPort(unit.name, unit.host, address, port, use, bound, listens_as(topology, unit))

    for node in topology.own_nodes:
        yield at(node, node.address, node.port, "node")
        yield at(node, node.address, node.bus_port, "bus")
    envoys = {envoy.name: envoy for envoy in topology.envoys}
    for endpoint in topology.endpoints:
        for door in endpoint.listeners:
            yield at(envoys[door.envoy], door.address, door.port, "endpoint")
    for envoy in topology.envoys:
        yield at(envoy, "127.0.0.1", envoy.admin_port, "admin")
