"""Ports that the kernel keeps for root, and what may not listen on them. Pure.

Linux lets whoever has CAP_NET_BIND_SERVICE listen on a port below net.ipv4.ip_unprivileged_port_start (IPv6 too), and
nobody else (Documentation/networking/ip-sysctl). Root's processes have it unless it was taken from them, and others may
have been given it: CapEff of /proc/PID/status says so, and not whose the process is. A container has no capability, so
one that uses its host's network may not, whoever its host's user is. Docker publishes the ports of a bridge itself, as
root, and lets everybody inside listen on every port (since 20.10, daemon/oci_linux.go).
"""

from __future__ import annotations

from typing import Literal

from redisforge.model.topology import EnvoyInstance, RedisNode, Topology

LIMIT_SETTING = "net.ipv4.ip_unprivileged_port_start"
USUAL_LIMIT = 1024
"""The kernel's own, and what held before there was the setting (Linux 4.11)."""
_NET_BIND_SERVICE = 10
"""The number of the capability (linux/capability.h)."""

ListensAs = Literal["process", "container", "bridged"]
"""A process of its host's user; a container on its host's network; one whose ports Docker publishes."""


def listens_as(topology: Topology, unit: RedisNode | EnvoyInstance) -> ListensAs:
    """How a Unit listens."""
    if topology.is_bridged(unit):
        return "bridged"
    return "container" if topology.host(unit.host).runtime == "docker" else "process"


def may_bind_all(effective: str) -> bool:
    """Whether a process with these effective capabilities (CapEff, hexadecimal) may listen on every port. What is none
    counts as no capability."""
    try:
        return bool(int(effective, 16) >> _NET_BIND_SERVICE & 1)
    except ValueError:
        return False


def kept_for_root(listener: ListensAs, port: int, limit: int, *, is_privileged: bool) -> str:
    """Why the kernel will not let a Unit listen on `port`; empty if it will.

    Ports from `limit` on are everybody's. `is_privileged`: who starts the Unit may listen on all of them.
    """
    if port >= limit or listener == "bridged" or (listener == "process" and is_privileged):
        return ""
    process, container = (
        "its process will not have CAP_NET_BIND_SERVICE",
        "a container on its host's network is not root",
    )
    who = container if listener == "container" else process
    return f"ports below {limit} are root's there ({LIMIT_SETTING}), and {who}"


def cure(listener: ListensAs, limit: int) -> str:
    """What can be done about it."""
    ways = [f"declare ports from {limit} on"]
    if listener == "container":
        ways.append("`docker: {network: bridge}`, whose ports Docker publishes as root")
    return ", or ".join((*ways, f"lower the limit on the host: sysctl -w {LIMIT_SETTING}=PORT"))
