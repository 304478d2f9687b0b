"""Pure parsers of what Redis prints about itself.

CLUSTER NODES, one node per line:

    <id> <ip:port@cport[,hostname[,aux=val]*]> <flags> <master> <ping-sent> <pong-recv> <epoch> <link> <slot> …

A slot is `n`, `first-last`, `[n->-destination]` (migrating) or `[n-<-source]` (importing). Source: Redis
documentation of CLUSTER NODES.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import NamedTuple

from redisforge.model.facts import PeerView
from redisforge.model.slots import SlotRange, merge, parse_range

_KNOWN_TEXTS = 4096


def parse_cluster_nodes(text: str) -> tuple[PeerView, ...]:
    """Read the answer of CLUSTER NODES (or a nodes.conf file, whose `vars` line is passed over).

    Raises:
        ValueError: not that format.
    """
    return tuple(_parse_line(line) for line in text.splitlines() if line.strip() and not line.startswith("vars "))


class _Slots(NamedTuple):
    """The slots of a line."""

    owned: tuple[SlotRange, ...]
    migrating: tuple[tuple[int, str], ...]
    importing: tuple[tuple[int, str], ...]


def _parse_line(line: str) -> PeerView:
    fields = line.split(maxsplit=8)
    if len(fields) < 8:
        raise ValueError(f"not a line of CLUSTER NODES: {line!r}")
    node_id, endpoint, flags, master_id, _, _, epoch, link, *slot_fields = fields
    address, port, bus_port = _parse_endpoint(endpoint)
    slots = _parse_slots(slot_fields[0] if slot_fields else "")
    return PeerView(
        id=sys.intern(node_id),
        address=address,
        port=port,
        bus_port=bus_port,
        flags=_parse_flags(flags),
        master_id="" if master_id == "-" else sys.intern(master_id),
        config_epoch=int(epoch),
        link_up=link == "connected",
        slots=slots.owned,
        migrating=slots.migrating,
        importing=slots.importing,
    )


# Every node tells nearly the same of every other one: n * n lines with n different texts.


@lru_cache(_KNOWN_TEXTS)
def _parse_endpoint(text: str) -> tuple[str, int, int]:
    host_port, _, bus_port = text.partition(",")[0].partition("@")
    address, _, port = host_port.rpartition(":")
    return address, int(port or 0), int(bus_port or 0)


@lru_cache(_KNOWN_TEXTS)
def _parse_flags(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


@lru_cache(_KNOWN_TEXTS)
def _parse_slots(text: str) -> _Slots:
    ranges: list[SlotRange] = []
    migrating: list[tuple[int, str]] = []
    importing: list[tuple[int, str]] = []
    for field in text.split():
        if not field.startswith("["):
            ranges.append(parse_range(field))
        elif "->-" in field:
            slot, _, other = field.strip("[]").partition("->-")
            migrating.append((int(slot), other))
        elif "-<-" in field:
            slot, _, other = field.strip("[]").partition("-<-")
            importing.append((int(slot), other))
    return _Slots(merge(ranges), tuple(migrating), tuple(importing))


def parse_info(text: str) -> dict[str, str]:
    """Read INFO or CLUSTER INFO (`name:value` lines, `#` headings) into a dictionary."""
    pairs = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value.strip() for name, separator, value in pairs if separator}


def parse_key_count(info: dict[str, str]) -> int:
    """The number of keys in db0, from INFO keyspace (`db0:keys=12,expires=0,…`)."""
    fields = dict(pair.split("=", 1) for pair in info.get("db0", "").split(",") if "=" in pair)
    return int(fields.get("keys", 0))
