"""The bed: hosts as containers on one private network, in three zones.

    with running(folder, host_count=6) as bed:
        for host in bed.hosts: …

Everything is labelled with the process that made it, and removed by that label; what a killed run has left is removed
by the next one. Neither the machine's interfaces nor its clock or firewall are touched, except by Docker itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import docker_bed
from docker_bed import TEST_LABEL, DockerBed, UnavailableError
from redisforge.fleet.ssh import SshTransport
from redisforge.fleet.ssh_connection import SshConnection, SshLimits, known_hosts_paths
from redisforge.model.hosts import SshAccess
from ssh_server import new_key, write_key
from waiting import until

ResultT = TypeVar("ResultT")

HERE = Path(__file__).parent
OWNER_LABEL = f"{TEST_LABEL}.owner"
USER = "deploy"
DATA_FOLDER = "/srv/redisforge"
SSH_PORT = 22
READY_LIMIT_S = 90.0
_SUBNETS = tuple(f"172.31.{number}" for number in range(240, 253))
_RIGHTS = (
    # A container that is to run an engine of its own needs nearly all. Left out is what would reach the machine itself:
    # its clock, its kernel modules, its log; and SYS_RESOURCE, which the machine may not have to give.
    "--cap-add=ALL",
    *(f"--cap-drop={name}" for name in ("SYS_RESOURCE", "SYS_TIME", "SYS_MODULE", "SYS_RAWIO", "SYSLOG", "WAKE_ALARM")),
    *(f"--security-opt={option}=unconfined" for option in ("seccomp", "systempaths", "apparmor")),
)


class BedHost:
    """One host, and what can happen to it."""

    def __init__(self, bed: Bed, number: int) -> None:
        self._bed = bed
        self.name = f"h{number}"
        self.zone = f"zone-{(number - 1) % bed.zone_count + 1}"
        self.address = f"{bed.subnet}.{10 + number}"
        self.container = f"{bed.name}-{self.name}"

    def run(self, *argv: str, user: str = "root", check: bool = True, limit_s: float = 120.0) -> str:
        """A command on the host, past its sshd; its output."""
        return self._docker("exec", "--user", user, self.container, *argv, check=check, limit_s=limit_s)

    def create(self, operator_key: str, image: str) -> None:
        """Make and start it; `wait_ready` tells when it is up."""
        self._docker(
            "run", "--detach", "--name", self.container, "--hostname", self.name, *self._bed.labels, *_RIGHTS,
            "--network", self._bed.name, "--ip", self.address, "--tmpfs", "/run:exec", "--tmpfs", "/tmp:exec",
            "--volume", "/var/lib/docker", "--env", f"OPERATOR_KEY={operator_key}", image,
        )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until sshd and the engine answer."""
        until(self.answers, f"{self.name}'s sshd listens", READY_LIMIT_S)
        until(self.has_engine, f"{self.name}'s engine answers", READY_LIMIT_S)

    def answers(self) -> bool:
        """Whether sshd listens, as seen from the operator's machine."""
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex((self.address, SSH_PORT)) == 0

    def has_engine(self) -> bool:
        """Whether its engine of Docker answers."""
        asked = ("docker", "version", "--format", "{{.Server.Version}}")
        return self.run(*asked, check=False).strip()[:1].isdigit()

    def host_key(self) -> str:
        """Its public key, as known_hosts has it behind the address."""
        return " ".join(self.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2])

    def power_off(self) -> None:
        """As when the plug is pulled."""
        self._docker("kill", self.container)

    def power_on(self) -> None:
        """Start it again, with its disk, and wait until it answers."""
        self._docker("start", self.container)
        self.wait_ready()

    def reboot(self) -> None:
        """Down in order, and up again."""
        self._docker("restart", "--time", "60", self.container)
        self.wait_ready()

    def pause(self) -> None:
        """Everything on it stands still; what is sent to it waits."""
        self._docker("pause", self.container)

    def resume(self) -> None:
        """The end of a pause."""
        self._docker("unpause", self.container)

    def cut_off(self) -> None:
        """Take its network away."""
        self._docker("network", "disconnect", self._bed.name, self.container)

    def reconnect(self, address: str = "") -> None:
        """Give its network back, with its address or another one of the bed's subnet."""
        self.address = address or self.address
        self._docker("network", "connect", "--ip", self.address, self._bed.name, self.container)

    def slow_down(self, delay_ms: float, lost_percent: float = 0.0, *, lose_first: bool = False) -> None:
        """Delay what arrives, and lose a share of it, or the first packet of each connection.

        Delay between two slow hosts adds up over both ways.
        """
        words = f"{delay_ms} {lost_percent}{' first' * lose_first}"
        self.run("sh", "-c", f"exec python3 /usr/local/lib/slow_line.py {words} >/run/slow 2>&1 &")
        until(
            lambda: "ready" in self.run("cat", "/run/slow", check=False),
            f"{self.name} is slow: see /run/slow",
            READY_LIMIT_S,
        )
        self.run("iptables", *self._slow_rule("-I"))

    def speed_up(self) -> None:
        """The end of `slow_down`."""
        self.run("iptables", *self._slow_rule("-D"), check=False)
        self.run("pkill", "-f", "slow_line.py", check=False)

    def stop_engine(self) -> None:
        """End its engine of Docker, in order."""
        pid = self.run("cat", "/run/docker.pid")
        self.run("kill", "-TERM", pid)
        until(
            lambda: self.run("sh", "-c", f"cat /proc/{pid}/cmdline 2>/dev/null || echo gone") in ("", "gone"),
            "its end",
            READY_LIMIT_S,
        )

    def start_engine(self) -> None:
        """Start its engine again."""
        self._docker("exec", "--detach", self.container, "sh", "-c", "exec dockerd >>/var/log/dockerd.log 2>&1")
        until(self.has_engine, f"{self.name}'s engine answers", READY_LIMIT_S)

    def small_disk(self, folder: str, size_mb: int) -> None:
        """Put a file system of that size, empty, over a folder; it is gone after a reboot."""
        self.run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0777", "tmpfs", folder)

    def images(self) -> list[str]:
        """The names of the images that its engine has."""
        listed = self.run("docker", "image", "ls", "--all", "--format", "{{.Repository}}:{{.Tag}}")
        return listed.split()

    def _slow_rule(self, what: str) -> tuple[str, ...]:
        return (what, "INPUT", "-i", "eth+", "-j", "NFQUEUE", "--queue-num", "7", "--queue-bypass")

    def _docker(self, *words: str, check: bool = True, limit_s: float = 120.0) -> str:
        return self._bed.docker.docker(*words, check=check, limit_s=limit_s)


