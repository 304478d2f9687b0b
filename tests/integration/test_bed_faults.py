"""What happens to hosts and to `up` itself, on six hosts in three zones: killed, cut off, slowed, rebooted."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Generator, Iterator

import pytest
from bed_cluster import BedCluster
from load import Load
from verbs import after_lines, cut, done, loaded

from testbed.hosts import Bed, BedHost
from waiting import until

pytestmark = pytest.mark.integration

SEED = 41
KILLS = 3
TAKEOVER_S = 30.0
HEAL_S = 90.0
DELAY_MS = 20.0
LOST_PERCENT = 1.0
FIRST_PACKET_AGAIN_S = 1.0


@pytest.fixture(scope="module")
def bedded(docker_hosts: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BedCluster]:
    made = BedCluster(docker_hosts, tmp_path_factory.mktemp("bed-faults"))
    try:
        made.trust()
        yield made
    finally:
        made.close()


def all_ok(bedded: BedCluster) -> bool:
    nodes = bedded.cluster.nodes().values()
    return {node["state"] for node in nodes} == {"ok"} and bedded.cluster.status()["cluster"]["slots_ok"] == 16384


def settle(bedded: BedCluster) -> None:
    """All nodes are well, without anybody's help, and `up` has nothing left to do once the roles are even again."""
    until(lambda: all_ok(bedded), "all nodes are well again", HEAL_S)
    done(bedded.cluster, "rebalance", "--roles")
    bedded.cluster.await_health(HEAL_S)
    assert bedded.cluster.up() == []


def taken_over(bedded: BedCluster, master: str) -> None:
    until(
        lambda: master not in bedded.cluster.masters() and len(bedded.cluster.masters()) == 3, "a takeover", TAKEOVER_S
    )


def test_an_up_that_is_killed_again_and_again_ends_well(bedded: BedCluster) -> None:
    """After so many lines of its journal, of a seeded choice; nothing is there twice, and the last one finishes."""
    cluster, choice = bedded.cluster, random.Random(SEED)
    deaths = 0
    for number in range(KILLS):
        lines = choice.randint(2, 18)
        status, errors = cut(cluster, "up", when=after_lines(cluster, lines))
        deaths += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL), f"kill {number} after {lines} lines: {errors}"
        bedded.containers()  # which fails if a Unit is there twice
    assert deaths, "none was killed before its end"
    cluster.up()
    assert len(bedded.running()) == 7
    keys = cluster.write_keys(300)
    assert cluster.read_keys(keys) == keys
    cluster.await_health(HEAL_S)
    assert cluster.up() == []


@contextlib.contextmanager
def without_a_master(
    bedded: BedCluster, away: Callable[[BedHost], None], back: Callable[[BedHost], None]
) -> Generator[str]:
    """The host of a master is away until a replica has taken over, and during the block, which is given the master's
    name. What was there before, and what is written meanwhile, is there at the end, when all is well again."""
    cluster = bedded.cluster
    keys = cluster.write_keys(300, "before")
    cluster.await_copies()
    master = bedded.master_elsewhere()
    host = bedded.host_of(master)
    away(host)
    try:
        taken_over(bedded, master)
        assert cluster.read_keys(keys) == keys
        keys |= cluster.write_keys(300, "since")
        yield master
    finally:
        back(host)
    settle(bedded)
    assert cluster.read_keys(keys) == keys


def test_a_host_that_dies_is_replaced_named_and_healed(bedded: BedCluster) -> None:
    with without_a_master(bedded, BedHost.power_off, BedHost.power_on) as master:
        name = bedded.host_of(master).name
        assert any(name in problem for problem in bedded.cluster.problems()), bedded.cluster.problems()


def test_a_host_that_was_cut_off_comes_back_as_a_replica(bedded: BedCluster) -> None:
    """(What the old master alone took in between is lost by design of Redis: it stops that after the node timeout.)"""

    def back(host: BedHost) -> None:
        host.reconnect()
        name = next(name for name, node in bedded.cluster.nodes().items() if node["host"] == host.name)
        until(lambda: bedded.cluster.nodes()[name]["role"] == "replica", "it follows the new master", HEAL_S)

    with without_a_master(bedded, BedHost.cut_off, back):
        pass


def test_a_host_that_reboots_comes_back_by_itself(bedded: BedCluster) -> None:
    """Told to stop, its master hands over; nobody runs `up`."""
    cluster = bedded.cluster
    cluster.await_copies()
    master = bedded.master_elsewhere()
    before = bedded.running()[master].began
    with Load(cluster.url("primary"), keys_per_writer=200, keep_keys=False) as load:
        bedded.host_of(master).reboot()
        until(lambda: all_ok(bedded), "all nodes are well again", HEAL_S)
        load.stop().check_nothing_lost()
    assert bedded.running()[master].began != before
    settle(bedded)


def test_a_planned_failover_over_slow_and_lossy_lines_is_not_noticed(bedded: BedCluster) -> None:
    cluster = bedded.cluster
    bedded.bed.on_all(lambda host: host.slow_down(DELAY_MS, LOST_PERCENT))
    try:
        until(lambda: all_ok(bedded), "all nodes are seen over the slow lines", HEAL_S)
        cluster.await_copies()
        with loaded(cluster):
            done(cluster, "failover", bedded.master_elsewhere())
    finally:
        bedded.bed.on_all(lambda host: host.speed_up())
    settle(bedded)


def test_a_connection_whose_first_packet_is_lost_is_waited_for(bedded: BedCluster) -> None:
    """The packet is sent again after a second; a command that waits for that connection must not fail meanwhile."""
    cluster, master = bedded.cluster, bedded.master_elsewhere()
    host = bedded.host_of(master)
    keys = cluster.write_keys(100, "waits")
    with cluster.node_client(master) as node:
        assert node.ping()
        host.slow_down(0, lose_first=True)
        try:
            node.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # Envoy's, too
            began = time.monotonic()
            assert cluster.read_keys(keys) == keys
            assert time.monotonic() - began >= FIRST_PACKET_AGAIN_S
        finally:
            host.speed_up()
    settle(bedded)
