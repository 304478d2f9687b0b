"""What operators on several machines share of a cluster: on its hosts, and in the file that lets another one in."""

from __future__ import annotations

import msgspec

from redisforge.model.hosts import SshAccess
from redisforge.model.topology import Topology


class SharedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record on every host, readable by its user alone. It holds no secret: `ca` and `passwords` are SHA-256 sums,
    by which an operator sees whether its own are those of the cluster.

    `serial` grows with every change of `topology`; `by` is `user@machine` and `folder` the cluster's folder there.
    """

    serial: int
    by: str
    folder: str
    ca: str
    passwords: str
    topology: Topology


class AccessFile(msgspec.Struct, frozen=True, kw_only=True):
    """`redisforge access export`: all that an operator on another machine needs. Full of secrets.

    `files`: their text by path below the cluster's folder (secrets.env and tls/).
    """

    record: SharedRecord
    files: dict[str, str]


def shared_form(topology: Topology) -> Topology:
    """The topology without what is true on one operator's machine only: paths there, and its SSH keys."""
    hosts = tuple(
        host if host.ssh is None else msgspec.structs.replace(host, ssh=_shared_way(host.ssh))
        for host in topology.hosts
    )
    return msgspec.structs.replace(topology, source="", hosts=hosts)


def own_form(shared: Topology, own: Topology | None) -> Topology:
    """A shared topology as the operator of `own` has it: its way to each host that both know, its files."""
    if own is None:
        return shared
    ways = {host.name: host.ssh for host in own.hosts if host.ssh is not None}
    hosts = tuple(
        msgspec.structs.replace(host, ssh=ways[host.name]) if host.ssh is not None and host.name in ways else host
        for host in shared.hosts
    )
    return msgspec.structs.replace(shared, source=own.source, hosts=hosts, tls=own.tls)


def _shared_way(way: SshAccess) -> SshAccess:
    return msgspec.structs.replace(way, key_path="", known_hosts_path="")
