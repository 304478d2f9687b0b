"""The Topology of one host as `deploy` sees it: its own Unit, what else was deployed here, and the others by .env."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from redisforge.config.deployment import Deployment
from redisforge.errors import ConfigError, RefusedError
from redisforge.fleet.ports import bind_problem
from redisforge.model.facts import Facts
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import Endpoint, EnvoyInstance, Host, RedisNode, Role, Topology
from redisforge.plan.adopting import members_of
from redisforge.plan.resize import as_it_is
from redisforge.runbooks.cluster import Cluster, read_topology, with_topology
from redisforge.runbooks.observe import Observer

ENVOY_NAME = "envoy-1"
_BUS_DISTANCE = 10_000


class Names(msgspec.Struct, frozen=True):
    """Addresses: of this host, and of the others in the order of Deployment.places."""

    own: str
    places: tuple[str, ...]


def resolve_names(deployment: Deployment, *, is_envoy: bool) -> Names:
    """Look up every name, and find the address of this host.

    Raises:
        ConfigError: a name does not resolve, or the address is none of this machine.
    """
    problems: list[str] = []
    places: list[str] = []
    for place in deployment.places:
        address = _address(place.host)
        places.append(address)
        if not address:
            problems.append(f"{place.variable}: {place.host} does not resolve")
    own = ""
    variable, text = ("ENVOY_LISTEN_ADDRESS", deployment.listen) if is_envoy else (_ANNOUNCE, deployment.announce)
    if text:
        own = _address(text)
        if not own or _not_here(own):
            what = "is not an address of this machine" if own else "does not resolve"
            problems.append(f"{variable}: {text} {what}")
    elif is_envoy and not problems:
        announced = _address(deployment.announce) if deployment.announce else ""
        own = announced if announced and not _not_here(announced) else _source_address(places[0])
    if problems:
        raise ConfigError(
            f".env does not fit this host: {len(problems)} problem{'s' * (len(problems) > 1)}",
            problems=tuple(problems),
            next_step="write addresses, or names that this host can look up; REDIS_CLUSTER_ANNOUNCE_IP is the address "
            "of the host on which the command runs",
        )
    return Names(own, tuple(places))


_ANNOUNCE = "REDIS_CLUSTER_ANNOUNCE_IP"


def _address(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return ""


def _not_here(address: str) -> bool:
    return bool(bind_problem(address, 0))


def _source_address(towards: str) -> str:
    """The address from which this host reaches another; nothing is sent."""
    family = socket.AF_INET6 if ":" in towards else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def deployed_topology(
    role: Literal["redis", "envoy"],
    deployment: Deployment,
    declared: Topology,
    names: Names,
    layout: ClusterLayout,
) -> tuple[Topology, str]:
    """The Topology with this Unit in it, and the Unit's name.

    Raises:
        RefusedError: a cluster of that name is here, and was not deployed so.
    """
    before = _deployed_before(layout)
    others = _others(deployment, names)
    nodes = {(node.address, node.port): node for node in others}
    envoys: tuple[EnvoyInstance, ...] = ()
    if before is not None:
        nodes |= {(node.address, node.port): node for node in before.nodes if not node.managed}
        nodes |= {(node.address, node.port): node for node in before.own_nodes}
        envoys = before.envoys
    endpoints = before.endpoints if before is not None and before.envoys else ()
    if role == "redis":
        here = (names.own, deployment.port)
        like = nodes.get(here)
        own = _own_node(deployment, names.own, like, len(others))
        nodes[here] = own
        name = own.name
    else:
        name = ENVOY_NAME
        envoys = (EnvoyInstance(name, names.own, names.own, names.own, declared.envoys[0].admin_port),)
        endpoints = tuple(_at(endpoint, names.own) for endpoint in declared.endpoints)
    listed = tuple(nodes.values())
    addresses = dict.fromkeys(unit.address for unit in (*(n for n in listed if n.managed), *envoys))
    tls = replace(
        declared.tls,
        ca_path=deployment.ca_path,
        certificate_path=deployment.certificate_path,
        key_path=deployment.key_path,
    )
    topology = replace(
        declared, name=deployment.name, hosts=tuple(Host(address, address, address) for address in addresses),
        nodes=listed, envoys=envoys, endpoints=endpoints, tls=tls, source="", first_port=deployment.port,
        shards=max(1, sum(node.intended_role is Role.MASTER for node in listed)),
    )  # fmt: skip
    return topology, name


def _others(deployment: Deployment, names: Names) -> list[RedisNode]:
    counts = {Role.MASTER: 0, Role.REPLICA: 0}
    others: list[RedisNode] = []
    for place, address in zip(deployment.places, names.places, strict=True):
        others.append(
            RedisNode(
                name=f"{address}:{place.port}", host=address, address=address, zone=address, port=place.port,
                bus_port=place.port + _BUS_DISTANCE, shard=counts[place.role], intended_role=place.role, managed=False,
            )
        )  # fmt: skip
        counts[place.role] += 1
    return others


def _own_node(deployment: Deployment, address: str, like: RedisNode | None, others: int) -> RedisNode:
    """This host's node: in the place that .env gives it, or else one more replica."""
    return RedisNode(
        name=f"redis-{deployment.port}", host=address, address=address, zone=address, port=deployment.port,
        bus_port=deployment.bus_port, shard=like.shard if like else 0,
        intended_role=like.intended_role if like else Role.REPLICA if others else Role.MASTER,
    )  # fmt: skip


