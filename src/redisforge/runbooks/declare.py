"""After a verb has changed what runs, redisforge.yaml is to declare that; the next `up` would want the old again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from redisforge.disk import write_file
from redisforge.errors import HostError
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import Topology
from redisforge.plan.resize import keep_places
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
    return keep_places(declared, recorded)


def declare_options(topology: Topology, options: Mapping[tuple[str, ...], str]) -> tuple[str, ...]:
    """Set options in the file that declares `topology`; returns sentences for the operator. Never raises for the file:
    what cannot be written is said. The built-in topology has no file: there the record of the cluster counts."""
    from redisforge.config.edit import set_option
    from redisforge.config.files import UnreadableFileError, read_bounded
    from redisforge.config.yaml_lines import MAX_BYTES

    if not topology.source:
        return ()
    path = Path(topology.source).resolve()  # a link stays a link
    wanted = ", ".join(f"{'.'.join(option)}: {value}" for option, value in options.items())
    by_hand = f"declare {wanted} in {path}: it could not be changed"
    try:
        content, mode = read_bounded(path, MAX_BYTES)
        text = content.decode()
    except (UnreadableFileError, UnicodeDecodeError) as error:
        return (f"{by_hand} ({error})",)
    changed = text
    for option, value in options.items():
        result = set_option(changed, option, value)
        if result is None:
            return (by_hand,)
        changed = result
    if changed == text:
        return ()
    try:
        write_file(path, changed.encode(), mode & _MODE)
    except HostError as error:
        return (f"{by_hand} ({error.why})",)
    return (f"{path} now declares {wanted}",)
