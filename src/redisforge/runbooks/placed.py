"""What lies on the hosts for the nodes: which program they were started with, and their redis.conf."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from redisforge.errors import BinaryError
from redisforge.fleet.binaries import EngineBinary, cache_folder, ensure_engine
from redisforge.fleet.binaries.identify import identify_engine
from redisforge.model.images import own_version
from redisforge.model.topology import Engine
from redisforge.render.settings import read_conf
from redisforge.runbooks.cluster import Cluster, programs_folder


class _UnitDocument(msgspec.Struct):
    argv: tuple[str, ...]
    image: str = ""


class PlacedNode(msgspec.Struct, frozen=True):
    """A node that RedisForge runs, as its Unit's folder has it. `server_path` is the program on this machine."""

    name: str
    server_path: str
    settings: Mapping[str, str]


async def placed_node(cluster: Cluster, name: str) -> PlacedNode | None:
    """The placed files of one node; None if nothing is placed, or it cannot be read. Raises HostError."""
    folder, transport = cluster.unit_folder(name), cluster.site_of(name).transport
    unit, conf = await asyncio.gather(transport.read(f"{folder}/unit.json"), transport.read(f"{folder}/redis.conf"))
    try:
        document = msgspec.json.decode(unit or "", type=_UnitDocument)
    except msgspec.DecodeError:
        return None
    path = local_program(cluster, name, document.argv[0], document.image)
    return PlacedNode(name, path, read_conf(conf or ""))


def local_program(cluster: Cluster, unit_name: str, path: str, image: str = "") -> str:
    """Where the program that a Unit has at `path` on its host lies on this machine: the two are copies (units.py).

    Of what runs in a container of `image`, it is the program of the same version here. Raises BinaryError, HostError.
    """
    if image:
        engine, version = cluster.topology.engine, own_version(image)
        return _like(
            msgspec.structs.replace(engine, server_path="", cli_path="", version=version) if version else engine
        )
    host = next((h for h in cluster.topology.hosts if cluster.sites[h.name] is cluster.site_of(unit_name)), None)
    carried = f"{programs_folder(host)}/" if host and host.ssh is not None else ""
    if not carried or not path.startswith(carried):
        return path
    return str(cache_folder(os.environ) / path.removeprefix(carried))


@functools.cache
def _like(engine: Engine) -> str:
    """The program of an engine here; it is fetched if there is none."""
    return ensure_engine(engine, cache_folder(os.environ), lambda _: None, os.environ).server_path


def placed_nodes(cluster: Cluster) -> dict[str, PlacedNode]:
    """The placed files of every node that RedisForge runs, by name. Raises HostError."""

    async def read() -> list[PlacedNode | None]:
        names = [node.name for node in cluster.topology.nodes if node.managed]
        return await asyncio.gather(*(placed_node(cluster, name) for name in names))

    return {node.name: node for node in asyncio.run(read()) if node}


def engines_of(cluster: Cluster, nodes: Iterable[PlacedNode]) -> dict[str, EngineBinary]:
    """The engines that nodes were started with, by the path of the server. Raises BinaryError for one that is gone."""
    engines: dict[str, EngineBinary] = {}
    for path in dict.fromkeys(node.server_path for node in nodes):
        identity = identify_engine(Path(path), os.environ)
        if identity.problem:
            raise BinaryError(
                "the program that a node was started with cannot be used any more",
                where=path,
                why=identity.problem,
                next_step="`redisforge up` finds another one and restarts the nodes with it",
            )
        engines[path] = EngineBinary(cluster.topology.engine.kind, identity.version, path, "", "explicit")
    return engines
