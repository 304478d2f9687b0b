"""What a host is like, as its own small programs report it (fleet/host_probe.sh, fleet/host_reach.py)."""

from __future__ import annotations

import msgspec


class ClockSample(msgspec.Struct, frozen=True):
    """How far the host's clock is ahead of the operator's, and how wrong that figure may be; seconds."""

    offset_s: float
    uncertainty_s: float


class DockerFacts(msgspec.Struct, frozen=True):
    """Docker, as this user sees it. `problem`: why the engine does not answer; empty if it does.

    `published`: (address, port) of every port that leads into a container of this cluster.
    """

    client: str = ""
    """Its version; empty: there is no docker command."""
    server: str = ""
    storage_driver: str = ""
    problem: str = ""
    published: tuple[tuple[str, int], ...] = ()


class FolderFacts(msgspec.Struct, frozen=True):
    """Where the cluster's data goes. `existing` is the nearest folder above it (or itself) that is there."""

    path: str
    existing: str
    is_writable: bool
    free_bytes: int
    write_bytes_per_s: float | None = None
    """Of a small file, fsync included; None: it could not be tried, `write_problem` says why."""
    write_problem: str = ""


class ListeningSocket(msgspec.Struct, frozen=True):
    """Somebody listens on a port that the cluster asks for. `pid` 0: whose it is, this user may not see."""

    address: str
    port: int
    pid: int = 0
    folder: str = ""
    """The working folder of the process."""
    command: str = ""


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one host."""

    host: str
    system: str
    """What uname calls it: Linux."""
    distribution: str = ""
    kernel: str = ""
    architecture: str = ""
    machine: str = ""
    """The same for two hosts that are one machine: its name and the id of its boot."""
    user: str = ""
    is_root: bool = False
    is_privileged: bool = False
    """Whether what this user starts may listen on every port, as root's processes usually may."""
    can_sudo: bool = False
    """Without a password."""
    init: str = ""
    """The name of process 1."""
    python: str = ""
    """Its version; empty: there is no python3."""
    missing_tools: tuple[str, ...] = ()
    docker: DockerFacts = DockerFacts()
    folder: FolderFacts
    cores: int = 0
    memory_bytes: int = 0
    swap_bytes: int = 0
    huge_pages: str = ""
    """always, madvise or never; empty: this kernel has none."""
    open_files: int = 0
    """The hard limit of a process that is started there."""
    sysctls: dict[str, int] = {}
    """Kernel parameters by name; those that the kernel does not show are not there."""
    listeners: tuple[ListeningSocket, ...] = ()
    files: dict[str, str] = {}
    """The text of the configuration files that RedisForge may have put there, by path; absent ones are not there."""
    clock: ClockSample | None = None


class Reach(msgspec.Struct, frozen=True):
    """One attempt to connect from a host to a port of another one.

    `problem` is empty for a connection. `rtt_s`: how long it took, None if that was not measured.
    """

    source: str
    target: str
    address: str
    port: int
    problem: str = ""
    rtt_s: float | None = None


class HostLook(msgspec.Struct, frozen=True):
    """What is known of one host. `facts` is None for one that could not be asked: `problem`, `next_step` say why."""

    host: str
    facts: HostFacts | None = None
    problem: str = ""
    next_step: str = ""


class FleetLook(msgspec.Struct, frozen=True):
    """What is known of all hosts that were asked.

    `untried` are the ports (host, port) whose reachability could not be tried, because nothing listens there and the
    host could not listen in their place; `reach_problems` say of a host why nothing was tried from it.
    """

    hosts: tuple[HostLook, ...]
    reaches: tuple[Reach, ...] = ()
    untried: frozenset[tuple[str, int]] = frozenset()
    reach_problems: dict[str, str] = {}
