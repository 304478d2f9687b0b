"""`logs`: what the Units wrote, the end of it or as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from redisforge.errors import NotFoundError
from redisforge.runbooks.cluster import Cluster

_FOLLOW_PAUSE_S = 0.2
_TAIL_BYTES_PER_LINE = 400


def unit_logs(cluster: Cluster, unit_name: str | None) -> dict[str, Path]:
    """The log file of one Unit, or of all, by Unit name. Raises NotFoundError for an unknown Unit."""
    names = cluster.unit_names()
    if unit_name is not None and unit_name not in names:
        raise NotFoundError(
            f"no unit called {unit_name!r}",
            where=cluster.topology.name,
            next_step=f"the units are: {', '.join(names)}",
        )
    chosen = [unit_name] if unit_name else names
    return {name: Path(cluster.runtime.log_path(name)) for name in chosen}


def last_lines(path: Path, line_count: int) -> list[str]:
    """The last lines of a file of any size; an absent file has none."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - line_count * _TAIL_BYTES_PER_LINE))
            text = stream.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-line_count:] if line_count else []


def follow(logs: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """(Unit, line) for every line written from now on, until the caller stops. A file cut short is read anew."""
    offsets = {name: _size(path) for name, path in logs.items()}
    rests = dict.fromkeys(logs, "")
    while True:
        quiet = True
        for name, path in logs.items():
            size = _size(path)
            if size < offsets[name]:
                offsets[name], rests[name] = 0, ""
            if size > offsets[name]:
                quiet = False
                with path.open("rb") as stream:
                    stream.seek(offsets[name])
                    chunk = stream.read(size - offsets[name])
                offsets[name] += len(chunk)
                *lines, rests[name] = (rests[name] + chunk.decode("utf-8", errors="replace")).split("\n")
                yield from ((name, line) for line in lines)
        if quiet:
            time.sleep(_FOLLOW_PAUSE_S)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
