"""Who holds a cluster's lock on its hosts, and how that one is stopped from elsewhere (fleet/host_lock.py)."""

from __future__ import annotations

import msgspec

from redisforge.fleet.lock import LockHolder
from redisforge.fleet.transport import Transport

_LIMIT_S = 15.0

LOOK = r"""
pid=$(sed -n 1p "$1" 2>/dev/null)
[ -n "$pid" ] && [ "$(readlink "/proc/$pid/fd/9" 2>/dev/null)" = "$1" ] && sed -n 2p "$1"
exit 0
"""
"""Argument: the lock file. Prints the holder if the process that wrote it still has it open."""

ASK = r"""
[ -e "$1" ] && : >"$1.asked"
exit 0
"""
"""Argument: the lock file. Whoever holds it tells its operator's command to stop."""

BREAK = r"""
pid=$(sed -n 1p "$1" 2>/dev/null)
[ -n "$pid" ] && [ "$(readlink "/proc/$pid/fd/9" 2>/dev/null)" = "$1" ] && [ "$(sed -n 2p "$1")" = "$2" ] || exit 0
kill -KILL "$pid" && : >"$1"
"""
"""Arguments: the lock file, the holder as the file has it. Takes the lock from that holder, and from no later one."""


async def look_at_lock(transport: Transport, path: str) -> LockHolder | None:
    """Who holds the lock on a host now. Raises HostError."""
    shown = (await transport.run(("sh", "-c", LOOK, "sh", path), timeout_s=_LIMIT_S)).stdout.strip()
    return msgspec.json.decode(shown, type=LockHolder) if shown else None


async def ask_to_stop(transport: Transport, path: str) -> None:
    """Have the holder's command stop at its next safe point; it hears of it with its next beat. Raises HostError."""
    await transport.run(("sh", "-c", ASK, "sh", path), timeout_s=_LIMIT_S)


async def break_lock(transport: Transport, path: str, holder: LockHolder) -> None:
    """Take the lock from this holder. Its command ends at its next safe point, not at once. Raises HostError."""
    written = msgspec.json.encode(holder).decode()
    await transport.run(("sh", "-c", BREAK, "sh", path, written), timeout_s=_LIMIT_S)
