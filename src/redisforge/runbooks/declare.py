"""After a verb has changed what runs, redisforge.yaml is to declare that; the next `up` would want the old again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from redisforge.disk import write_file
from redisforge.errors import HostError
from redisforge.model.adopted import AdoptedNode
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import Topology
from redisforge.plan.envoy_places import keep_envoys
from redisforge.plan.resize import keep_places
from redisforge.render.adopted_yaml import node_text
from redisforge.runbooks.cluster import read_topology

_MODE = 0o777


def as_recorded(declared: Topology, layout: ClusterLayout, overridden: frozenset[str]) -> Topology:
    """`declared` with every node where the running cluster has it (plan/resize.keep_places).

    The built-in topology says nothing of its own about a cluster that has been scaled or upgraded since: then the
    record does, but for options that the environment overrides (`overridden`: names of variables in force).
    """
    if not Path(layout.topology).exists():
        return declared
    recorded = read_topology(layout)
    if not declared.source and not recorded.source:
        replicas = declared.replicas if "REPLICAS_PER_MASTER" in overridden else recorded.replicas
        declared = replace(declared, shards=recorded.shards, replicas=replicas, engine=recorded.engine)
    return keep_envoys(keep_places(declared, recorded), recorded)


def declare_options(
    topology: Topology, options: Mapping[tuple[str, ...], str], *, with_nodes: bool = True
) -> tuple[str, ...]:
    """Set options in the file that declares `topology`; returns sentences for the operator. Never raises for the file:
    what cannot be written is said. The built-in topology has no file: there the record of the cluster counts.

    Where the file lists the nodes (`external.nodes`), the list follows `topology` too, unless not `with_nodes`."""
    from redisforge.config.edit import set_items, set_option

    lists_nodes = with_nodes and topology.access is not None
    if not (options or lists_nodes):
        return ()
    names = [f"{'.'.join(option)}: {value}" for option, value in options.items()]
    by_hand = f"declare {', '.join(names)}"
    if lists_nodes:
        names.append("external.nodes")
        by_hand = f"declare {', '.join(names)} as `redisforge status` shows them"

    def changed(text: str) -> str | None:
        result: str | None = text
        for option, value in options.items():
            result = result and set_option(result, option, value)
        if lists_nodes and result:
            items = [node_text(node) for node in external_nodes(topology)]
            return set_items(result, ("external", "nodes"), items)
        return result

    return _edit(topology, changed, by_hand=by_hand, done=f"now declares {', '.join(names)}")


def undeclare_hosts(topology: Topology, names: Sequence[str]) -> tuple[str, ...]:
    """Take hosts out of the file that declares `topology`, as `declare_options` sets options."""
    from redisforge.config.edit import drop_host

    if not names:
        return ()

    def changed(text: str) -> str | None:
        result: str | None = text
        for name in names:
            result = result and drop_host(result, name)
        return result

    wanted = ", ".join(names)
    return _edit(
        topology, changed, by_hand=f"take the host {wanted} out", done=f"does not declare the host {wanted} any more"
    )


def _edit(topology: Topology, changed: Callable[[str], str | None], *, by_hand: str, done: str) -> tuple[str, ...]:
    from redisforge.config.files import UnreadableFileError, read_bounded
    from redisforge.config.yaml_lines import MAX_BYTES

    if not topology.source:
        return ()
    path = Path(topology.source).resolve()  # a link stays a link
    by_hand = f"{by_hand} in {path}: it could not be changed"
    try:
        content, mode = read_bounded(path, MAX_BYTES)
        text = content.decode()
    except (UnreadableFileError, UnicodeDecodeError) as error:
        return (f"{by_hand} ({error})",)
    result = changed(text)
    if result is None:
        return (by_hand,)
    if result == text:
        return ()
    try:
        write_file(path, result.encode(), mode & _MODE)
    except HostError as error:
        return (f"{by_hand} ({error.why})",)
    return (f"{path} {done}",)


def engine_version(topology: Topology) -> dict[tuple[str, ...], str]:
    """The option that declares the version of the engine."""
    return {("engine", "version"): f'"{topology.engine.version}"'}


def external_nodes(topology: Topology) -> tuple[AdoptedNode, ...]:
    """The nodes as `external.nodes` lists them; what follows from the address or from `hosts` is not said."""
    declared = {host.name: host for host in topology.hosts}
    listed: list[AdoptedNode] = []
    for node in topology.nodes:
        host = declared.get(node.host)
        listed.append(
            AdoptedNode(
                address=node.address, port=node.port, bus_port=node.bus_port, shard=node.shard + 1,
                role=node.intended_role, host="" if node.host == node.address else node.host,
                zone="" if node.zone == (host.zone if host else node.host) else node.zone,
                service=node.service,
            )
        )  # fmt: skip
    return tuple(listed)
