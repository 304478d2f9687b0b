"""What `export` writes about the processes of one host, so that whoever runs them needs no RedisForge."""

from __future__ import annotations

from typing import Literal

import msgspec

from redisforge.model.topology import RedisNode
from redisforge.model.unit import Container


class ExportedProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A Redis node or an Envoy as somebody else will run it. All paths are absolute on its host.

    `root` is the cluster's folder there, `folder` that of this process in it; `data_path` is empty for an Envoy.
    `ping` is where it answers a health check: a node's own port, Envoy's admin port. `container` has the image and the
    limits that it gets where Docker runs it.
    """

    name: str
    kind: Literal["redis", "valkey", "envoy"]
    version: str
    cluster: str
    argv: tuple[str, ...]
    root: str
    folder: str
    data_path: str
    ping: tuple[str, int]
    lowest_port: int
    stop_grace_s: float
    open_files: int
    container: Container
    monitor_user: str = ""


class ExportedHost(msgspec.Struct, frozen=True):
    """One machine: its name, its address, and what runs there, nodes first."""

    name: str
    address: str
    processes: tuple[ExportedProcess, ...]


class ExportedCluster(msgspec.Struct, frozen=True, kw_only=True):
    """What the README needs beside the hosts. `nodes` with masters first; `can_init`: `init-cluster` forms so many."""

    name: str
    engine: str
    engine_version: str
    envoy_version: str
    root: str
    nodes: tuple[RedisNode, ...]
    replicas: int
    can_init: bool
    operator: str
    endpoints: tuple[str, ...]
    client_certificates: bool
    hosts: tuple[ExportedHost, ...]
