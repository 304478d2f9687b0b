"""Where Envoys stand when hosts come and go: those that run stay where they are.

New ones go to the zone, then to the host, with the fewest Envoys. Their ports keep the distances that config/resolve.py
has chosen: on an address the next Envoy is ENVOY_PORT_STEP above, and all admin ports differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import count

import msgspec
from msgspec.structs import replace

from redisforge.model.topology import ENVOY_PORT_STEP, EnvoyInstance, Host, Listener, Topology


def keep_envoys(declared: Topology, recorded: Topology) -> Topology:
    """`declared` with the Envoys of `recorded` where they are, as far as their hosts are still declared."""
    hosts = {host.name: host for host in declared.hosts}
    kept = [envoy for envoy in recorded.envoys if envoy.host in hosts][: len(declared.envoys)]
    dealt = {envoy.name: envoy.host for envoy in declared.envoys}
    if all(dealt.get(envoy.name) == envoy.host for envoy in kept):
        return declared
    moved = [replace(e, address=hosts[e.host].address, zone=hosts[e.host].zone) for e in kept]
    base, first = first_ports(declared), first_ports(recorded)
    shifts = {
        door.envoy: door.port - first[endpoint.name] for endpoint in recorded.endpoints for door in endpoint.listeners
    }
    endpoints = tuple(
        replace(
            endpoint,
            listeners=tuple(Listener(e.name, e.address, base[endpoint.name] + shifts[e.name]) for e in moved),
        )
        for endpoint in declared.endpoints
    )
    on_kept = replace(declared, envoys=tuple(moved), endpoints=endpoints)
    return with_envoys(on_kept, EnvoyPlaces(len(declared.envoys), declared.hosts, base))


def first_ports(topology: Topology) -> dict[str, int]:
    """The port of every endpoint at the first Envoy of an address."""
    return {endpoint.name: min(door.port for door in endpoint.listeners) for endpoint in topology.endpoints}


class EnvoyPlaces(msgspec.Struct, frozen=True):
    """How many Envoys there are to be beside those that leave, on which hosts new ones may stand, and `first_ports`."""

    wanted: int
    hosts: Sequence[Host]
    base: Mapping[str, int]
    leaving: frozenset[str] = frozenset()


def with_envoys(topology: Topology, places: EnvoyPlaces) -> Topology:
    """`topology` with new Envoys until there are as many as wanted; none where there is no host."""
    while places.hosts and len(topology.envoys) - len(places.leaving) < places.wanted:
        topology = _with_one(topology, places)
    return topology


def _with_one(topology: Topology, places: EnvoyPlaces) -> Topology:
    staying = [envoy for envoy in topology.envoys if envoy.name not in places.leaving]
    by_zone, by_address = Counter(e.zone for e in staying), Counter(e.address for e in staying)
    order = {host.name: number for number, host in enumerate(places.hosts)}
    host = min(places.hosts, key=lambda host: (by_zone[host.zone], by_address[host.address], order[host.name]))
    names = {envoy.name for envoy in topology.envoys}
    name = next(f"envoy-{number}" for number in count(1) if f"envoy-{number}" not in names)
    admin_ports = {envoy.admin_port for envoy in topology.envoys}
    admin_port = next(p for p in count(min(admin_ports, default=0), ENVOY_PORT_STEP) if p not in admin_ports)
    here = {door.port for endpoint in topology.endpoints for door in endpoint.listeners if door.address == host.address}
    shift = next(s for s in count(0, ENVOY_PORT_STEP) if not any(port + s in here for port in places.base.values()))
    envoy = EnvoyInstance(name, host.name, host.address, host.zone, admin_port)
    endpoints = tuple(
        replace(e, listeners=(*e.listeners, Listener(name, host.address, places.base[e.name] + shift)))
        for e in topology.endpoints
    )
    return replace(topology, envoys=(*topology.envoys, envoy), endpoints=endpoints)


def without_envoys(topology: Topology, names: Collection[str]) -> Topology:
    """`topology` less these Envoys and their listeners."""
    endpoints = tuple(
        replace(endpoint, listeners=tuple(door for door in endpoint.listeners if door.envoy not in names))
        for endpoint in topology.endpoints
    )
    left = tuple(envoy for envoy in topology.envoys if envoy.name not in names)
    return replace(topology, envoys=left, endpoints=endpoints)