class Bed:
    """Hosts on one private network, and the operator's key to them."""

    def __init__(self, docker: DockerBed, folder: Path, host_count: int, zone_count: int = 3) -> None:
        self.docker = docker
        self.folder = folder
        self.zone_count = zone_count
        self.name = f"redisforge-test-{os.getpid()}"
        self.labels = ("--label", f"{TEST_LABEL}=bed", "--label", f"{OWNER_LABEL}={_own_mark()}")
        self.subnet = ""
        self.user = USER
        self.key_path = folder / "operator_key"
        self.known_hosts_path = folder / "known_hosts"
        self._image = _host_image(docker)
        self._make_network()
        self.hosts = [BedHost(self, number) for number in range(1, host_count + 1)]

    def start(self) -> None:
        """Make all hosts at once, and wait for them."""
        key = new_key()
        write_key(self.key_path, key)
        public = key.export_public_key().decode().strip()
        self.on_all(lambda host: host.create(public, self._image))
        self.on_all(BedHost.wait_ready)
        self.trust()

    def trust(self) -> None:
        """Write the hosts' keys into the operator's known_hosts."""
        keys = self.on_all(BedHost.host_key)
        lines = [f"{host.address} {key}\n" for host, key in zip(self.hosts, keys, strict=True)]
        self.known_hosts_path.write_text("".join(lines))

    def on_all(self, work: Callable[[BedHost], ResultT]) -> list[ResultT]:
        """Do it for every host at the same time."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            return list(pool.map(work, self.hosts))

    def access(self, host: BedHost) -> SshAccess:
        """How the operator gets there; nothing of this user's own configuration plays a part."""
        return SshAccess(
            address=host.address, port=SSH_PORT, user=self.user, key_path=str(self.key_path), use_config=False,
            known_hosts_path=str(self.known_hosts_path),
        )  # fmt: skip

    def transport(self, host: BedHost, limits: SshLimits | None = None) -> SshTransport:
        """A transport to a host; its caller closes it."""
        access = self.access(host)
        return SshTransport(SshConnection(host.name, access, known_hosts_paths(access, None), limits=limits))

    def declared(self, **more: object) -> list[dict[str, object]]:
        """The hosts as `hosts:` in redisforge.yaml has them; `more` goes into each."""
        return [
            {
                "name": host.name, "address": host.address, "zone": host.zone, "ssh": True, "ssh_user": self.user,
                "ssh_key": str(self.key_path), "folder": DATA_FOLDER, **more,
            }
            for host in self.hosts
        ]  # fmt: skip

    def close(self) -> None:
        """Remove the hosts with their disks, and the network."""
        _remove(self.docker, _own_mark())

    def _make_network(self) -> None:
        why = ""
        for subnet in _SUBNETS:
            words = ("network", "create", *self.labels, "--subnet", f"{subnet}.0/24", self.name)
            try:
                self.docker.docker(*words)
            except AssertionError as error:
                why = str(error)
                continue
            self.subnet = subnet
            return
        raise UnavailableError(f"no private network can be made: {why}")


