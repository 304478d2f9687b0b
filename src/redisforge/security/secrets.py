"""Passwords of a cluster: supplied by the operator, or generated, and kept in secrets.env (0600).

    REDIS_REQUIREPASS='…'            the operator's user (REDIS_OPERATOR_USER names it)
    REDIS_ACL_USER=app_user          REDIS_ACL_PASS='…'          and so on for READONLY, MONITOR, REPLICATION, HANDOFF

The file is in the .env convention and quoted as a POSIX shell quotes, so `set -a; . secrets.env` works. Names
that RedisForge does not use are kept. Passwords belong to roles: renaming a user keeps its password.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from redisforge.disk import PRIVATE_MODE, tighten, write_file
from redisforge.errors import SecretError
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.topology import Credentials, Topology, UserRole

PASSWORD_BYTES = 32
"""Random bytes of a generated password: 256 bits, too many to guess from the SHA-256 in users.acl."""

_HEADER = "# Passwords of this cluster, written by RedisForge. Keep this file: it is the only place that has them."
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class SecretNames(msgspec.Struct, frozen=True):
    """The names of one role's user and password in .env files."""

    user: str
    password: str


NAMES: Mapping[UserRole, SecretNames] = {
    UserRole.OPERATOR: SecretNames("REDIS_OPERATOR_USER", "REDIS_REQUIREPASS"),
    UserRole.APPLICATION: SecretNames("REDIS_ACL_USER", "REDIS_ACL_PASS"),
    UserRole.READONLY: SecretNames("REDIS_READONLY_USER", "REDIS_READONLY_PASS"),
    UserRole.MONITOR: SecretNames("REDIS_MONITOR_USER", "REDIS_MONITOR_PASS"),
    UserRole.REPLICATION: SecretNames("REDIS_REPLICATION_USER", "REDIS_REPLICATION_PASS"),
    UserRole.HANDOFF: SecretNames("REDIS_HANDOFF_USER", "REDIS_HANDOFF_PASS"),
}


def generate_password() -> Secret:
    """A new password: 43 letters, digits, `-` and `_`, safe in every URL, shell and configuration file."""
    import secrets

    return Secret(secrets.token_urlsafe(PASSWORD_BYTES))


def resolve_credentials(
    topology: Topology,
    supplied: Mapping[str, Secret],
    layout: ClusterLayout,
    *,
    store: bool = True,
    on_notice: Callable[[str], None] | None = None,
) -> tuple[Credentials, bool]:
    """Every user's password: the supplied one, else the stored one, else a new one.

    Args:
        topology: whose users need passwords.
        supplied: passwords from the environment or .env, by user name.
        layout: where secrets.env lies.
        store: write what is new to secrets.env; false for a dry run, which writes nothing.
        on_notice: told when secrets.env was open to other users.

    Returns the passwords, and whether any of them is new: not in secrets.env before this call.

    Raises:
        SecretError: secrets.env is damaged, or a supplied password is empty or has control characters; or that of nodes
            which somebody else runs is not known.
        HostError: secrets.env cannot be written or closed to others.
    """
    path = Path(layout.secrets)
    entries = _read(path, on_notice, may_tighten=store)
    wanted = dict(entries)
    for user in topology.users:
        names = NAMES[user.role]
        given = supplied.get(user.name)
        stored = entries.get(names.password)
        if given is None and stored is not None and not stored:
            raise _damaged(path, f"{names.password} is empty")
        if given is None and stored is None and topology.access:
            raise SecretError(
                "the password of the nodes is not known",
                where=topology.name,
                why="somebody else runs them, so that it cannot be made up",
                next_step=f"set {names.password} in the environment or in .env",
            )
        password = given if given is not None else stored or generate_password()
        _check(password, user.name)
        wanted[names.user] = Secret(user.name)
        wanted[names.password] = password
    if store and wanted != entries:
        write_file(path, _render(wanted).encode(), PRIVATE_MODE)
    is_new = any(wanted[names.password] != entries.get(names.password) for names in _used(topology))
    return _credentials(topology, wanted), is_new


def load_credentials(topology: Topology, layout: ClusterLayout) -> Credentials:
    """The stored passwords of a cluster that was raised before; nothing is written.

    Raises:
        SecretError: secrets.env is missing, damaged, or lacks a user's password.
    """
    path = Path(layout.secrets)
    entries = _read(path, None, may_tighten=False)
    missing = [names.password for names in _used(topology) if not entries.get(names.password)]
    if missing:
        raise SecretError(
            "passwords of the cluster are missing",
            where=str(path),
            why=f"not in the file: {', '.join(missing)}" if path.exists() else "the file does not exist",
            next_step="Put the file back, or set these names in the environment or .env; then redisforge up.",
        )
    return _credentials(topology, entries)


def changed_users(topology: Topology, supplied: Mapping[str, Secret], layout: ClusterLayout) -> tuple[str, ...]:
    """Users whose supplied password is not the stored one: a running cluster still has the stored one.

    Raises:
        SecretError: secrets.env is damaged.
    """
    entries = _read(Path(layout.secrets), None, may_tighten=False)
    return tuple(
        user.name
        for user in topology.users
        if user.name in supplied
        and NAMES[user.role].password in entries
        and entries[NAMES[user.role].password] != supplied[user.name]
    )


def _used(topology: Topology) -> tuple[SecretNames, ...]:
    return tuple(NAMES[user.role] for user in topology.users)


def _credentials(topology: Topology, entries: Mapping[str, Secret]) -> Credentials:
    return Credentials({user.name: entries[NAMES[user.role].password] for user in topology.users})


def _check(password: Secret, user_name: str) -> None:
    value = password.reveal()
    if value and value.isprintable():
        return
    raise SecretError(
        f"the password of {user_name} cannot be used",
        why="it is empty" if not value else "it has control or other unprintable characters",
        next_step="Supply another one, or none: RedisForge then generates it.",
    )


def _read(path: Path, on_notice: Callable[[str], None] | None, *, may_tighten: bool) -> dict[str, Secret]:
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise _damaged(path, "it is not UTF-8 text") from None
    except OSError as error:
        raise SecretError(
            "the passwords cannot be read",
            where=str(path),
            why=error.strerror or str(error),
            next_step="Check the path and the permissions of the file.",
        ) from error
    if may_tighten and tighten(path) and on_notice:
        on_notice(f"{path} was open to other users; it is closed now. Change the passwords if others read it.")
    return _parse(text, path)


def _parse(text: str, path: Path) -> dict[str, Secret]:
    entries: dict[str, Secret] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, separator, quoted = line.strip().removeprefix("export ").partition("=")
        if not separator or not _NAME.fullmatch(name):
            raise _damaged(path, f"line {number} is not NAME=VALUE")
        if name in entries:
            raise _damaged(path, f"line {number} sets {name} a second time")
        try:
            words = shlex.split(quoted)
        except ValueError:
            raise _damaged(path, f"line {number}: a quote is not closed") from None
        if len(words) > 1 or quoted[:1].isspace():
            raise _damaged(path, f"line {number}: the value of {name} has blanks outside quotes")
        entries[name] = Secret("".join(words))
    return entries


def _render(entries: Mapping[str, Secret]) -> str:
    lines = [f"{name}={shlex.quote(value.reveal())}" for name, value in entries.items()]
    return "\n".join((_HEADER, *lines)) + "\n"


def _damaged(path: Path, why: str) -> SecretError:
    return SecretError(
        "the file of passwords is damaged",
        where=str(path),
        why=why,
        next_step="Mend the line or put back a copy of the file. If you delete it, new passwords are made,\n"
        "which a running cluster does not know.",
    )
