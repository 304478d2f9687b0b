"""The hand-off on real parts, under load through Envoy: every way in which a master can stop.

Deadlines are correctness, not speed: bench/handoff.py measures. A window that Redis's own detection would need is
longer than the node timeout, which is set high here where only the hand-off can be quicker.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from cluster_tool import Cluster, kill, until
from load import Load

from conftest import MakeCluster

pytestmark = pytest.mark.integration

SLOW_MS = 15_000
"""A node timeout that no test waits for."""
SLACK_S = 2.0


@pytest.fixture
def patient(make_cluster: MakeCluster) -> Cluster:
    """A cluster in which Redis itself notices nothing while a test runs."""
    cluster = make_cluster(node_timeout_ms=SLOW_MS)
    cluster.up()
    return cluster


def log(cluster: Cluster, unit: str) -> str:
    """What the keeper said."""
    text = (cluster.path / "units" / unit / "log").read_text()
    return "\n".join(line for line in text.splitlines() if "Z keeper: " in line)


def await_sample(cluster: Cluster, node: str) -> None:
    """Wait until the node's keeper has looked at it, wholly after now."""

    def looks() -> int:
        """Commands on the keeper's connection; it logs in as the user for the hand-off."""
        with cluster.node_client(node) as client:
            return max(
                (int(entry["tot-cmds"]) for entry in client.client_list() if entry["user"] == "handoff_user"), default=0
            )

    seen = looks()
    until(lambda: looks() >= seen + 2, f"a look at {node}")


def handed_off(cluster: Cluster, master: str) -> int:
    return log(cluster, master).count("keeper: handed off to ")


def offsets(cluster: Cluster, unit: str) -> dict[str, str]:
    with cluster.node_client(unit) as client:
        return client.info("replication")


def test_a_killed_master_is_replaced_at_once_and_nothing_is_lost(patient: Cluster) -> None:
    nodes = patient.nodes()
    for master in patient.masters():
        replica = next(name for name in nodes if nodes[name]["shard"] == nodes[master]["shard"] and name != master)
        await_sample(patient, master)
        with Load(patient.url(), writers=8, readers=2) as load:
            load.await_writes(200)
            old = patient.pid(master)
            os.kill(old, signal.SIGKILL)
            patient.await_restart(master, old)
            load.await_writes(400)
        report = load.stop()
        report.check_nothing_lost()
        assert report.error_count > 0, "nobody noticed the crash: the test proves nothing"
        assert handed_off(patient, master) == 1, log(patient, master)
        assert report.error_window_s < SLACK_S, str(report)
        assert replica in patient.masters()
        patient.await_health(60)
    assert patient.up() == []


def test_a_second_crash_soon_after_is_left_to_the_master_itself(patient: Cluster) -> None:
    """Redis would not hold a second election properly: the master comes back with its data instead."""
    keys = patient.write_keys()
    patient.await_copies()
    master, _ = patient.pair()
    await_sample(patient, master)
    pid = patient.pid(master)
    kill(pid)
    patient.await_restart(master, pid)
    patient.await_health(60)
    with patient.node_client(master) as client:
        client.execute_command("CLUSTER FAILOVER")
    until(lambda: master in patient.masters(), f"{master} is a master again")
    patient.await_health(60)

    await_sample(patient, master)
    pid = patient.pid(master)
    kill(pid)
    patient.await_restart(master, pid)
    patient.await_health(60)

    assert log(patient, master).count("no hand-off: an election was held in the shard") == 1, log(patient, master)
    assert handed_off(patient, master) == 1
    assert master in patient.masters()
    assert patient.read_keys(keys) == keys
    assert patient.up() == []


def test_a_master_whose_keeper_is_told_to_stop_hands_over_without_an_error(patient: Cluster) -> None:
    master, replica = patient.pair()
    keeper = patient.keeper_pid(master)
    with Load(patient.url(), writers=4, readers=4) as load:
        load.await_writes(200)
        os.kill(keeper, signal.SIGTERM)
        until(lambda: patient.state(master)["state"] == "stopped", f"{master} stopped")
        load.await_writes(400)
    load.stop().check()
    assert handed_off(patient, master) == 1
    assert replica in patient.masters()
    patient.up()
    patient.await_health(60)


