"""`lock status` and `lock release`: who operates on a cluster, and how to stop them.

A dead holder needs no release: the kernel has taken its lock back. A living one is asked to stop (SIGTERM), which it
does at a clean point; --force kills it, and the same command goes on from there when it is run again.
"""

from __future__ import annotations

import getpass
import signal
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from redisforge.disk import PRIVATE_MODE, write_file
from redisforge.errors import GateError, HostError
from redisforge.fleet.journal import Journal
from redisforge.fleet.lock import (
    LockHolder,
    LockState,
    await_release,
    end_holder,
    is_same_process,
    lock_state,
    read_holder,
)
from redisforge.model.layout import ClusterLayout
from redisforge.model.report import LockReport, again, running
from redisforge.model.topology import Topology
from redisforge.runbooks.lock_hosts import HostLocks
from redisforge.runbooks.run import Progress

_KILL_PATIENCE_S = 10.0
_ASKED = "lock.asked"
"""Which holder was asked to stop last: the text of the lock file at that time."""


def lock_report(layout: ClusterLayout, topology: Topology | None = None) -> LockReport:
    """Who holds the lock now, on this machine or, for a `topology` on other hosts, on these."""
    path = Path(layout.lock)
    here = _report(path.parent.name, lock_state(path))
    there = HostLocks(topology, layout).report()
    if there is None:
        return here
    if not here.held and there.held:
        return there
    known = here.held or there.known
    return msgspec.structs.replace(here, known=known, held_on=there.held_on, unreachable=there.unreachable)


def lock_notices(layout: ClusterLayout, verb: str, topology: Topology | None = None) -> tuple[str, ...]:
    """For `--dry-run`: who holds the lock now, on this machine or, for a `topology` on other hosts, on these, so that
    `verb` would be refused. Empty if nobody does. No lock file is made."""
    state = lock_state(Path(layout.lock))
    if not state.held:
        there = HostLocks(topology, layout).report()
        if there is None or not there.held:
            return ()
        who = f"{running(there.verb, there.command)} of {there.user} on {there.host} (process {there.pid})"
    elif state.holder is not None and state.pid in (state.holder.pid, -1):
        who = str(state.holder)
    elif state.pid > 0:
        who = f"process {state.pid}, which has not said who it is,"
    else:
        who = "a process that this user cannot see"
    return (f"{who} holds the cluster's lock; until it has ended, `{verb}` is refused",)


def release(
    layout: ClusterLayout, topology: Topology | None, progress: Progress, *, wait_s: float, force: bool = False
) -> LockReport:
    """Have the living holder give the lock back, within `wait_s` seconds; with `force`, kill it.

    Returns who held it; a lock that is free stays as it is.

    Raises:
        HostError: the holder is not a process that this user can stop here.
        GateError: it did not end in time.
    """
    path = Path(layout.lock)
    state = lock_state(path)
    report = _report(path.parent.name, state)
    if not state.held:
        return HostLocks(topology, layout).release(progress, wait_s=wait_s, force=force) or report
    holder = _known_holder(path, state)
    journal = Journal(Path(layout.journal), verb="lock release", user=getpass.getuser())
    number = signal.SIGKILL if force else signal.SIGTERM
    patience_s = _KILL_PATIENCE_S if force else wait_s
    # A second one would stop the verb where it is, and not at a clean point (runbooks/control.py).
    asked = path.with_name(_ASKED)
    is_asked = not force and read_holder(asked) == holder
    try:
        if not is_asked:
            end_holder(path, state, number)
            write_file(asked, msgspec.json.encode(holder), PRIVATE_MODE)
    except ProcessLookupError:
        if lock_state(path).held:
            raise _other_holder(path, state) from None
        return report  # it ended while this was on its way
    except PermissionError as error:
        raise HostError(
            f"process {state.pid} cannot be stopped",
            where=str(path),
            why="it belongs to another user",
            next_step=f"ask {holder.user} to press Ctrl-C there, or run this command as {holder.user}",
        ) from error
    what = "was asked to stop before" if is_asked else f"got {number.name}"
    progress(f"process {state.pid} {what}; waiting for its end, at most {patience_s:g} s")
    ended = await_release(path, state.pid, patience_s)
    journal.write("end", what=f"{number.name} to {holder}", result="released" if ended else "still held")
    if not ended:
        raise GateError(
            f"process {state.pid} did not end within {patience_s:g} s",
            where=str(path),
            why=f"{holder} has not come to a clean point yet",
            next_step="wait and run the command again, or kill it with `redisforge lock release --force`: "
            f"{again(holder.verb, holder.command)} goes on from there when it is run again",
        )
    return report


def _known_holder(path: Path, state: LockState) -> LockHolder:
    """The holder, if the file's text is the holder's own. Raises HostError."""
    holder = state.holder
    if state.pid < 0:
        raise HostError(
            "the holder of the lock cannot be seen from here",
            where=str(path),
            why=f"it is another user's, or runs in a container ({holder or 'the lock file does not say who'})",
            next_step="stop it where it runs: Ctrl-C",
        )
    if holder is None or holder.pid != state.pid or not is_same_process(holder):
        raise _other_holder(path, state)
    return holder


def _other_holder(path: Path, state: LockState) -> HostError:
    return HostError(
        f"the lock is held by process {state.pid}, and the lock file does not name it",
        where=str(path),
        why=f"the file says: {state.holder or 'nothing'}",
        next_step="if it has only just begun, run the command again; else look at it with "
        f"`ps -fp {state.pid}` and end it by hand",
    )


def _report(name: str, state: LockState) -> LockReport:
    holder = state.holder
    if holder is None:
        note = "held by a process that has not said who it is" if state.held else ""
        return LockReport(cluster=name, held=state.held, pid=state.pid if state.pid > 0 else None, note=note)
    if not state.held:
        note = (
            "the process that held it has ended without giving it back; "
            f"{again(holder.verb, holder.command)} goes on from there"
        )
    elif state.pid < 0:
        note = "held by a process that this user cannot see"
    elif state.pid != holder.pid:
        note = f"process {state.pid} holds it and has not said who it is"
    else:
        note = ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(holder.since)).total_seconds() if state.held else None
    return LockReport(
        cluster=name, held=state.held, user=holder.user, host=holder.host, pid=holder.pid, verb=holder.verb,
        command=holder.command, since=holder.since, alive=is_same_process(holder), seconds=seconds, note=note,
    )  # fmt: skip
