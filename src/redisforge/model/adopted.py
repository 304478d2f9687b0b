"""A running cluster that somebody else built, as redisforge.yaml will list it."""

from __future__ import annotations

import msgspec

from redisforge.model.topology import Role


class AdoptedNode(msgspec.Struct, frozen=True):
    """A member. `shard` counts from 1; an empty `host`, `zone` or `service` is not said."""

    address: str
    port: int
    bus_port: int
    shard: int
    role: Role
    host: str = ""
    zone: str = ""
    service: str = ""


class AdoptedShape(msgspec.Struct, frozen=True):
    """The cluster: its members by shard, masters first, the replicas that a master usually has, and what is odd."""

    nodes: tuple[AdoptedNode, ...]
    shards: int
    replicas: int
    notices: tuple[str, ...]
