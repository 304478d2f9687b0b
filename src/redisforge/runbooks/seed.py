"""The first connection to a cluster that somebody else built: what may be wrong there, and what helps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from redisforge.config.environment import OPERATOR_VARIABLE
from redisforge.config.files import UnreadableFileError, read_bounded
from redisforge.errors import NodeError, SecretError
from redisforge.model.secret import Secret
from redisforge.redis.connection import Login, ReplyError, speaks_plain_text
from redisforge.redis.observe import NodeAsker
from redisforge.redis.parse import parse_info

_PLAIN_TEXT_LIMIT_S = 1.0
_MOST_PASSWORD_BYTES = 64 * 1024


async def open_seed(asker: NodeAsker, address: tuple[str, int], login: Login) -> dict[str, str]:
    """Log in to a member of a cluster; returns its INFO.

    Raises:
        NodeError: not reachable, no TLS or none asked for, or not part of a cluster.
        SecretError: the password is wrong, missing, or not asked for.
    """
    where = f"{address[0]}:{address[1]}"
    try:
        await asker.connection(address)
        info = parse_info(str(await asker.call(address, "INFO")))
    except ReplyError as error:
        raise _refused_login(where, error, login) from error
    except NodeError as error:
        raise await _unreachable(address, error, login) from error
    if info.get("cluster_enabled") != "1":
        raise NodeError(
            "the seed is not part of a cluster",
            where=where,
            why=f"it is a single server in the mode {info.get('redis_mode', '?')} (cluster-enabled no)",
            next_step="name a node of a Redis Cluster",
        )
    return info


def _refused_login(where: str, error: ReplyError, login: Login) -> SecretError | NodeError:
    why = error.why
    if error.code == "WRONGPASS":
        step = f"check the password (--password-file or {OPERATOR_VARIABLE}) and --user"
        return SecretError("the seed does not accept the password", where=where, why=why, next_step=step)
    if error.code == "NOAUTH":
        step = f"give it with --password-file or in {OPERATOR_VARIABLE}; --user, if it is not the default user's"
        return SecretError("the seed asks for a password", where=where, why=why, next_step=step)
    if "without any password configured" in why:
        step = f"leave --password-file out, and unset {OPERATOR_VARIABLE}"
        return SecretError("the seed does not ask for a password", where=where, why=why, next_step=step)
    if error.code == "NOPERM":
        step = "log in as a user who may do everything (+@all ~* &*), with --user"
        who = login.user or "the default user"
        return SecretError(f"{who} may not look at the cluster", where=where, why=why, next_step=step)
    return NodeError("the seed cannot be asked", where=where, why=why)


async def _unreachable(address: tuple[str, int], error: NodeError, login: Login) -> NodeError:
    why, step = error.why or error.what, "check the address, the port, and that the node runs"
    if login.ca_path and await speaks_plain_text(address, _PLAIN_TEXT_LIMIT_S):
        step = "this port speaks plain Redis: give the TLS port; or leave --ca out, if nothing has to be protected"
    elif login.ca_path and "not valid for" in why:
        step = (
            "name the node as its certificate does; Redis itself does not compare the two, so if that is how it is "
            "meant, --no-check-hostname"
        )
    elif login.ca_path and "certificate" in why.lower():
        step = "give the CA that has issued the nodes' certificates with --ca; --cert and --key, if they ask for one"
    elif login.ca_path and not login.certificate_path and "refused" not in why:
        step += "; --cert and --key, if it asks for a client certificate"
    elif not login.ca_path and "refused" not in why:
        step = "if the node speaks TLS, give its CA with --ca"
    return NodeError("the seed cannot be reached", where=error.where, why=why, next_step=step)


def seed_address(text: str) -> tuple[str, int]:
    """HOST:PORT as (address, port). Raises UsageError."""
    from redisforge.runbooks.init_cluster import parse_nodes

    host, port = parse_nodes((text,))[0]
    return host.address, port


def read_password(file: Path | None, environment: Mapping[str, str]) -> Secret:
    """The password: the first line of the file, else REDIS_REQUIREPASS; empty for none.

    Raises:
        SecretError: the file cannot be read, or is empty.
    """
    if file is None:
        return Secret(environment.get(OPERATOR_VARIABLE, ""))
    try:
        content, _ = read_bounded(file, _MOST_PASSWORD_BYTES)
        lines = content.decode().splitlines()
    except (UnreadableFileError, UnicodeDecodeError) as error:
        why = str(error) if isinstance(error, UnreadableFileError) else "is not UTF-8 text"
        raise SecretError(
            "the password cannot be read", where=str(file), why=why, next_step="give a file with the password in it"
        ) from None
    if not lines or not lines[0]:
        raise SecretError(
            "the password file holds no password", where=str(file), next_step="write it on its first line"
        )
    return Secret(lines[0])