@contextlib.contextmanager
def running(folder: Path, *, host_count: int, zone_count: int = 3) -> Generator[Bed]:
    """Hosts for a block. Raises UnavailableError with the reason why this machine cannot have them."""
    if os.getuid():
        raise UnavailableError("only root can make hosts that run an engine of Docker")
    with docker_bed.running() as docker:
        remove_leftovers(docker)
        bed: Bed | None = None
        try:
            bed = Bed(docker, folder, host_count, zone_count)
            bed.start()
            yield bed
        finally:
            _remove(docker, _own_mark())


def remove_leftovers(docker: DockerBed) -> None:
    """Remove the beds of test runs that are no more."""
    shown = docker.docker(
        "ps", "--all", "--filter", f"label={OWNER_LABEL}", "--format", f'{{{{.Label "{OWNER_LABEL}"}}}}'
    )
    shown += "\n" + docker.docker(
        "network", "ls", "--filter", f"label={OWNER_LABEL}", "--format", f'{{{{.Label "{OWNER_LABEL}"}}}}'
    )
    for mark in {mark for mark in shown.split() if mark != _mark_of(int(mark.partition("-")[0]))}:
        _remove(docker, mark)


def _remove(docker: DockerBed, mark: str) -> None:
    mine = f"label={OWNER_LABEL}={mark}"
    if containers := docker.docker("ps", "--all", "--quiet", "--filter", mine).split():
        docker.docker("rm", "--force", "--volumes", *containers, limit_s=280)
    if networks := docker.docker("network", "ls", "--quiet", "--filter", mine).split():
        docker.docker("network", "rm", *networks)


def _own_mark() -> str:
    return _mark_of(os.getpid())


def _mark_of(pid: int) -> str:
    """A process, told from a later one with the same number by when it began; "" if there is none."""
    try:
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
    return f"{pid}-{began}"


def _host_image(docker: DockerBed) -> str:
    """The image of a host, by what it is made of."""
    sources: Iterable[Path] = (HERE / "host.Dockerfile", HERE / "host_init.sh", HERE / "slow_line.py")
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    name = f"redisforge-test/host:{digest}"
    if not docker.has_image(name):
        base = docker.base_image()
        words = ("--file", str(HERE / "host.Dockerfile"), "--build-arg", f"BASE={base}", "--tag", name, str(HERE))
        docker.docker("build", "--quiet", *words, limit_s=280)
    return name
