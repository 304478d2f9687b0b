"""The keys that SSH hosts prove themselves with: what is known of them, and how a key becomes known.

A host is trusted when one of its keys stands in a known_hosts file: the user's own, the machine's, or RedisForge's.
Nothing here trusts a key because a host shows it: `fetch_host_keys` only looks, a person compares fingerprints, and
`trust` writes down what that person said yes to. Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from redisforge.disk import PRIVATE_MODE, write_file
from redisforge.errors import HostError

if TYPE_CHECKING:
    import asyncssh

SSH_PORT = 22
KEY_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512")
"""Signature algorithms to ask a host for, one key each; what else there is (DSA, SHA-1) is not worth trusting."""


class HostKey(msgspec.Struct, frozen=True):
    """A public key of a host. `line` is `ALGORITHM BASE64`, as known_hosts has it after the names."""

    algorithm: str
    fingerprint: str
    """`SHA256:` and 43 characters of base64, as ssh-keygen -l prints it."""
    line: str


def host_key(key: asyncssh.SSHKey) -> HostKey:
    """The description of a key of asyncssh's."""
    kind, text = key.export_public_key().decode().split()[:2]
    return HostKey(kind, key.get_fingerprint("sha256"), f"{kind} {text}")


def read_known_hosts(paths: Iterable[str]) -> asyncssh.SSHKnownHosts:
    """All entries of these files together. A file that is not there is empty; damaged lines are passed over.

    Raises:
        HostError: a file is there and cannot be read: what it says might matter.
    """
    import asyncssh

    known = asyncssh.SSHKnownHosts()
    for name in paths:
        path = Path(name).expanduser()
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostError(
                "a file of known hosts cannot be read",
                where=str(path),
                why=error.strerror or str(error),
                next_step="Make it readable for you, or name another one.",
            ) from error
        for line in text.splitlines():
            try:
                known.load(line)
            except ValueError:
                continue  # as ssh does: one damaged line must not shut out every host
    return known


def known_keys(known: asyncssh.SSHKnownHosts, address: str, port: int, *, ip: str = "") -> tuple[HostKey, ...]:
    """The trusted keys of the host at `address`; `ip` is what the address was resolved to."""
    import asyncssh

    matched = asyncssh.match_known_hosts(known, address, ip, None if port == SSH_PORT else port)
    return tuple(map(host_key, matched[0]))


Opener = Callable[[str], Awaitable["asyncssh.SSHKey | None"]]


async def fetch_host_keys(fetch: Opener, *, kinds: Iterable[str] = KEY_KINDS) -> tuple[HostKey, ...]:
    """Every key that a host shows, without trusting any. `fetch` asks for the key of one algorithm (ssh_connection.py).

    Raises:
        HostError: the host cannot be reached, or is no SSH server; whatever `fetch` raises when no kind was answered.
    """
    answers = await asyncio.gather(*map(fetch, kinds), return_exceptions=True)
    found: dict[str, HostKey] = {}
    for answer in answers:
        if isinstance(answer, BaseException):
            if not isinstance(answer, HostError):
                raise answer
        elif answer is not None:
            shown = host_key(answer)
            found[shown.fingerprint] = shown
    if not found:
        raise next(answer for answer in answers if isinstance(answer, BaseException))
    return tuple(found.values())


def known_hosts_name(address: str, port: int) -> str:
    """How known_hosts names a host: `address`, or `[address]:port` where the port is not SSH's own."""
    return address if port in (0, SSH_PORT) else f"[{address}]:{port}"


def trust(path: Path, name: str, keys: Iterable[HostKey]) -> tuple[HostKey, ...]:
    """Put keys of the host `name` (`known_hosts_name`) into a known_hosts file in one step; returns the new ones.

    The keys that it had for this name alone are replaced, others stay as they are, comments too.

    Raises:
        HostError: the file cannot be read or written.
    """
    wanted = tuple(keys)
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise HostError(
            "a file of known hosts cannot be read", where=str(path), why=error.strerror or str(error)
        ) from error
    lines = text.splitlines()
    here = {line.partition(" ")[2] for line in lines if line.partition(" ")[0] == name}
    lines = [line for line in lines if line.partition(" ")[0] != name]
    lines += [f"{name} {key.line}" for key in wanted]
    content = "\n".join(lines).encode(errors="surrogateescape") + b"\n"
    write_file(path, content, PRIVATE_MODE)
    return tuple(key for key in wanted if key.line not in here)
