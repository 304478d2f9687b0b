"""One operation at a time per cluster.

The lock is flock(2) on CLUSTER/lock: the kernel gives it back when its holder dies, so it cannot go stale. The
file's text says who holds it, for the message to the second. Whether a process holds it now is read in /proc
(proc_locks(5), "lock:" in proc_pid_fdinfo(5)): trying the lock would turn away a verb that begins at that moment.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import signal
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from redisforge.errors import HostError, LockedError
from redisforge.fleet.journal import repeatable_command
from redisforge.model.report import running

_END_POLL_S = 0.05
_UNNAMED_S = 1.0


class LockHolder(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who operates: `verb` is what is done, `command` the words that do it again ("" if they would not, or are not
    known), `since` an ISO 8601 time in UTC.

    A pid is used again some day: `start_ticks` (proc_pid_stat(5), field 22) and `boot_id` tell the process apart.
    """

    user: str
    host: str
    pid: int
    verb: str
    since: str
    start_ticks: int = 0
    boot_id: str = ""
    command: str = ""

    def __str__(self) -> str:
        return (
            f"{running(self.verb, self.command)} of {self.user} on {self.host} (process {self.pid}) since {self.since}"
        )


class LockState(msgspec.Struct, frozen=True):
    """`pid` holds the lock (0: nobody; -1: somebody whom this user cannot see). `holder` is who wrote last."""

    pid: int
    holder: LockHolder | None

    @property
    def held(self) -> bool:
        """Whether an operation is running."""
        return self.pid != 0


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
        _take(descriptor, path)
        now, pid = datetime.now(UTC).isoformat(timespec="seconds"), os.getpid()
        holder = LockHolder(
            getpass.getuser(), socket.gethostname(), pid, verb, now, start_ticks(pid), boot_id(), repeatable_command()
        )
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk: it is locked without the text too, and `down` must work
            os.pwrite(descriptor, msgspec.json.encode(holder), 0)
        try:
            yield holder
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)  # what is left there is of a holder that was killed
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    """Take the lock, or raise LockedError that says who holds it.

    Who has taken it writes the file a moment later, and who gives it back empties it a moment before. So while the file
    names nobody who holds the lock it is tried again, for at most _UNNAMED_S.
    """
    deadline = time.monotonic() + _UNNAMED_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = read_holder(path)
            if (holder and holds(holder.pid, path)) or time.monotonic() > deadline:
                raise _locked(path) from error
        else:
            return
        time.sleep(_END_POLL_S)


def read_holder(path: Path) -> LockHolder | None:
    """Who wrote the lock file last; None if nobody or unreadable. It may have died since."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=LockHolder)
    except (OSError, msgspec.DecodeError):
        return None


def lock_state(path: Path) -> LockState:
    """Who holds the lock at this moment, and who wrote the file last."""
    holder = read_holder(path)
    try:
        file = path.stat()
    except OSError:
        return LockState(0, None)
    for pid in _possible_holders(file, holder):
        if holds(pid, path):
            return LockState(pid, read_holder(path))
    # A process of another user, or of another process namespace: /proc does not show what it has open.
    unseen = any(pid <= 0 or not _may_look_into(pid) for pid in _flocks_of(file))
    return LockState(-1 if unseen else 0, holder)


def holds(pid: int, path: Path) -> bool:
    """Whether the process holds the lock now: it has the file open, with a flock on that very descriptor."""
    try:
        file = path.stat()
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for descriptor in descriptors:
        with suppress(OSError):
            if os.path.samestat(descriptor.stat(), file):
                details = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text()
                if any(line.startswith("lock:") and "FLOCK" in line for line in details.splitlines()):
                    return True
    return False


def is_same_process(holder: LockHolder) -> bool:
    """Whether the pid of `holder` is still the process that wrote the file, and no later one with its number."""
    try:
        return holder.boot_id == boot_id() and start_ticks(holder.pid) == holder.start_ticks
    except OSError:
        return False


def end_holder(path: Path, state: LockState, number: signal.Signals) -> None:
    """Send a signal to the holder of the lock, through a descriptor of the process that cannot come to mean another.

    Raises:
        ProcessLookupError: the holder has ended meanwhile, or is not the one of `state`.
        PermissionError: it is another user's.
    """
    holder = state.holder
    descriptor = os.pidfd_open(state.pid)
    try:
        # Checked after the descriptor was taken: from here on the number cannot be given to another process.
        if holder is None or holder.pid != state.pid or not is_same_process(holder) or not holds(state.pid, path):
            raise ProcessLookupError
        signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def await_release(path: Path, pid: int, deadline_s: float) -> bool:
    """Wait until `pid` does not hold the lock any more; returns whether that came within `deadline_s` seconds."""
    deadline = time.monotonic() + deadline_s
    while holds(pid, path):
        if time.monotonic() > deadline:
            return False
        time.sleep(_END_POLL_S)
    return True


def boot_id() -> str:
    """What this start of the machine is called; empty where that is not told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int:
    """When a process was started, in clock ticks since the machine's start. Raises OSError if there is none."""
    # The name in parentheses may hold anything; the rest counts from the state, which is field 3.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _possible_holders(file: os.stat_result, holder: LockHolder | None) -> Iterator[int]:
    if holder:
        yield holder.pid
    yield from (pid for pid in _flocks_of(file) if pid > 0)


def _flocks_of(file: os.stat_result) -> list[int]:
    """The pids that hold a flock on a file, by its number: `1: FLOCK  ADVISORY  WRITE 12060 fe:00:2148539 0 EOF`.

    The device is not compared: file systems of several layers show another one here than stat does.
    """
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [int(row[4]) for row in rows if len(row) == 8 and row[1] == "FLOCK" and row[5].endswith(f":{file.st_ino}")]


def _may_look_into(pid: int) -> bool:
    try:
        os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208  only whether it may be listed
    except PermissionError:
        return False
    except OSError:
        return True  # it has ended: there is nothing to see
    return True


def _locked(path: Path) -> LockedError:
    holder = read_holder(path)
    return LockedError(
        "another operation on this cluster is running",
        where=str(path.parent),
        why=f"held by {holder or 'another redisforge command'}",
        next_step="wait for it to end and run the command again; `redisforge lock status` says whether it lives, "
        "`redisforge lock release` stops it at a clean point; when its process dies the lock is free",
    )
