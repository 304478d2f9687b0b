"""One SSH connection to one host, shared by everybody who works on that host.

It is opened when it is first needed and again after it was lost; whoever comes meanwhile waits for the same attempt.
The known host keys are always given to asyncssh (decision 0011): without them it would trust anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from redisforge.errors import HostError
from redisforge.fleet import ssh_errors
from redisforge.fleet.host_keys import SSH_PORT, HostKey, fetch_host_keys, host_key, known_keys, read_known_hosts
from redisforge.fleet.ssh_errors import Shown, Target
from redisforge.model.hosts import SshAccess

if TYPE_CHECKING:
    import asyncssh

CONNECT_ROUND_TRIPS = 9
"""TCP, versions, algorithms, key exchange, service, the question for login methods, the key and its signature."""
_importing = threading.Lock()
SYSTEM_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


class SshLimits(msgspec.Struct, frozen=True):
    """Bounds of a connection. A host that is silent for `keepalive_s` × `keepalive_count` is given up."""

    connect_s: float = 10.0
    keepalive_s: float = 5.0
    keepalive_count: int = 3
    commands: int = 8
    """Commands at the same time. sshd's MaxSessions is 10; two are kept for killing what is over its time."""


def known_hosts_paths(access: SshAccess, own: Path | None) -> tuple[str, ...]:
    """The known_hosts files for a host: the one that it names, or RedisForge's `own`, the user's and the machine's."""
    if access.known_hosts_path:
        return (access.known_hosts_path,)
    return (*((str(own),) if own else ()), *SYSTEM_KNOWN_HOSTS)


def jump_access(access: SshAccess) -> SshAccess:
    """How to reach the jump host: as the host itself, at the address, port and user that `jump` names.

    Raises:
        HostError: the port is not a number.
    """
    user, _, place = access.jump.rpartition("@")
    address, _, port = place.rpartition(":") if place.rpartition(":")[2].isdigit() else (place, "", "")
    if not address or (":" in address and not address.startswith("[") and port):
        raise HostError("the jump host is not [user@]address[:port]", where=access.jump)
    return msgspec.structs.replace(access, address=address.strip("[]"), port=int(port or 0), user=user, jump="")