def _at(endpoint: Endpoint, address: str) -> Endpoint:
    """The endpoint at this host's Envoy."""
    door = endpoint.listeners[0]
    return replace(endpoint, listeners=(replace(door, envoy=ENVOY_NAME, address=address),))


def _deployed_before(layout: ClusterLayout) -> Topology | None:
    """What was deployed here before under this name. Raises RefusedError for a cluster that `up` or `adopt` made."""
    if not Path(layout.topology).exists():
        return None
    before = read_topology(layout)
    is_other = before.access is not None or any(node.name != f"redis-{node.port}" for node in before.own_nodes)
    if is_other:
        raise RefusedError(
            f"there is a cluster called {before.name!r} already, and it was not deployed host by host",
            where=layout.folder,
            next_step="set PROJECT_NAME in .env to another name",
        )
    return before


def where_of(topology: Topology, name: str) -> tuple[str, int]:
    """Where a deployed Unit listens: (address, port) of the node, or of the Envoy's first endpoint."""
    node = next((node for node in topology.own_nodes if node.name == name), None)
    if node is not None:
        return node.address, node.port
    door = next(door for endpoint in topology.endpoints for door in endpoint.listeners if door.envoy == name)
    return door.address, door.port


async def with_members(cluster: Cluster, facts: Facts) -> tuple[Cluster, Facts]:
    """The cluster with every member that a formed cluster has, in the place that each has now. Others that answer but
    belong to nobody stay as they are."""
    formed = next((node for node in facts.reachable_nodes() if node.slots or node.master_id), None)
    if formed is None:
        return cluster, facts
    topology = cluster.topology
    known = {(node.address, node.port) for node in topology.nodes}
    more = tuple(
        RedisNode(
            name=f"{peer.address}:{peer.port}", host=peer.address, address=peer.address, zone=peer.address,
            port=peer.port, bus_port=peer.bus_port, shard=0, intended_role=peer.role, managed=False,
        )
        for peer in members_of(formed)
        if (peer.address, peer.port) not in known
    )  # fmt: skip
    full = with_topology(cluster, replace(topology, nodes=(*topology.nodes, *more)))
    async with Observer(full, with_listing=True) as observer:
        facts = await observer.look(fresh_units=True)
    placed = as_it_is(full.topology, facts)
    replicas = max(0, round(len(placed.nodes) / max(1, placed.shards)) - 1)
    return with_topology(full, replace(placed, replicas=replicas)), facts
