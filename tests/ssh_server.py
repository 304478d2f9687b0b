"""A real sshd for tests: on 127.0.0.1, with port, keys and configuration of its own, and a user's key that it takes.

Where the machine has no sshd, its package is fetched into RedisForge's cache with a private apt and unpacked; nothing
is installed and no daemon starts. sshd wants a system user `sshd`; where there is none, a root's sshd runs in a mount
namespace of its own in which /etc/passwd names one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import asyncssh

from redisforge.fleet.binaries import apt
from redisforge.fleet.binaries.cache import cache_folder
from redisforge.fleet.ssh import SshTransport
from redisforge.fleet.ssh_connection import SshConnection, SshLimits, known_hosts_paths
from redisforge.model.hosts import SshAccess
from waiting import until

ADDRESS = "127.0.0.1"
DEADLINE_S = 30.0
_PRIVATE_PASSWD = (
    'mount --bind "$1" /etc/passwd && shift && exec "$@"'  # the user `sshd`, for this sshd and its sessions alone
)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


def new_key(kind: str = "ssh-ed25519") -> asyncssh.SSHKey:
    """A key pair."""
    return asyncssh.generate_private_key(kind)  # pyright: ignore[reportUnknownMemberType]


def write_key(path: Path, key: asyncssh.SSHKey, passphrase: str | None = None) -> None:
    """Write a private key that only its owner can read."""
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key("pkcs8-pem" if passphrase else "openssh", passphrase=passphrase))


def find_sshd() -> tuple[Path, Path | None]:
    """The sshd of this machine, or a fetched one, and the folder of libraries that it needs besides the machine's."""
    if found := shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"):
        return Path(found), None
    folder = cache_folder(os.environ) / "openssh-server-for-tests"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".sshd-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(folder)
    return folder / "root/usr/sbin/sshd", folder / "libraries"


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".sshd-") as name:
        work = Path(name, "apt")
        root, libraries = Path(name, "entry/root"), Path(name, "entry/libraries")
        for path in (work, root, libraries):
            path.mkdir(parents=True)
        private = apt.PrivateApt(work, apt.machine_repositories(os.environ), os.environ)
        private.update()
        for package in private.download(["openssh-server"]):
            private.unpack(package, root)
        if missing := _missing_libraries(root / "usr/sbin/sshd"):
            beside = work / "closure"
            for package in private.download(private.closure(["openssh-server"])):
                private.unpack(package, beside)
            for library in missing:
                shutil.copy(next(beside.rglob(library)), libraries)
        Path(name, "entry").rename(folder)


def _missing_libraries(program: Path) -> list[str]:
    shown = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in shown.splitlines() if line.endswith("not found")]


class SshServer:
    """An sshd that runs until `close`. `options` are more lines of its configuration, which come first and so win."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.known_hosts = folder / "known_hosts"
        self.host_key = new_key()
        self.key = new_key()
        write_key(folder / "id", self.key)
        (folder / "authorized_keys").write_bytes(self.key.export_public_key())
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.trust()
        self.start()

    def start(self) -> None:
        """Start sshd, and wait until it listens."""
        write_key(self.folder / "host_key", self.host_key)
        program, libraries = find_sshd()
        config = self.folder / "sshd_config"
        config.write_text("\n".join((*self._options, *self._settings())) + "\n")
        argv = [str(program), "-D", "-f", str(config), "-E", str(self.folder / "log")]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)} if libraries else dict(os.environ)
        self._process = process = subprocess.Popen(_with_user(self.folder, argv), env=environment)
        until(lambda: process.poll() is not None or self._listens(), "sshd listens")
        assert process.poll() is None, f"sshd ended with {process.returncode}: {self.log()}"

    def stop(self) -> None:
        """End sshd and every connection to it."""
        assert self._process
        children = self.connections()
        self._process.kill()
        self._process.wait()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def renew_host_key(self) -> None:
        """As after a new installation: another host key, and nobody has been told."""
        self.stop()
        self.host_key = new_key()
        self.start()

    def trust(self) -> None:
        """Write the host key into the known_hosts file."""
        public = self.host_key.export_public_key().decode().strip()
        self.known_hosts.write_text(f"[{ADDRESS}]:{self.port} {public}\n")

    def connections(self) -> list[int]:
        """The pids of the processes that serve one connection each."""
        assert self._process
        return children_of(self._process.pid)

    def access(self, **changes: object) -> SshAccess:
        """How to get there: nothing of this user's own configuration, agent or keys plays a part."""
        given: dict[str, object] = {
            "address": ADDRESS,
            "port": self.port,
            "user": self.user,
            "key_path": str(self.folder / "id"),
            "use_config": False,
            "known_hosts_path": str(self.known_hosts),
        }
        return SshAccess(**{**given, **changes})  # type: ignore[arg-type]

    def transport(self, *, limits: SshLimits | None = None, **changes: object) -> SshTransport:
        """A transport to this server as host `far`; its caller closes it."""
        access = self.access(**changes)
        return SshTransport(SshConnection("far", access, known_hosts_paths(access, None), limits=limits))

    def log(self) -> str:
        """What sshd has said."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """Stop."""
        self.stop()

    def _settings(self) -> tuple[str, ...]:
        return (
            f"Port {self.port}",
            f"ListenAddress {ADDRESS}",
            f"HostKey {self.folder / 'host_key'}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "MaxStartups 100",
            "LogLevel VERBOSE",
            # bash reads the user's own ~/.bashrc for every command over SSH, unless it is not the outermost shell. That
            # file is none of the tests' business, and may take a second. What it says of PATH may be missed.
            f'SetEnv SHLVL=1 "PATH={_search_path()}"',
        )

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((ADDRESS, self.port)) == 0


def _search_path() -> str:
    """Where a host finds programs: this Python, and what every system has."""
    return f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def children_of(parent: int) -> list[int]:
    """The pids of the direct children of a process."""
    found: list[int] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if int(process.joinpath("stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(process.name))
    return found


def _with_user(folder: Path, argv: list[str]) -> list[str]:
    """The command, in a place where the user `sshd` and sshd's empty folder exist, if it needs them."""
    if os.getuid() != 0:
        return argv
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with contextlib.suppress(KeyError):
        pwd.getpwnam("sshd")
        return argv
    passwd = folder / "passwd"
    passwd.write_text(Path("/etc/passwd").read_text() + "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
    return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _PRIVATE_PASSWD, "sh", str(passwd), *argv]


@contextlib.contextmanager
def running(folder: Path, *options: str) -> Generator[SshServer]:
    """A server for a block."""
    server = SshServer(folder, *options)
    try:
        yield server
    finally:
        server.close()
