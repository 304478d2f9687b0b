"""Changes a host: files of root's, whole or not at all, then commands; with sudo where the login is not root."""

from __future__ import annotations

import secrets

from redisforge.errors import HostError
from redisforge.fleet.transport import Transport
from redisforge.model.host_facts import HostFacts
from redisforge.model.host_report import HostChange
from redisforge.model.unit import UnitFile

LIMIT_S = 60.0
FILE_MODE = 0o644
INSTALL = """
set -e
umask 022
mkdir -p -- "$(dirname -- "$2")"
trap 'rm -f -- "$2.redisforge-new"' EXIT
cp -- "$1" "$2.redisforge-new"
chmod 644 "$2.redisforge-new"
sync
mv -f -- "$2.redisforge-new" "$2"
"""
"""Arguments: a file that a user has placed, and where root wants it."""


async def make_change(transport: Transport, facts: HostFacts, change: HostChange, *, root: str = "") -> None:
    """Write the files of a change and run its commands. `root` is put before the paths of files; empty: the real ones.

    Raises:
        HostError: a command failed, or this user has no right to make changes. What was written stays: the next run
            goes on from there.
    """
    if facts.is_root:
        files = [UnitFile(file.path.lstrip("/"), file.after, FILE_MODE) for file in change.files]
        await transport.place(root or "/", files)
        as_root: tuple[str, ...] = ()
    elif facts.can_sudo:
        as_root = ("sudo", "-n")
        await _install(transport, change, as_root, root)
    else:
        raise HostError(
            "no right to change the host",
            where=change.host,
            why=f"{facts.user} is not root, and sudo asks for a password",
            next_step=f"Give {facts.user} a sudoers line with NOPASSWD, log in as root for the time, or make the "
            "change by hand as it was shown.",
        )
    for command in change.commands:
        await transport.run((*as_root, *command), timeout_s=LIMIT_S)


async def _install(transport: Transport, change: HostChange, as_root: tuple[str, ...], root: str) -> None:
    """Place the files where this user may, and have root copy them."""
    staging = f"/tmp/redisforge-{secrets.token_hex(8)}"  # noqa: S108 - its name cannot be guessed
    names = {f"{number}": file for number, file in enumerate(change.files)}
    if not names:
        return
    try:
        await transport.place(staging, [UnitFile(name, file.after, FILE_MODE) for name, file in names.items()])
        for name, file in names.items():
            argv = (*as_root, "sh", "-c", INSTALL, "sh", f"{staging}/{name}", f"{root}{file.path}")
            await transport.run(argv, timeout_s=LIMIT_S)
    finally:
        await transport.remove(staging)