def test_a_master_that_hangs_is_left_to_redis(make_cluster: MakeCluster) -> None:
    """It holds its port and may wake up: two masters would be worse than waiting."""
    cluster = make_cluster()
    cluster.up()
    master, replica = cluster.pair()
    await_sample(cluster, master)
    pid = cluster.pid(master)
    with Load(cluster.url(), writers=4, readers=2, timeout_s=1.0) as load:
        load.await_writes(200)
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: offsets(cluster, replica)["role"] == "master", f"{replica} takes over", 20)
            load.await_writes(400)
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: offsets(cluster, master)["role"] == "slave", f"{master} is a replica", 20)
    report = load.stop()
    report.check_nothing_lost()
    timeout_s = cluster.options["node_timeout_ms"] / 1000
    assert report.error_window_s < timeout_s + 1.0 + 3 * SLACK_S, str(report)
    assert "hand" not in "".join(line for line in log(cluster, master).splitlines() if "keeper:" in line)
    assert cluster.pid(master) == pid


def test_a_lost_host_is_left_to_redis(make_cluster: MakeCluster) -> None:
    hosts = [{"name": f"host-{n}", "address": f"127.0.0.{10 + n}", "zone": f"zone-{n}"} for n in (1, 2, 3)]
    cluster = make_cluster(hosts=hosts)
    cluster.up()
    names = [name for name in cluster.unit_names() if name.startswith("redis-")]
    here = {name for name in names if cluster.declared(name)["host"] == "host-1"}
    masters = here & cluster.masters().keys()
    assert masters
    with Load(cluster.url(), writers=4, readers=2, timeout_s=1.0) as load:
        load.await_writes(200)
        kill(*(cluster.keeper_pid(unit) for unit in here))
        kill(*(cluster.pid(unit) for unit in here))
        others = cluster.masters
        until(
            lambda: len(others().keys() - here) == 3 and cluster.status()["cluster"]["slots_ok"] == 16384,
            "new masters",
            20,
        )
        load.await_writes(400)
    report = load.stop()
    report.check_nothing_lost()
    timeout_s = cluster.options["node_timeout_ms"] / 1000
    assert report.error_window_s < timeout_s + 1.0 + 3 * SLACK_S, str(report)
    cluster.up()
    assert cluster.up() == []


def test_a_replica_that_lags_is_not_promoted(make_cluster: MakeCluster) -> None:
    """The master comes back with its data instead: that loses nothing."""
    cluster = make_cluster(node_timeout_ms=SLOW_MS, handoff_max_lag_bytes=100_000, memory={"max": "256mb"})
    cluster.up()
    master, replica = cluster.pair()
    await_sample(cluster, master)
    pid, replica_pid = cluster.pid(master), cluster.pid(replica)
    os.kill(replica_pid, signal.SIGSTOP)
    try:
        with cluster.node_client(master) as client:
            slot = int(str(cluster.nodes()[master]["slots"]).split("-")[0].split(",")[0])
            tag = next(f"{{{n}}}" for n in range(200_000) if client.cluster("KEYSLOT", f"{{{n}}}") == slot)
            for number in range(40):
                client.set(f"{tag}:{number}", "x" * 1_000_000)
            size = client.dbsize()
        seen = offsets(cluster, master)["master_repl_offset"]
        await_sample(cluster, master)
        kill(pid)
    finally:
        os.kill(replica_pid, signal.SIGCONT)
    cluster.await_restart(master, pid)
    assert int(seen) > 40_000_000
    said = log(cluster, master)
    assert re.search(r"no hand-off to \S+: it (is \d+ bytes behind|does not answer)", said), said
    assert handed_off(cluster, master) == 0
    cluster.await_health(60)
    assert master in cluster.masters()
    with cluster.node_client(master) as client:
        assert client.dbsize() == size


