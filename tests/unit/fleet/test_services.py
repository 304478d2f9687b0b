"""What runs a node that is somebody else's: read from what its host says, asked by its supervisor's own command."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time

import pytest

from redisforge.errors import HostError
from redisforge.fleet.services import _LOOK, Service, ServiceRuntime, read_service, service_facts  # pyright: ignore[reportPrivateUsage]
from redisforge.fleet.transport import LocalTransport
from redisforge.model.facts import UnitState


def test_a_service_is_read() -> None:
    assert read_service("systemd:redis@7000") == ("systemd", "redis@7000")
    assert read_service("docker:a:b") == ("docker", "a:b")


def test_what_the_host_prints_becomes_facts() -> None:
    facts = service_facts("a", ["42", "500", "100", "1000.5", "2000.5"])
    assert (facts.state, facts.pid, facts.started_at_s) == (UnitState.RUNNING, 42, 1005.0)
    assert service_facts("a", ["0", "100", "1000.5", "2000.5"]).state is UnitState.STOPPED
    assert service_facts("a", []).state is UnitState.STOPPED


def test_the_start_of_a_real_process_is_seen() -> None:
    """The program that asks, with a function in the place of systemctl."""
    with subprocess.Popen(["sleep", "60"]) as process:
        before = time.time()
        script = f"systemctl() {{ echo {process.pid}; }}\n{_LOOK}"
        try:
            done = subprocess.run(
                ["sh", "-c", script, "sh", "systemd", "x"], capture_output=True, text=True, check=True
            )
        finally:
            process.kill()
    facts = service_facts("a", done.stdout.split())
    assert (facts.state, facts.pid) == (UnitState.RUNNING, process.pid)
    assert abs(facts.started_at_s - before) < 5


def test_a_process_that_is_not_there_is_stopped() -> None:
    script = f"systemctl() {{ echo 0; }}\n{_LOOK}"
    done = subprocess.run(["sh", "-c", script, "sh", "systemd", "x"], capture_output=True, text=True, check=True)
    assert service_facts("a", done.stdout.split()).state is UnitState.STOPPED


def test_a_supervisor_that_fails_leaves_the_node_unknown_and_others_are_refused() -> None:
    runtime = ServiceRuntime({"a": Service("docker", f"no-such-container-{os.getpid()}", LocalTransport())})
    seen = asyncio.run(runtime.observe())
    assert seen["a"].state is UnitState.UNKNOWN
    with pytest.raises(HostError, match="what runs b"):
        asyncio.run(runtime.stop(["b"]))
    with pytest.raises(HostError):
        asyncio.run(runtime.remove(["a"]))
