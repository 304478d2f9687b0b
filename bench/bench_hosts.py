"""`up` and `status` over six hosts, against the same on this machine: what SSH and distance cost.

The hosts are the test bed's (tests/testbed): containers with an sshd and a Docker of their own, images already there.
Distance is made in user space, for every packet that arrives at a host. Beside the seconds it is counted how many
exchanges over SSH follow each other in each stage: that number must not grow with the number of hosts.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench_handoff import redisforge
from figure import Figure
from nodes import ports
from redisforge.config.load import load
from redisforge.fleet.ssh import SshTransport
from redisforge.runbooks.up import Wanted, up

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import testbed.hosts as beds
from docker_bed import UnavailableError

HOSTS = 6
DELAY_MS = 20.0
ROUND_TRIPS = 10
"""Worth of latency that `up` may take on top of twice the local one."""
METHODS = ("run", "feed", "place", "read", "remove", "free_bytes", "carry", "connect")


class Exchange(NamedTuple):
    """One use of an SSH connection."""

    began_s: float
    ended_s: float


class Trace:
    """Every exchange, and when each stage of `up` ended."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.stages: list[tuple[str, float]] = []

    def stage_ended(self, said: str) -> None:
        """What `up` reports at the end of a stage."""
        self.stages.append((said.strip().rpartition(": ")[0] or said.strip(), time.monotonic()))

    def sequential(self) -> dict[str, int]:
        """By stage, how many exchanges followed each other: as many as do not overlap, at the most."""
        counts: dict[str, int] = {}
        stages = [*self.stages, ("the rest", float("inf"))]
        free_at = 0.0
        for exchange in sorted(self.exchanges, key=lambda exchange: exchange.ended_s):
            if exchange.began_s >= free_at:
                free_at = exchange.ended_s
                name = next(name for name, ended in stages if exchange.began_s <= ended)
                counts[name] = counts.get(name, 0) + 1
        return counts


@contextmanager
def traced() -> Generator[Trace]:
    """Record every exchange of every SSH transport of this process."""
    trace = Trace()
    originals: dict[str, Any] = {name: getattr(SshTransport, name) for name in METHODS}

    def recording(original: Any) -> Any:
        async def call(*arguments: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return await original(*arguments, **named)
            finally:
                trace.exchanges.append(Exchange(began, time.monotonic()))

        return call

    for name, original in originals.items():
        setattr(SshTransport, name, recording(original))
    try:
        yield trace
    finally:
        for name, original in originals.items():
            setattr(SshTransport, name, original)


def hosts(folder: Path, tries: int) -> Iterator[Figure]:
    """The figures; none, with the reason, where this machine cannot have such hosts."""
    (folder / "bed").mkdir()
    try:
        with beds.running(folder / "bed", host_count=HOSTS) as bed:
            yield from _on(bed, folder, tries)
    except UnavailableError as error:
        print(f"not measured: {HOSTS} hosts: {error}")


def _on(bed: beds.Bed, folder: Path, tries: int) -> Iterator[Figure]:
    base = bed.docker.base_image()
    here = [{"name": f"h{n}", "address": f"127.0.0.{20 + n}", "zone": f"zone-{n % 3}"} for n in range(1, HOSTS + 1)]
    local = _declared(folder, "local", [{**host, "runtime": "docker"} for host in here])
    far = _declared(folder, "far", bed.declared(runtime="docker"))
    few = _declared(folder, "few", bed.declared(runtime="docker")[:3])
    home = folder / "hosts-home"
    home.mkdir()
    (home / "known_hosts").write_text(bed.known_hosts_path.read_text())
    redisforge(home, "images", "build", "--base", base, "--config", str(far))
    redisforge(home, "images", "push", "--config", str(far))

    local_s = statistics.median(_up(home, local)[0] for _ in range(tries))
    yield Figure(f"up of {HOSTS} nodes in Docker on this machine", local_s, "s", None, tries)
    for delay_ms in (0.0, DELAY_MS):
        if delay_ms:
            bed.on_all(lambda host: host.slow_down(DELAY_MS))
        runs = [_up(home, far, with_status=True) for _ in range(tries)]
        limit_s = 2 * local_s + ROUND_TRIPS * delay_ms / 1000
        name = f"up over {HOSTS} hosts at {delay_ms:g} ms"
        yield Figure(name, statistics.median(run[0] for run in runs), "s", limit_s, tries)
        status_s = statistics.median(run[1] for run in runs)
        yield Figure(f"… status at {delay_ms:g} ms", status_s, "s", 1.0 if delay_ms else None, tries)
    six, three = _counted(home, far), _counted(home, few)
    for stage, count in six.items():
        yield Figure(f"exchanges in turn, {stage[:36]}", count, "", None, 1)
    yield Figure(f"… in all, with {HOSTS} hosts", sum(six.values()), "", None, 1)
    yield Figure("… in all, with 3 hosts", sum(three.values()), "", None, 1)


def _declared(folder: Path, name: str, declared: list[dict[str, object]]) -> Path:
    """A redisforge.yaml; flow style is YAML's JSON."""
    path = folder / f"{name}.yaml"
    path.write_text(f"name: bench\n{ports()}hosts: {json.dumps(declared)}\n")
    return path


def _up(home: Path, config: Path, *, with_status: bool = False) -> tuple[float, float]:
    """Seconds of `up` from nothing, and of a `status` afterwards; nothing is left."""
    try:
        began = time.perf_counter()
        redisforge(home, "up", "--config", str(config))
        up_s = time.perf_counter() - began
        began = time.perf_counter()
        if with_status:
            redisforge(home, "status")
        return up_s, time.perf_counter() - began
    finally:
        redisforge(home, "down", "--purge", "--yes")


def _counted(home: Path, config: Path) -> dict[str, int]:
    """By stage of an `up` from nothing, the exchanges that follow each other."""
    loaded = load(config, os.environ, config.parent)
    try:
        with traced() as trace:
            up(Wanted(topology=loaded.topology, passwords=loaded.passwords), home, os.environ, trace.stage_ended)
        return trace.sequential()
    finally:
        redisforge(home, "down", "--purge", "--yes")
