"""A host of the bed whose disk fills up under its node, and one whose clock is said to be wrong."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator

import pytest
import redis
from bed_cluster import BedCluster
from cluster_tool import AT_ONCE

from testbed.hosts import DATA_FOLDER, Bed, BedHost
from waiting import until

pytestmark = pytest.mark.integration

DISK_MB = 400
NOTICED_S = 60.0
HEAL_S = 90.0
SKEW_S = 90
CLUSTERS = f"{DATA_FOLDER}/clusters"
FILLING = f"{CLUSTERS}/filling"


@pytest.fixture
def on_small_disks(docker_hosts: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BedCluster]:
    """Declared on hosts whose clusters have a small file system of their own."""
    bedded = BedCluster(docker_hosts, tmp_path_factory.mktemp("bed-disk"))
    docker_hosts.on_all(lambda host: host.run("mkdir", "-p", CLUSTERS))
    docker_hosts.on_all(lambda host: host.small_disk(CLUSTERS, DISK_MB))
    try:
        bedded.trust()
        yield bedded
    finally:
        docker_hosts.on_all(lambda host: host.run("rm", "-f", FILLING))
        try:
            bedded.cluster.close()
        finally:
            docker_hosts.on_all(lambda host: host.run("umount", "--lazy", CLUSTERS))
            bedded.remove_rest()


def test_a_disk_that_fills_up_is_named_and_what_was_acknowledged_is_kept(on_small_disks: BedCluster) -> None:
    """The node refuses writes for its slots meanwhile; the others go on, and so does it once there is room."""
    cluster = on_small_disks.cluster
    cluster.up()
    keys = cluster.write_keys(300, "before")
    master = on_small_disks.master_elsewhere()
    host = on_small_disks.host_of(master)
    copies = [n for n, node in cluster.nodes().items() if node["host"] == host.name and node["role"] == "replica"]
    host.run("sh", "-c", f"head -c 2G /dev/zero >{FILLING} 2>/dev/null || true")
    refused = 0

    def is_told() -> bool:
        nonlocal refused
        kept, errors = write_what_can_be("full")
        keys.update(kept)
        refused += len(errors)
        assert all("MISCONF" in error for error in errors), errors
        return any(master in problem and "disk" in problem for problem in cluster.problems())

    def write_what_can_be(prefix: str) -> tuple[dict[str, str], list[str]]:
        kept: dict[str, str] = {}
        errors: list[str] = []
        with cluster.client(**AT_ONCE) as client:
            for number in range(100):
                name, value = f"{prefix}:{number}", f"value-{len(keys)}"
                try:
                    client.set(name, value)
                    kept[name] = value
                except redis.RedisError as error:
                    errors.append(str(error))
        return kept, errors

    until(is_told, f"status names {master}", NOTICED_S)
    until(lambda: write_what_can_be("more")[1], f"{master} refuses writes", NOTICED_S)

    def copies_are_told() -> bool:
        keys.update(write_what_can_be("copies")[0])
        told = {problem.partition(":")[0] for problem in cluster.problems() if "disk" in problem}
        return told >= {*copies}

    until(copies_are_told, f"status names {copies}, too", NOTICED_S)
    kept, errors = write_what_can_be("others")
    keys.update(kept)
    assert kept, errors
    assert cluster.read_keys(keys) == keys

    host.run("rm", FILLING)
    until(lambda: not write_what_can_be("after")[1], "all writes are taken again", HEAL_S)
    cluster.await_health(HEAL_S)
    assert cluster.read_keys(keys) == keys
    assert [cluster.nodes()[name]["restart_count"] for name in copies] == [0] * len(copies), "a replica goes on"


FAKE_DATE = """#!/bin/sh
exec /usr/bin/date --date '{seconds} seconds' "$@"
"""
FAKE_PYTHON = """#!/bin/sh
# python3 -I -c PROGRAM ARGUMENT... : as asked, with another time of day
program=$3
shift 3
exec /usr/bin/python3 -I -c '
import sys, time
real = time.time
time.time = lambda: real() + {seconds}
exec(compile(sys.argv.pop(1), "program", "exec"))
' "$program" "$@"
"""


@contextlib.contextmanager
def clock_said_to_be_ahead(host: BedHost, seconds: int) -> Generator[None]:
    """Programs in front of the real ones, which add to what those say. Nobody's clock is touched."""
    fakes = {"/usr/local/bin/date": FAKE_DATE, "/usr/local/bin/python3": FAKE_PYTHON}
    for path, script in fakes.items():
        text = script.replace("{seconds}", str(seconds))
        host.run("sh", "-c", 'printf "%s" "$2" >"$1"; chmod 755 "$1"', "sh", path, text)
    try:
        yield
    finally:
        host.run("rm", *fakes)


def test_a_clock_that_is_apart_is_named_with_its_host(
    docker_hosts: Bed, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bedded = BedCluster(docker_hosts, tmp_path_factory.mktemp("bed-clock"))
    bedded.trust()
    wrong = docker_hosts.hosts[2]

    def verdicts() -> dict[str, str]:
        checked = bedded.cluster.run("host", "check", "--json").json()
        return {check["host"]: check["verdict"] for check in checked["checks"] if check["name"] == "clock"}

    with clock_said_to_be_ahead(wrong, SKEW_S):
        told = verdicts()
        shown = bedded.cluster.run("host", "check").stdout
    assert {host for host, verdict in told.items() if verdict != "Pass"} == {wrong.name}
    assert told[wrong.name] == "Fail"
    assert re.search(r"(89|90)\.\d s ahead of the others", shown), shown
    assert set(verdicts().values()) == {"Pass"}
