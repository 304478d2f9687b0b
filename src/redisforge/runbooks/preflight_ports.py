"""Before anything starts: may the Units listen on their ports, and are these free?

Here are the Units of this machine; preflight_hosts.py asks other hosts, and judges by the same words.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from redisforge.errors import HostError
from redisforge.fleet.ports import DENIED, bind_problem, is_privileged, unprivileged_from
from redisforge.model.facts import Facts, UnitState
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import Topology
from redisforge.model.unit import Unit
from redisforge.plan.host_needs import NeededPort, needed_ports
from redisforge.plan.low_ports import ListensAs, cure, kept_for_root
from redisforge.runbooks.preflight import units_here

_IDLE = (UnitState.ABSENT, UnitState.STOPPED)


def denial(asked: NeededPort, limit: int, found: str = "", *, privileged: bool) -> str:
    """Why the kernel will not let a Unit listen there; empty if it will, or if Docker does it in its place.

    Ports from `limit` on are everybody's, those below it who is `privileged`. `found` is what an attempt of the host's
    user said.
    """
    kept = kept_for_root(asked.listener, asked.port, limit, is_privileged=privileged)
    if kept or found != DENIED or asked.listener == "bridged":
        return kept
    return f"{DENIED}, though the kernel lets everybody listen on ports from {limit} on"


OTHER_PORTS = (
    "stop what uses them, or declare other ports in redisforge.yaml (ports, endpoints, envoy); "
    "`redisforge init --first-port N` writes a file with other ports"
)
OTHER_PORTS_IN_ENV = (
    "stop what uses them, or set other ports in .env (REDIS_PORT, REDIS_CLUSTER_BUS_PORT; for Envoy "
    "ENVOY_LISTENER_PORT, ENVOY_ADMIN_PORT)"
)
"""The same for `deploy`, which goes by .env."""


def check_ports(
    topology: Topology,
    layout: ClusterLayout,
    facts: Facts,
    units: Mapping[str, Unit] | None = None,
    *,
    other_ports: str = OTHER_PORTS,
) -> None:
    """The ports of every Unit of this machine that does not run are free, and it may listen on them; so may those of
    `units` that are to be started again with another configuration. `other_ports` says how to choose others.

    Raises HostError naming all that are not. Other hosts: preflight_hosts.py.
    """
    taken: list[str] = []
    denied: list[tuple[ListensAs, str]] = []
    here, due = units_here(topology), due_units(facts, units or {})
    limit, privileged = unprivileged_from(), is_privileged()
    for asked in needed_ports(topology):
        is_idle = asked.unit in here and is_idle_unit(asked.unit, facts)
        if not is_idle and not (asked.unit in here and asked.unit in due):
            continue
        found = bind_problem(*asked.socket) if is_idle else ""
        if why := denial(asked, limit, found, privileged=privileged):
            denied.append((asked.listener, f"{asked}: {why}"))
        elif found and found != DENIED:
            taken.append(f"{asked}: {found}{_other_cluster(layout, asked)}")
    if taken or denied:
        raise HostError(
            " and ".join(["ports are not free"] * bool(taken) + ["ports are kept for root"] * bool(denied)),
            where="this machine",
            why="\n".join((*(said for _, said in denied), *taken)),
            next_step="\n".join((*cures((listener for listener, _ in denied), limit), *[other_ports] * bool(taken))),
        )


def cures(listeners: Iterator[ListensAs], limit: int) -> list[str]:
    """What can be done for those that may not listen, each once."""
    return list(dict.fromkeys(cure(listener, limit) for listener in listeners))


def is_idle_unit(name: str, facts: Facts) -> bool:
    """Whether a Unit is to be started: it is not there, or stopped."""
    return name not in facts.units or facts.units[name].state in _IDLE


def due_units(facts: Facts, units: Mapping[str, Unit]) -> Collection[str]:
    """The names of those that are to start, or to be started again with another configuration."""
    return {unit.name for unit in units.values() if _is_due(unit, facts)}


def _is_due(unit: Unit, facts: Facts) -> bool:
    if is_idle_unit(unit.name, facts):
        return True
    seen = facts.units[unit.name]
    return seen.state is not UnitState.UNKNOWN and seen.config_hash != unit.config_hash


def _other_cluster(layout: ClusterLayout, asked: NeededPort) -> str:
    """Names the RedisForge cluster that declares the port there, if one does."""
    bound, port = asked.socket
    on_all = ipaddress.ip_address(bound).is_unspecified
    for record in Path(layout.folder).parent.glob("*/topology.json"):
        if record.parent == Path(layout.folder):
            continue
        try:
            topology = json.loads(record.read_text())
            sockets = {(node["address"], node[key]) for node in topology["nodes"] for key in ("port", "bus_port")}
            sockets |= {("127.0.0.1", envoy["admin_port"]) for envoy in topology["envoys"]}
            doors = [door for endpoint in topology["endpoints"] for door in endpoint["listeners"]]
            sockets |= {(door["address"], door["port"]) for door in doors}
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if (asked.address, port) in sockets or (on_all and any(port == its for _, its in sockets)):
            return f", of the cluster {record.parent.name!r}"
    return ""
