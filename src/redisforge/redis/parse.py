"""Pure parsers of what Redis prints about itself.

CLUSTER NODES, one node per line:

    <id> <ip:port@cport[,hostname[,aux=val]*]> <flags> <master> <ping-sent> <pong-recv> <epoch> <link> <slot> …

A slot is `n`, `first-last`, `[n->-destination]` (migrating) or `[n-<-source]` (importing). Source: Redis
documentation of CLUSTER NODES.
"""

from __future__ import annotations

from redisforge.model.facts import PeerView
from redisforge.model.slots import SlotRange, merge, parse_range


def parse_cluster_nodes(text: str) -> tuple[PeerView, ...]:
    """Read the answer of CLUSTER NODES (or a nodes.conf file, whose `vars` line is passed over).

    Raises:
        ValueError: not that format.
    """
    return tuple(_parse_line(line) for line in text.splitlines() if line.strip() and not line.startswith("vars "))


def _parse_line(line: str) -> PeerView:
    fields = line.split()
    if len(fields) < 8:
        raise ValueError(f"not a line of CLUSTER NODES: {line!r}")
    node_id, endpoint, flags, master_id, _, _, epoch, link, *slot_fields = fields
    host_port, _, bus_port = endpoint.partition(",")[0].partition("@")
    address, _, port = host_port.rpartition(":")
    ranges: list[SlotRange] = []
    migrating: list[tuple[int, str]] = []
    importing: list[tuple[int, str]] = []
    for field in slot_fields:
        if not field.startswith("["):
            ranges.append(parse_range(field))
        elif "->-" in field:
            slot, _, other = field.strip("[]").partition("->-")
            migrating.append((int(slot), other))
        elif "-<-" in field:
            slot, _, other = field.strip("[]").partition("-<-")
            importing.append((int(slot), other))
    return PeerView(
        id=node_id,
        address=address,
        port=int(port or 0),
        bus_port=int(bus_port or 0),
        flags=tuple(flags.split(",")),
        master_id="" if master_id == "-" else master_id,
        config_epoch=int(epoch),
        link_up=link == "connected",
        slots=merge(ranges),
        migrating=tuple(migrating),
        importing=tuple(importing),
    )


def parse_info(text: str) -> dict[str, str]:
    """Read INFO or CLUSTER INFO (`name:value` lines, `#` headings) into a dictionary."""
    pairs = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value.strip() for name, separator, value in pairs if separator}


def parse_key_count(info: dict[str, str]) -> int:
    """The number of keys in db0, from INFO keyspace (`db0:keys=12,expires=0,…`)."""
    fields = dict(pair.split("=", 1) for pair in info.get("db0", "").split(",") if "=" in pair)
    return int(fields.get("keys", 0))