class SshConnection:
    """See the module. `paths` are the known_hosts files; `jump` is the connection to go through."""

    def __init__(
        self,
        host: str,
        access: SshAccess,
        paths: Sequence[str],
        *,
        jump: SshConnection | None = None,
        limits: SshLimits | None = None,
    ) -> None:
        place = f"{access.user}@{access.address}" if access.user else access.address
        self.target = Target(host, f"{place}:{access.port}" if access.port else place, access.key_path)
        self.limits = limits or SshLimits()
        self.opened_count = 0
        """How often a connection was made."""
        self._access = access
        self._paths = tuple(paths)
        self._jump = jump
        self._loop: asyncio.AbstractEventLoop | None = None
        self._attempt: asyncio.Task[asyncssh.SSHClientConnection] | None = None

    @property
    def jump(self) -> SshConnection | None:
        """The connection that it goes through."""
        return self._jump

    async def get(self) -> asyncssh.SSHClientConnection:
        """The open connection; it is made if there is none. Raises HostError, mostly UnreachableError."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # another asyncio.run: what belonged to the last one is of no use
            self._loop, self._attempt = loop, None
        attempt = self._attempt
        if attempt is None or _is_over(attempt):
            attempt = self._attempt = loop.create_task(self._open(), name=f"ssh to {self.target.name}")
            attempt.add_done_callback(_look_at)
        return await asyncio.shield(attempt)

    async def close(self) -> None:
        """End the connection; `get` opens another one."""
        attempt, self._attempt = self._attempt, None
        if attempt is None or self._loop is not asyncio.get_running_loop():
            return
        attempt.cancel()
        with contextlib.suppress(HostError, asyncio.CancelledError):
            connection = await attempt
            connection.close()
            await connection.wait_closed()

    @property
    def known_hosts_paths(self) -> tuple[str, ...]:
        """The files that say which of its keys are trusted, the first of them RedisForge's own or the one declared."""
        return self._paths

    def known_name(self) -> tuple[str, int]:
        """(name, port) by which known_hosts files are asked for it: as ~/.ssh/config resolves them, if that is read."""
        import asyncssh

        options: dict[str, Any] = {"host": self._access.address}
        if self._access.port:
            options["port"] = self._access.port
        if not self._access.use_config:
            options["config"] = None
        resolved = asyncssh.SSHClientConnectionOptions(client_keys=None, agent_path=None, known_hosts=None, **options)
        return resolved.host_key_alias or resolved.host, resolved.port or SSH_PORT

    async def host_keys(self) -> tuple[HostKey, ...]:
        """The keys that the host shows, none of them trusted by this. Raises HostError."""
        return await fetch_host_keys(self._fetch_key)

    async def _fetch_key(self, kind: str) -> asyncssh.SSHKey | None:
        import asyncssh

        options = await self._address_options()
        options["server_host_key_algs"] = [kind]
        try:
            async with asyncio.timeout(self.limits.connect_s):
                return await asyncssh.get_server_host_key(**options)
        except asyncssh.KeyExchangeFailed:
            return None  # it has no key of this kind
        except TimeoutError as error:
            raise ssh_errors.no_answer(self.target, self.limits.connect_s) from error
        except (OSError, asyncssh.Error) as error:
            raise ssh_errors.unreachable(self.target, error) from error

    async def _address_options(self) -> dict[str, Any]:
        """Where the server is. Options that are not given are taken from ~/.ssh/config, if that is wanted."""
        options: dict[str, Any] = {"host": self._access.address}
        if self._access.port:
            options["port"] = self._access.port
        if not self._access.use_config:
            options["config"] = None
        if self._jump:
            options["tunnel"] = await self._jump.get()
        return options

    async def _login_options(self) -> dict[str, Any]:
        options = await self._address_options()
        options["known_hosts"] = await asyncio.to_thread(read_known_hosts, self._paths)
        options["keepalive_interval"] = self.limits.keepalive_s
        options["keepalive_count_max"] = self.limits.keepalive_count
        if self._access.user:
            options["username"] = self._access.user
        if self._access.key_path and (key := await asyncio.to_thread(self._read_key)):
            options["client_keys"] = [key]
            options["agent_path"] = None
        return options

    def _read_key(self) -> asyncssh.SSHKey | None:
        """The private key; None if it is encrypted and an agent may hold it. Raises HostError."""
        import asyncssh

        path = Path(self._access.key_path).expanduser()
        try:
            return asyncssh.read_private_key(path)
        except OSError as error:
            raise ssh_errors.bad_key_file(
                self.target, error.strerror or str(error), "Name the private key that this host accepts."
            ) from error
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            if "assphrase" not in str(error):
                raise ssh_errors.bad_key_file(
                    self.target, str(error), "Name a private key, not a public one."
                ) from error
            if os.environ.get("SSH_AUTH_SOCK"):
                return None
            raise ssh_errors.bad_key_file(
                self.target, "it is encrypted, and no agent is running", f"eval $(ssh-agent); ssh-add {path}"
            ) from error

    async def _open(self) -> asyncssh.SSHClientConnection:
        await asyncio.to_thread(_import_asyncssh)  # a sixth of a second: others can go on meanwhile
        import asyncssh

        shown = Shown()
        options = await self._login_options()
        try:
            async with asyncio.timeout(self.limits.connect_s):
                connection = await asyncssh.connect(
                    **options, client_factory=lambda: _watcher(options["known_hosts"], shown)
                )
        except TimeoutError as error:
            raise ssh_errors.no_answer(self.target, self.limits.connect_s) from error
        except asyncssh.PermissionDenied as error:
            raise ssh_errors.refused_login(self.target, shown) from error
        except (OSError, ValueError, asyncssh.Error) as error:
            await self._look_at_key(error, options["known_hosts"], shown)
            if shown.key or isinstance(error, asyncssh.HostKeyNotVerifiable):
                raise ssh_errors.wrong_key(self.target, shown, str(error)) from error
            raise ssh_errors.unreachable(self.target, error) from error
        self.opened_count += 1
        return connection

    async def _look_at_key(self, error: Exception, known: asyncssh.SSHKnownHosts, shown: Shown) -> None:
        """A host with known keys is asked for these kinds only; one that has none of them just hangs up.

        So when the talk ended early, see which keys it has: if none of them is a known one, that was the reason.
        """
        import asyncssh

        trusted = known_keys(known, *self.known_name())
        ended_early = isinstance(error, asyncssh.KeyExchangeFailed | asyncssh.ConnectionLost | ConnectionResetError)
        if not (ended_early and trusted) or shown.key or shown.methods:
            return
        with contextlib.suppress(HostError):
            found = await self.host_keys()
            if not {key.line for key in found} & {key.line for key in trusted}:
                shown.key, shown.known = found[0], trusted


def _import_asyncssh() -> None:
    """Import it without its search for liboqs and libnettle, for which it runs a compiler four times: 60 ms of every
    command. They would add sntrup761 and the UMACs; ML-KEM, the curves, the AEAD ciphers and the HMACs need neither."""
    import ctypes.util

    with _importing:
        if "asyncssh" not in sys.modules:
            search = ctypes.util.find_library
            ctypes.util.find_library = _find_nothing
            try:
                importlib.import_module("asyncssh")
            finally:
                ctypes.util.find_library = search


def _find_nothing(name: str) -> str | None:
    del name
    return None


def _is_over(attempt: asyncio.Task[asyncssh.SSHClientConnection]) -> bool:
    if not attempt.done():
        return False
    return attempt.cancelled() or attempt.exception() is not None or attempt.result().is_closed()


def _look_at(attempt: asyncio.Task[asyncssh.SSHClientConnection]) -> None:
    """An attempt that failed while nobody waited for it any more is not worth a warning."""
    if not attempt.cancelled():
        attempt.exception()


def _watcher(known: asyncssh.SSHKnownHosts, shown: Shown) -> asyncssh.SSHClient:
    """A client that never accepts anything by itself, and writes down what the server shows."""
    import asyncssh

    class Watcher(asyncssh.SSHClient):
        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            shown.key, shown.known = host_key(key), known_keys(known, host, port, ip=addr)
            return False

        def auth_banner_received(self, msg: str, lang: str) -> None:
            del msg, lang

        def public_key_auth_requested(self) -> None:
            shown.methods.add("publickey")

        def password_auth_requested(self) -> None:
            shown.methods.add("password")

        def kbdint_auth_requested(self) -> None:
            shown.methods.add("keyboard-interactive")

    return Watcher()
