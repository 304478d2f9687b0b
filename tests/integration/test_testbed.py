"""The test bed itself: hosts that are reached as real ones are, that break as real ones do, and that leave nothing."""

from __future__ import annotations

import time

import pytest

from redisforge.errors import UnreachableError
from redisforge.fleet.ssh_connection import SshLimits
from testbed.hosts import OWNER_LABEL, READY_LIMIT_S, Bed, remove_leftovers
from waiting import until

pytestmark = pytest.mark.integration


async def said_by(bed: Bed, number: int, *argv: str) -> str:
    """What a command says over SSH."""
    transport = bed.transport(bed.hosts[number], SshLimits(connect_s=2.0))
    try:
        return (await transport.run(argv, timeout_s=20)).stdout.strip()
    finally:
        await transport.close()


async def test_every_host_is_reached_over_ssh_and_has_an_engine_of_its_own(bed: Bed) -> None:
    engines = {await said_by(bed, number, "docker", "info", "--format", "{{.ID}}") for number in range(len(bed.hosts))}
    assert len(engines) == len(bed.hosts) == 6
    assert sorted(host.zone for host in bed.hosts) == ["zone-1", "zone-1", "zone-2", "zone-2", "zone-3", "zone-3"]
    assert await said_by(bed, 0, "id", "-un") == "deploy"
    assert await said_by(bed, 0, "sudo", "-n", "id", "-u") == "0"


async def test_hosts_reach_each_other(bed: Bed) -> None:
    ask = f"exec 3<>/dev/tcp/{bed.hosts[5].address}/22; read -r line <&3; echo $line"
    assert (await said_by(bed, 0, "bash", "-c", ask)).startswith("SSH-2.0")


async def test_a_host_without_power_is_silent_and_comes_back_with_its_disk(bed: Bed) -> None:
    host = bed.hosts[1]
    host.run("sh", "-c", "echo kept >/srv/redisforge/note")
    host.power_off()
    try:
        with pytest.raises(UnreachableError):
            await said_by(bed, 1, "true")
    finally:
        host.power_on()
    assert await said_by(bed, 1, "cat", "/srv/redisforge/note") == "kept"


async def test_a_host_that_is_cut_off_comes_back_with_its_address(bed: Bed) -> None:
    host = bed.hosts[2]
    host.cut_off()
    try:
        with pytest.raises(UnreachableError):
            await said_by(bed, 2, "true")
    finally:
        host.reconnect()
    until(host.answers, "it is reached again", READY_LIMIT_S)
    assert await said_by(bed, 2, "hostname") == host.name


def test_a_slow_host_answers_later(bed: Bed) -> None:
    host = bed.hosts[3]

    def connect_s() -> float:
        began = time.monotonic()
        assert host.answers()
        return time.monotonic() - began

    host.slow_down(150)
    try:
        assert connect_s() >= 0.15
    finally:
        host.speed_up()
    assert min(connect_s() for _ in range(20)) < 0.15


def test_an_engine_can_be_away_while_its_host_is_there(bed: Bed) -> None:
    host = bed.hosts[4]
    host.stop_engine()
    try:
        assert host.answers()
        assert not host.has_engine()
    finally:
        host.start_engine()


def test_a_host_reboots(bed: Bed) -> None:
    before = bed.hosts[5].run("cat", "/proc/1/stat").split()[21]
    bed.hosts[5].reboot()
    assert bed.hosts[5].run("cat", "/proc/1/stat").split()[21] != before


def test_what_a_dead_run_left_is_removed_and_nothing_else(bed: Bed) -> None:
    dead = f"{OWNER_LABEL}=4194304-1"  # above the highest number that a process can have
    bed.docker.docker("network", "create", "--label", dead, "redisforge-test-left")
    bed.docker.docker("create", "--label", dead, "--name", "redisforge-test-left", bed.docker.base_image(), "true")
    remove_leftovers(bed.docker)
    assert "redisforge-test-left" not in bed.docker.docker("ps", "--all", "--format", "{{.Names}}").split()
    assert "redisforge-test-left" not in bed.docker.docker("network", "ls", "--format", "{{.Name}}").split()
    assert all(host.answers() for host in bed.hosts)
