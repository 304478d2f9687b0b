"""Cluster formation commands as data: a Step becomes the command words that are sent to its node."""

from __future__ import annotations

from typing import Literal

from redisforge.model.slots import SlotRange
from redisforge.model.topology import RedisNode


def set_config_epoch(epoch: int) -> tuple[str, ...]:
    """CLUSTER SET-CONFIG-EPOCH: only accepted by a node that knows nobody and has epoch 0."""
    return ("CLUSTER", "SET-CONFIG-EPOCH", str(epoch))


def add_slots(ranges: tuple[SlotRange, ...]) -> tuple[str, ...]:
    """CLUSTER ADDSLOTSRANGE (Redis >= 7.0): all or nothing; refused if any slot has an owner."""
    return ("CLUSTER", "ADDSLOTSRANGE", *(str(bound) for r in ranges for bound in (r.first, r.last)))


def meet(other: RedisNode) -> tuple[str, ...]:
    """CLUSTER MEET address port bus-port; the bus port is given because it need not be port + 10000."""
    return ("CLUSTER", "MEET", other.address, str(other.port), str(other.bus_port))


def replicate(master_id: str) -> tuple[str, ...]:
    """CLUSTER REPLICATE: refused by a node that has slots or keys."""
    return ("CLUSTER", "REPLICATE", master_id)


def failover(mode: Literal["handover", "force", "takeover"]) -> tuple[str, ...]:
    """CLUSTER FAILOVER, sent to a replica. FORCE does not wait for the master; TAKEOVER not for votes either."""
    return ("CLUSTER", "FAILOVER") if mode == "handover" else ("CLUSTER", "FAILOVER", mode.upper())


def forget(node_id: str) -> tuple[str, ...]:
    """CLUSTER FORGET: removes the id and bans it for 60 s, so it must reach every node within that time."""
    return ("CLUSTER", "FORGET", node_id)


def reset() -> tuple[str, ...]:
    """CLUSTER RESET HARD: forget everybody, a new id, no slots; a replica also drops its data."""
    return ("CLUSTER", "RESET", "HARD")


def reads(user: str, *, allowed: bool) -> tuple[str, ...]:
    """ACL SETUSER: let a user PING or not, until the node reads its ACL file again.

    Envoy's active health check is a PING as that user: without it the node gets no more reads, and whatever still
    comes is served.
    """
    return ("ACL", "SETUSER", user, "+ping" if allowed else "-ping")


def save_settings() -> tuple[str, ...]:
    """CONFIG REWRITE: the file that the node was started with gets all that it runs with, comments are kept. Refused
    without a file, and where a new one cannot be put in its place."""
    return ("CONFIG", "REWRITE")


def set_settings(settings: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """CONFIG SET of several directives (Redis >= 7.0): all, or none when one of them is refused."""
    return ("CONFIG", "SET", *(word for setting in settings for word in setting))
