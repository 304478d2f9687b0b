"""`access export` and `access import`: let an operator on another machine in (decision 0012)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import msgspec

from redisforge.disk import PRIVATE_MODE, PUBLIC_MODE, write_file
from redisforge.errors import HostError, NotFoundError, RefusedError
from redisforge.model.layout import ClusterLayout
from redisforge.model.shared_record import AccessFile
from redisforge.model.topology import Topology
from redisforge.runbooks.cluster import Cluster, cluster_layout
from redisforge.runbooks.shared_record import ca_sum, local_record, take_over

_LIMIT_BYTES = 64 << 20


def export_access(cluster: Cluster, path: Path, *, force: bool = False) -> None:
    """Write all that another operator needs to `path` (0600): topology, passwords, certificates and keys, the CA's too.

    Raises:
        NotFoundError: no verb has recorded the cluster on its hosts yet.
        HostError: the file is there already, or cannot be written.
    """
    record = local_record(cluster.layout)
    if record is None:
        raise NotFoundError(
            "this cluster has no record that could be shared",
            where=cluster.layout.folder,
            why="it runs on this machine alone, or `up` has not run since",
            next_step="a cluster on other hosts gets one with `redisforge up`",
        )
    folder = Path(cluster.layout.folder)
    paths = [Path(cluster.layout.secrets), *sorted(Path(cluster.layout.tls).iterdir())]
    files = {str(file.relative_to(folder)): file.read_text(encoding="utf-8") for file in paths if file.is_file()}
    content = msgspec.json.encode(AccessFile(record=record, files=files))
    if not write_file(path, content, PRIVATE_MODE, replace=force):
        raise HostError("the file is there already", where=str(path), next_step="name another one, or give --force")


def import_access(path: Path, home: Path, declared: Topology | None) -> str:
    """Make this machine one that can operate the cluster of an access file; returns the cluster's name. `declared`:
    what redisforge.yaml here says, for the ways to the hosts.

    Raises:
        NotFoundError: there is no such file.
        HostError: it cannot be read, or is no access file.
        RefusedError: this machine has a cluster of this name with another CA.
    """
    access = _read(path)
    name = access.record.topology.name
    layout = cluster_layout(home, name)
    own = ca_sum(access.record.topology, ClusterLayout(layout.folder))
    if own and own != access.record.ca:
        raise RefusedError(
            f"this machine has another cluster called {name!r}",
            where=layout.folder,
            why="its CA is not the one in the file",
            next_step="give it up with `redisforge down --purge`, or set REDISFORGE_HOME to another folder",
        )
    mine = local_record(layout)
    for relative, text in access.files.items():
        if not _is_below(relative):
            raise HostError("this is no access file", where=str(path), why=f"it names {relative}")
        mode = PUBLIC_MODE if relative.endswith(".crt") else PRIVATE_MODE
        write_file(Path(layout.folder, relative), text.encode(), mode)
    if mine is None or mine.serial < access.record.serial:
        take_over(access.record, declared, layout)
    Path(layout.folder).chmod(0o700)
    return name


def _is_below(relative: str) -> bool:
    parts = PurePosixPath(relative).parts
    return relative == "secrets.env" or (len(parts) == 2 and parts[0] == "tls" and parts[1] not in ("..", "."))


def _read(path: Path) -> AccessFile:
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise HostError("this is no access file", where=str(path), why="it is too large")
        return msgspec.json.decode(path.read_bytes(), type=AccessFile)
    except FileNotFoundError as error:
        raise NotFoundError("there is no such file", where=str(path)) from error
    except (OSError, msgspec.DecodeError) as error:
        raise HostError(
            "this is no access file",
            where=str(path),
            why=str(error),
            next_step="`redisforge access export FILE` writes one, on a machine that operates the cluster",
        ) from error
