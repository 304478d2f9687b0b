"""The lock of a verb: on this machine, and on the cluster's hosts where others may operate it too (decision 0012)."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from redisforge.errors import UsageError
from redisforge.fleet.host_lock import HeldElsewhereError, HostLock, LockPlace
from redisforge.fleet.lock import LockHolder, boot_id, cluster_lock, is_same_process
from redisforge.fleet.ssh import SshTransport
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.topology import Topology
from redisforge.runbooks.cluster import make_sites
from redisforge.runbooks.run import Progress
from redisforge.runbooks.shared_record import RECORD_FILE, catch_up

LOST_HOSTS = "REDISFORGE_LOST_HOSTS"
"""Names of hosts, with commas between, that the operator declares lost: they are not asked for the lock."""
_OWN_DEAD_LIMIT_S = 20.0
_RETRY_S = 0.2


class Held:
    """What a verb holds. `check` is for its safe points."""

    def __init__(self, lock: HostLock | None = None) -> None:
        self._lock = lock

    def check(self) -> None:
        """Raises LockedError when the lock was lost on the way."""
        if self._lock:
            self._lock.check()


@contextmanager
def holding(
    topology: Topology, layout: ClusterLayout, verb: str, progress: Progress, *,
    supplied: Mapping[str, Secret] | None = None,
) -> Generator[Held]:  # fmt: skip
    """Hold the cluster's lock for a block: on this machine, then on more than half of its hosts over SSH, if any.

    `supplied` are passwords that the operator gave, by user name.

    Raises:
        RefusedError: the hosts have a newer record, or the cluster has other secrets (runbooks/shared_record.py).
        LockedError: somebody else operates; says who, on which machine, for what and since when.
        UnreachableError: too few hosts can be reached to be sure that nobody does.
        UsageError: all hosts are declared lost.
    """
    with cluster_lock(Path(layout.lock), verb) as holder:
        places = lock_places(topology, layout)
        if not places:
            yield Held()
            return
        if all(place.name in lost_hosts(os.environ) for place in places):
            raise UsageError(
                f"{LOST_HOSTS} declares every host of the cluster lost",
                where=", ".join(place.name for place in places),
                why="then nobody can say whether somebody else operates, and nothing is left to work on",
                next_step=f"leave out of {LOST_HOSTS} the hosts that are only not reached from here; "
                "`redisforge host check` says why they are not",
            )
        lock = _taken(places, holder, progress)
        try:
            catch_up(lock.records, topology, layout, supplied)
            yield Held(lock)
        finally:
            lock.release()


def _taken(places: tuple[LockPlace, ...], holder: LockHolder, progress: Progress) -> HostLock:
    """The lock, taken. One that a command of this machine held, which is dead, comes back in a moment: wait for it."""
    deadline = time.monotonic() + _OWN_DEAD_LIMIT_S
    while True:
        lock = HostLock(places, holder, lost_hosts(os.environ))
        try:
            lock.take(progress)
        except HeldElsewhereError as error:
            other = error.holder
            was_here = other is not None and other.boot_id == boot_id() and not is_same_process(other)
            if not was_here or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)
        else:
            return lock


def lock_places(topology: Topology, layout: ClusterLayout) -> tuple[LockPlace, ...]:
    """Where a cluster's lock is, in the order in which everybody asks: by address, whatever hosts are called."""
    sites = make_sites(topology, layout)
    places: dict[tuple[str, int, str], LockPlace] = {}
    for host in sorted(topology.hosts, key=lambda host: host.address):
        transport = sites[host.name].transport
        if host.ssh is not None and isinstance(transport, SshTransport):
            key = (host.ssh.address or host.address, host.ssh.port, host.folder)
            path = f"{host.folder}/locks/{topology.name}"
            record_path = f"{sites[host.name].layout.folder}/{RECORD_FILE}"
            places.setdefault(key, LockPlace(host.name, transport.connection, path, record_path))
    return tuple(places.values())


def lost_hosts(environment: Mapping[str, str]) -> frozenset[str]:
    """The hosts that the operator declares lost."""
    return frozenset(name.strip() for name in environment.get(LOST_HOSTS, "").split(",") if name.strip())