def test_switched_off_the_master_comes_back_itself(patient: Cluster) -> None:
    master, _ = patient.pair()
    await_sample(patient, master)
    pids = patient.pids()
    patient.declare(handoff=False)
    assert patient.up() == []
    assert patient.pids() == pids, "a setting of keepers restarts nothing"
    keys = patient.write_keys()
    kill(patient.pid(master))
    patient.await_restart(master, pids[master][0])
    patient.await_health(60)
    assert handed_off(patient, master) == 0
    assert master in patient.masters()
    assert patient.read_keys(keys) == keys
    keeper = patient.keeper_pid(master)
    os.kill(keeper, signal.SIGTERM)
    until(lambda: patient.state(master)["state"] == "stopped", f"{master} stopped")
    assert handed_off(patient, master) == 0

    patient.declare(handoff=True)
    patient.up()
    other = next(name for name in patient.masters() if name != master)
    await_sample(patient, other)
    kill(patient.pid(other))
    until(lambda: handed_off(patient, other) == 1, "the hand-off is on again")


def test_a_master_that_died_and_lost_its_data_is_replaced_and_comes_back_blank(patient: Cluster) -> None:
    """The guard and the hand-off together: what Redis's own detection would take a node timeout for is done at once."""
    keys = patient.write_keys()
    patient.await_copies()
    master, replica = patient.pair()
    await_sample(patient, master)
    pid = patient.pid(master)
    shutil.rmtree(patient.path / "units" / master / "data" / "appendonlydir")
    kill(pid)
    patient.await_restart(master, pid)
    assert replica in patient.masters()
    patient.up()
    patient.await_health(60)
    assert patient.read_keys(keys) == keys


def test_of_two_replicas_one_takes_over_and_the_other_follows(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(node_timeout_ms=SLOW_MS, replicas=2)
    cluster.up()
    keys = cluster.write_keys()
    cluster.await_copies()
    master, _ = cluster.pair()
    shard = {name for name, node in cluster.nodes().items() if node["shard"] == cluster.nodes()[master]["shard"]}
    await_sample(cluster, master)
    pid = cluster.pid(master)
    kill(pid)
    cluster.await_restart(master, pid)
    cluster.await_health(60)
    assert len(shard & cluster.masters().keys() - {master}) == 1
    assert len(cluster.masters()) == 3
    assert cluster.read_keys(keys) == keys


def test_when_all_masters_die_at_once_they_come_back_themselves(patient: Cluster) -> None:
    """There is no majority to vote: waiting for one would only make it longer."""
    keys = patient.write_keys()
    patient.await_copies()
    masters = patient.masters()
    for master in masters:
        await_sample(patient, master)
    pids = {master: patient.pid(master) for master in masters}
    kill(*pids.values())
    for master, pid in pids.items():
        patient.await_restart(master, pid)
    patient.await_health(60)
    assert patient.read_keys(keys) == keys
    assert patient.up() == []


def test_down_is_not_held_up_by_the_hand_off(patient: Cluster) -> None:
    """Replicas stop first: the masters have nobody to hand over to, and do not wait for anybody."""
    result = patient.run("down")
    assert result.status == 0, str(result)
    logs = [log(patient, unit) for unit in patient.unit_names()]
    assert not [text for text in logs if "no replica took over within" in text or "handed off" in text]
    patient.up()
    patient.await_health(60)


def test_a_cluster_that_is_older_than_the_hand_off_gets_its_user_and_a_rolling_restart(fresh: Cluster) -> None:
    keys = fresh.write_keys()
    path = fresh.path / "secrets.env"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "HANDOFF" not in line))
    phases = fresh.up()
    assert phases
    assert "REDIS_HANDOFF_PASS" in path.read_text()
    fresh.await_health()
    assert fresh.read_keys(keys) == keys
    master, _ = fresh.pair()
    await_sample(fresh, master)
    assert Path(fresh.path, "handoff.py").exists()
