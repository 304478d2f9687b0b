"""What went wrong with an SSH connection, said to a person: which host, what, why, and what to do."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import msgspec

from redisforge.errors import HostError, HostKeyError, UnreachableError
from redisforge.fleet.host_keys import HostKey

if TYPE_CHECKING:
    from collections.abc import Iterable


class Shown(msgspec.Struct):
    """What a server showed during one attempt to log in; filled while it goes on."""

    key: HostKey | None = None
    """Its host key, if that was not a trusted one."""
    known: tuple[HostKey, ...] = ()
    methods: set[str] = msgspec.field(default_factory=set[str])
    """The kinds of login that it offered: publickey, password, keyboard-interactive."""


class Target(msgspec.Struct, frozen=True):
    """Whom an error is about: the host's name, and where it was looked for (`user@address:port`)."""

    name: str
    place: str
    key_path: str = ""
    trusted_with: str = ""
    """The declared host with which a jump host is trusted; empty: it is declared itself."""

    @property
    def trust_command(self) -> str:
        """What makes its key known."""
        return f"redisforge host trust {self.trusted_with or self.name}"

    @property
    def where(self) -> str:
        """For an error's `where`."""
        return f"{self.name} ({self.place})" if self.place else self.name


def wrong_key(target: Target, shown: Shown, why: str) -> HostKeyError:
    """A host key that is not trusted. `why` is asyncssh's word, for what it did not even ask about: a revoked key."""
    key = shown.key
    if key is None:
        return HostKeyError(
            "the host's key must not be trusted",
            where=target.where,
            why=why,
            next_step="Do not connect. Ask who looks after this host what became of its key.",
        )
    if shown.known:
        return HostKeyError(
            "the host's key is not the known one",
            where=target.where,
            why=f"it shows  {key.algorithm} {key.fingerprint}\nknown are {_listed(shown.known)}",
            next_step="Either the host was installed anew, or somebody stands in between. Find out which; then\n"
            f"{target.trust_command} --fingerprint {key.fingerprint}",
        )
    return HostKeyError(
        "the host's key is not known yet",
        where=target.where,
        why=f"it shows {key.algorithm} {key.fingerprint}, and no known_hosts file names this host",
        next_step=f"Compare the fingerprint with the host's own, and accept it: {target.trust_command}",
    )


def _listed(keys: Iterable[HostKey]) -> str:
    return "\n          ".join(f"{key.algorithm} {key.fingerprint}" for key in keys)


def refused_login(target: Target, shown: Shown) -> UnreachableError:
    """The server took none of the keys."""
    if shown.methods and "publickey" not in shown.methods:
        return UnreachableError(
            "the host takes no keys for a login",
            where=target.where,
            why=f"its sshd offers only: {', '.join(sorted(shown.methods))}; RedisForge never types a password",
            next_step="Set `PubkeyAuthentication yes` for this user in its sshd_config, and add your public key.",
        )
    tried = f"the key {target.key_path} was not" if target.key_path else "none of your agent's and default keys was"
    return UnreachableError(
        "the host refuses the login",
        where=target.where,
        why=f"{tried} accepted for this user",
        next_step="Add the public key to the user's ~/.ssh/authorized_keys on the host, or name another user or key.",
    )


def bad_key_file(target: Target, why: str, next_step: str) -> HostError:
    """The private key on this machine cannot be used."""
    return HostError(
        "the SSH key cannot be used", where=f"{target.name}: {target.key_path}", why=why, next_step=next_step
    )


def no_answer(target: Target, limit_s: float) -> UnreachableError:
    """Nothing answered, or not to the end, within the limit."""
    return UnreachableError(
        "the host does not answer",
        where=target.where,
        why=f"no SSH login within {limit_s:g} s",
        next_step="Is it up, is the address right, and does a firewall let SSH through?",
    )


def lost(target: Target, doing: str, why: str = "") -> UnreachableError:
    """The connection ended while something was under way, which may or may not have come to its end."""
    return UnreachableError(
        "the connection was lost",
        where=target.where,
        why=f"it ended during {doing}" + (f": {why}" if why else ""),
        next_step="Run the same command again: it looks what is there, and goes on.",
    )


def unreachable(target: Target, error: Exception) -> UnreachableError:
    """Any other reason why there is no connection."""
    what, why = "the host cannot be reached", str(error) or type(error).__name__
    next_step = "Is it up, is the address right, and does a firewall let SSH through?"
    if isinstance(error, socket.gaierror):
        what, why = "the host's name is not known", error.strerror or why
        next_step = "Correct its address in redisforge.yaml, or the name service."
    elif isinstance(error, ConnectionRefusedError):
        what, next_step = "the host refuses the connection", "Does sshd run there, and on this port?"
        why = "nothing listens on that port"
    elif isinstance(error, OSError) and error.strerror:
        why = error.strerror
    elif not isinstance(error, OSError):
        what, next_step = "the host does not speak SSH with us", f"Try it by hand: ssh -v {target.place}"
    return UnreachableError(what, where=target.where, why=why, next_step=next_step)
