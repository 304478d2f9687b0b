"""The lock of a cluster on its hosts, for operators on several machines (decision 0012).

    LOCK_HOLD on each host      flock(2) on FOLDER/locks/CLUSTER for as long as its standard input says something
    a thread of the verb        one connection to each host; a beat every BEAT_S

The kernel of the host gives the lock back when LOCK_HOLD ends, and LOCK_HOLD ends when the verb's connection does, or
after SILENCE_S without a beat. So a dead operator, machine or connection leaves nothing behind, and no clocks are
compared. Whoever operates holds it on more than half of the hosts, and is refused if any host says that it is held.
Hosts are asked in an order that is the same for everybody, the first one alone: of two at the same moment one wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import msgspec

from redisforge.errors import HostError, HostKeyError, LockedError, UnreachableError
from redisforge.fleet import ssh_scripts
from redisforge.fleet.lock import LockHolder
from redisforge.fleet.ssh_connection import SshConnection

if TYPE_CHECKING:
    import asyncssh

BEAT_S = 5.0
SILENCE_S = 30
"""After so long without a beat a host takes its lock back. A machine that slept longer finds that out when it wakes."""
_LONGEST_S = 30 * 24 * 3600
_END_LIMIT_S = 5.0
_PREFIX = "redisforge-lock "

LOCK_HOLD = r"""
umask 077
say() { printf 'redisforge-lock %s\n' "$1"; }
command -v flock >/dev/null 2>&1 || { say 'no flock: install util-linux there'; exit 4; }
mkdir -p -- "${1%/*}" && exec 9>>"$1" || exit 3
left=20
until flock -n 9
do
pid=$(sed -n 1p "$1")
if [ "$left" -eq 0 ] || { [ -n "$pid" ] && [ "$(readlink "/proc/$pid/fd/9")" = "$1" ]; }
then
say "held $(sed -n 2p "$1")"
exit 1
fi
left=$((left - 1))
sleep 0.1
done 2>/dev/null
rm -f -- "$1.asked"
printf '%s\n%s\n' "$$" "$2" >"$1" || :
[ -r "$4" ] && say "record $(sed -n 1p "$4")"
say mine
while [ -n "$(timeout "$3" head -c 1 9>&-)" ]
do
if [ -e "$1.asked" ]
then
rm -f -- "$1.asked"
say asked
fi
done
: >"$1"
"""
"""Arguments: the lock file, the holder as JSON, seconds of silence, a file whose first line is shown to the new holder.
The lock file's lines: its process, the holder. Who has taken the lock writes them a moment later, and who gives it back
empties the file a moment before: while the file does not name a process that has it open, it is read again, for at most
2 s. (/proc does not show another user's process; then the file is believed after that time.) On a full disk the lock is
held without a name."""


class HeldElsewhereError(LockedError):
    """A host says that somebody else holds the lock: `holder`, if that can be read."""

    def __init__(self, holder: LockHolder | None, what: str, *, where: str, why: str, next_step: str) -> None:
        super().__init__(what, where=where, why=why, next_step=next_step)
        self.holder = holder


class LockPlace(msgspec.Struct, frozen=True):
    """A host that is asked for the lock: its name, the way there, the lock file, and what to show of the cluster."""

    name: str
    connection: SshConnection
    path: str
    record_path: str


class HostLock:
    """The lock on `places`, taken in this order. `lost`: hosts that have no vote, because the operator says so."""

    def __init__(self, places: Sequence[LockPlace], holder: LockHolder, lost: frozenset[str] = frozenset()) -> None:
        self._places = tuple(place for place in places if place.name not in lost)
        self._holder = holder
        self._processes: dict[str, asyncssh.SSHClientProcess[bytes] | None] = {}
        """By host; None where another name of the same place has it."""
        self.records: list[str] = []
        """What the hosts show of the cluster (LockPlace.record_path), of those that have it."""
        self._gone: dict[str, str] = {}
        self._was_asked = False
        self._taken: Future[None] = Future()
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] = lambda: None

    def take(self, on_notice: Callable[[str], None]) -> None:
        """Take the lock, or raise. A host that cannot lock has no voice, as one that cannot be reached. `on_notice` is
        also told, from another thread, when somebody asks for the lock.

        Raises:
            LockedError: somebody holds it; says who.
            UnreachableError: too few hosts can be asked.
        """
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live(on_notice)), daemon=True)
        self._thread.start()
        try:
            self._taken.result()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give it back everywhere; returns when the hosts have it back, or after a moment."""
        self._end()
        if self._thread:
            self._thread.join(2 * _END_LIMIT_S)

    def check(self) -> None:
        """For safe points. Raises LockedError when the lock is not held on more than half of the hosts any more."""
        if 2 * (len(self._processes) - len(self._gone)) <= len(self._places):
            raise LockedError(
                "the cluster's lock was lost",
                where=", ".join(self._gone),
                why="\n".join(f"{host}: {why}" for host, why in self._gone.items()),
                next_step="run the same command again: it looks what is there, and goes on",
            )

    async def _live(self, on_notice: Callable[[str], None]) -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        self._end = lambda: loop.is_closed() or loop.call_soon_threadsafe(over.set)
        watches: list[asyncio.Task[None]] = []
        try:
            await self._take_all(on_notice)
            watches = [
                asyncio.create_task(self._watch(name, process, on_notice))
                for name, process in self._processes.items()
                if process
            ]
            self._taken.set_result(None)
            await over.wait()
        except BaseException as error:
            if self._taken.done():
                raise
            self._taken.set_exception(error)
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            await self._give_back()

    async def _take_all(self, on_notice: Callable[[str], None]) -> None:
        for place in self._places:  # connections are made at the same time, whoever is asked first
            asyncio.create_task(place.connection.get()).add_done_callback(_look_at)
        without: dict[str, HostError] = {}
        left = list(self._places)
        while left and not self._processes:
            await self._ask(left.pop(0), without)
        results = await asyncio.gather(*(self._ask(place, without) for place in left), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if 2 * len(self._processes) <= len(self._places):
            raise too_few(len(self._places), without, self._holder)
        if without:
            names = (
                f"{name} ({error.what}{'' if isinstance(error, UnreachableError) else f': {error.why}'})"
                for name, error in without.items()
            )
            on_notice(f"the cluster's lock is held without {', '.join(names)}")

    async def _ask(self, place: LockPlace, without: dict[str, HostError]) -> None:
        """Take the lock at one place. Raises LockedError."""
        try:
            self._processes[place.name] = await self._hold(place)
        except HostError as error:
            without[place.name] = error

    async def _hold(self, place: LockPlace) -> asyncssh.SSHClientProcess[bytes] | None:
        import asyncssh

        holder = msgspec.json.encode(self._holder).decode()
        argv = ("sh", "-c", LOCK_HOLD, "sh", place.path, holder, str(SILENCE_S), place.record_path)
        line = ssh_scripts.launch_line(f"redisforge-{secrets.token_hex(8)}", _LONGEST_S, argv)
        connection = await place.connection.get()
        where = place.connection.target.where
        try:
            async with asyncio.timeout(place.connection.limits.connect_s):
                process = await connection.create_process(line, encoding=None)
                said = await self._answer(process)
        except TimeoutError as error:
            raise UnreachableError("the host does not answer", where=where, why="the lock cannot be had") from error
        except (OSError, asyncssh.Error) as error:
            raise UnreachableError("the connection was lost", where=where, why=str(error)) from error
        if said == "mine":
            return process
        if said.startswith("held"):
            other = _decoded(said.removeprefix("held").strip())
            if other == self._holder:
                return None  # this host is the same place as one that was asked before, under another name
            raise locked(place.name, other)
        why = said or (await process.stderr.read()).decode(errors="replace").partition("\n")[2]
        raise HostError(
            "the host cannot keep the cluster's lock",
            where=f"{where}: {place.path}",
            why=why.strip() or "no answer",
            next_step="mend what it says; `redisforge host check` looks at everything that a host needs",
        )

    async def _answer(self, process: asyncssh.SSHClientProcess[bytes]) -> str:
        """Whether LOCK_HOLD has the lock, in its words; empty if it ends without a word."""
        while line := await process.stdout.readline():
            if line.startswith(_PREFIX.encode()):
                said = line.decode(errors="replace").removeprefix(_PREFIX).strip()
                if not said.startswith("record "):
                    return said
                self.records.append(said.removeprefix("record "))
        return ""

    async def _watch(
        self, name: str, process: asyncssh.SSHClientProcess[bytes], on_notice: Callable[[str], None]
    ) -> None:
        """Beat until the host lets go, or is gone."""
        beat = asyncio.create_task(_beat(process))
        try:
            while line := await process.stdout.readline():
                if line.decode(errors="replace").strip() == f"{_PREFIX}asked" and not self._was_asked:
                    self._was_asked = True  # every host says so; a second signal would stop the verb at once
                    on_notice("another operator asks this command to stop (`redisforge lock release`)")
                    os.kill(os.getpid(), signal.SIGTERM)
            self._gone[name] = "the host took it back"
        except (OSError, EOFError) as error:
            self._gone[name] = str(error) or "the connection was lost"
        except Exception as error:
            self._gone[name] = f"the connection was lost: {error}"
        finally:
            beat.cancel()

    async def _give_back(self) -> None:
        for process in self._processes.values():
            if process is not None:
                with contextlib.suppress(OSError):
                    process.stdin.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_LIMIT_S):
                waits = [process.wait_closed() for process in self._processes.values() if process]
                await asyncio.gather(*waits, return_exceptions=True)
                ends = [place.connection.close() for place in self._places]
                jumps = [jump.close() for place in self._places if (jump := place.connection.jump)]
                await asyncio.gather(*ends, *jumps, return_exceptions=True)


async def _beat(process: asyncssh.SSHClientProcess[bytes]) -> None:
    with contextlib.suppress(OSError):
        while True:
            process.stdin.write(b".")
            await asyncio.sleep(BEAT_S)


def _look_at(attempt: asyncio.Task[object]) -> None:
    """Who needs the connection hears of its failure; that nobody did yet is no reason for a warning."""
    if not attempt.cancelled():
        attempt.exception()


def _decoded(text: str) -> LockHolder | None:
    try:
        return msgspec.json.decode(text, type=LockHolder)
    except msgspec.DecodeError:
        return None


def locked(host: str, holder: LockHolder | None) -> HeldElsewhereError:
    """Somebody else operates, as `host` says."""
    return HeldElsewhereError(
        holder,
        "another operation on this cluster is running",
        where=f"held on {host}",
        why=f"held by {holder or 'another redisforge command'}",
        next_step="wait for it to end and run the command again; `redisforge lock status` says who holds it, "
        "`redisforge lock release` asks it to stop at a clean point; a dead operator's lock is free "
        f"after {SILENCE_S} s",
    )


def too_few(count: int, failures: Mapping[str, HostError], holder: LockHolder) -> UnreachableError:
    """No more than half of the hosts can be asked for the lock. Who shows a key that is not trusted, or answers and
    cannot lock, is there, and must not be declared lost."""
    there = [
        failure
        for failure in failures.values()
        if isinstance(failure, HostKeyError) or not isinstance(failure, UnreachableError)
    ]
    silent = ",".join(sorted(name for name, failure in failures.items() if failure not in there))
    cures = [*dict.fromkeys(failure.next_step or "" for failure in there)]
    if silent:
        cures.append(
            "bring the hosts back. If they are lost, say so, and they are not asked: "
            f"REDISFORGE_LOST_HOSTS={silent} {holder.command or f'redisforge {holder.verb}'}"
        )
    what = "asked" if there else "reached"
    return UnreachableError(
        "the cluster's lock cannot be had",
        where=",".join(sorted(failures)),
        why=f"{len(failures)} of {count} hosts cannot be {what}, and somebody else may operate there\n"
        + "\n".join(f"{failure.where}: {failure.what}: {failure.why}" for failure in failures.values()),
        next_step="\n".join(cures),
    )
