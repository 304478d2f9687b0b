"""One operation at a time per cluster.

The lock is flock(2) on CLUSTER/lock: the kernel gives it back when its holder dies, so it cannot go stale. The
file's text says who holds it, for the message to the second.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from redisforge.errors import HostError, LockedError


class LockHolder(msgspec.Struct, frozen=True):
    """Who operates: `verb` is the command, `since` an ISO 8601 time in UTC."""

    user: str
    host: str
    pid: int
    verb: str
    since: str


@contextmanager
def cluster_lock(path: Path, verb: str) -> Generator[LockHolder]:
    """Hold the cluster's lock for the length of a `with` block.

    Raises:
        LockedError: somebody else holds it; says who, for what and since when.
        HostError: the lock file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        with suppress(OSError):
            path.parent.rmdir()  # if it was made just now, it is empty
        raise HostError(
            "cannot make the cluster's folder",
            where=str(path.parent),
            why=str(error.strerror),
            next_step="make room there, or set REDISFORGE_HOME to a folder that this user can write",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _locked(path) from error
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = LockHolder(getpass.getuser(), socket.gethostname(), os.getpid(), verb, now)
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk: it is locked without the text too, and `down` must work
            os.pwrite(descriptor, msgspec.json.encode(holder), 0)
        yield holder
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def read_holder(path: Path) -> LockHolder | None:
    """Who wrote the lock file last; None if nobody or unreadable. It may have died since."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=LockHolder)
    except (OSError, msgspec.DecodeError):
        return None


def _locked(path: Path) -> LockedError:
    holder = read_holder(path)
    who = (
        f"`redisforge {holder.verb}` of {holder.user} on {holder.host} (process {holder.pid}) since {holder.since}"
        if holder
        else "another redisforge command"
    )
    return LockedError(
        "another operation on this cluster is running",
        where=str(path.parent),
        why=f"held by {who}",
        next_step="wait for it to end and run the command again; when its process dies the lock is free",
    )
