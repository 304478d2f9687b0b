"""The section `external`: nodes that somebody else runs. `redisforge adopt` writes it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from redisforge.config.declaring import Options, option
from redisforge.config.kinds import Address, HostName, OptionalUserName, ServiceName


class ExternalNodeOptions(Options):
    """A node that somebody else runs. It is called ADDRESS:PORT."""

    address: Address = Field(description="The IP address at which the other nodes know it.")
    port: int = Field(description="Its port, the one with TLS if `external.tls`.", ge=1, le=65535)
    bus_port: int | None = option(None, "Its cluster bus port. Empty: its port and ports.bus_offset.", ge=1, le=65535)
    host: HostName | None = option(
        None, "The name of its machine. Empty: the one of `hosts` that has its address, else the address."
    )
    zone: HostName | None = option(None, "Its failure domain. Empty: that of its host.")
    service: ServiceName | None = option(
        None,
        "What runs it on its host, for `redisforge restart` and `upgrade`: systemd:UNIT or docker:CONTAINER. Its host "
        "must be among `hosts`, unless it is this machine. Empty: unknown.",
    )
    shard: int = Field(description="Its shard, counted from 1.", ge=1, le=1000)
    role: Literal["master", "replica"] = Field(
        description="Its role when this was written; after a failover the real one may differ."
    )


class ExternalOptions(Options):
    """A cluster that somebody else runs: RedisForge connects to its nodes and changes the cluster; their programs and
    files are their owner's. `redisforge adopt` writes this section.

    With `nodes`, RedisForge runs nothing of its own for the cluster: `endpoints`, `envoy` and `users` do not apply. Of
    the nodes' settings only those are declared that stand in the file, and `redisforge apply-config` sets these.
    """

    tls: bool = option(
        True, "Whether the nodes speak TLS; then tls.ca_file is needed. false: passwords and data are not protected."
    )
    check_hostname: bool = option(
        True, "Whether a node's certificate must be for its address. The CA is checked in any case."
    )
    user: OptionalUserName = option("", "The ACL user to log in as, which may do everything. Empty: the default user.")
    password: bool = option(True, "Whether the nodes ask for a password: REDIS_REQUIREPASS, at the first time.")
    nodes: tuple[ExternalNodeOptions, ...] = option((), "The nodes.", max_length=1000, strict=False)
