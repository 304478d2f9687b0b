"""Which ports a Topology claims, and where two claims meet."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from redisforge.config.broken import BrokenRule
from redisforge.config.problems import OptionPath
from redisforge.config.resolve import ADMIN_ADDRESS
from redisforge.model.topology import Topology

HIGHEST_PORT = 65535

_NODE_PORT: OptionPath = ("ports", "redis")
_BUS_OFFSET: OptionPath = ("ports", "bus_offset")
_ADMIN_PORT: OptionPath = ("envoy", "admin_port")


class _Claim(msgspec.Struct, frozen=True):
    address: str
    port: int
    owner: str
    path: OptionPath


def broken_port_rules(topology: Topology) -> list[BrokenRule]:
    """Ports above 65535, and ports that two sockets of one address would listen on."""
    claims = list(_claims(topology))
    return [*_too_high(claims), *_clashes(claims)]


def _claims(topology: Topology) -> Iterator[_Claim]:
    for node in topology.own_nodes:
        yield _Claim(node.address, node.port, f"node {node.name}", _NODE_PORT)
    for node in topology.own_nodes:
        yield _Claim(node.address, node.bus_port, f"the bus of node {node.name}", _BUS_OFFSET)
    for endpoint in topology.endpoints:
        for listener in endpoint.listeners:
            owner = f"endpoint {endpoint.name} of {listener.envoy}"
            yield _Claim(listener.address, listener.port, owner, ("endpoints", endpoint.name, "port"))
    for envoy in topology.envoys:
        yield _Claim(ADMIN_ADDRESS, envoy.admin_port, f"the admin interface of {envoy.name}", _ADMIN_PORT)


def _too_high(claims: list[_Claim]) -> list[BrokenRule]:
    highest: dict[OptionPath, _Claim] = {}
    for claim in claims:
        if claim.port > HIGHEST_PORT and claim.port > highest.get(claim.path, claim).port - 1:
            highest[claim.path] = claim
    return [
        BrokenRule(
            paths=(_NODE_PORT, _BUS_OFFSET) if path == _BUS_OFFSET else (path,),
            what=f"{claim.owner} would get port {claim.port}, above {HIGHEST_PORT}",
            next_step="Start lower" + (", or lower ports.bus_offset." if path == _BUS_OFFSET else "."),
        )
        for path, claim in highest.items()
    ]


def _clashes(claims: list[_Claim]) -> list[BrokenRule]:
    """One finding for each pair of options, with the first port at which their claims meet."""
    first_owner: dict[tuple[str, int], _Claim] = {}
    meetings: dict[tuple[OptionPath, OptionPath], list[tuple[_Claim, _Claim]]] = {}
    for claim in claims:
        earlier = first_owner.setdefault((claim.address, claim.port), claim)
        if earlier is not claim:
            meetings.setdefault((earlier.path, claim.path), []).append((earlier, claim))
    broken: list[BrokenRule] = []
    for (earlier_path, path), pairs in meetings.items():
        earlier, claim = pairs[0]
        more = f", and {len(pairs) - 1} more like it" if len(pairs) > 1 else ""
        where = f"port {claim.port} on {claim.address}"
        what = f"{where} is wanted twice: by {earlier.owner} and by {claim.owner}{more}"
        broken.append(BrokenRule((path, earlier_path), what, "Move one of them to a free port."))
    return broken
