"""The hand-off on real parts, under load through Envoy: every way in which a master can stop.

Deadlines are correctness, not speed: bench/handoff.py measures. A window that Redis's own detection would need is
longer than the node timeout, which is set high here where only the hand-off can be quicker.

With a high node timeout a shard has one hand-off while the tests run (election_pause_s): so clusters are shared by as
many tests as their shards allow, and each test takes a master that has had none (`rested`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tool import SLOT_COUNT, Cluster, kill, masters_in, nodes_in, raised
from load import Load
from redis.crc import key_slot

from waiting import until

pytestmark = pytest.mark.integration

SLOW_MS = 15_000
"""A node timeout that no test waits for."""
SLACK_S = 2.0


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster in which Redis itself notices nothing while a test runs; one test kills each of its masters."""
    with raised(tmp_path_factory.mktemp("doomed"), node_timeout_ms=SLOW_MS, memory={"max": "256mb"}) as made:
        yield made


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Another one, for those without a hand-off, and for two that need three between them."""
    with raised(tmp_path_factory.mktemp("patient"), node_timeout_ms=SLOW_MS) as made:
        yield made


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster in which Redis notices soon what the hand-off leaves to it."""
    with raised(tmp_path_factory.mktemp("quick")) as made:
        yield made


def rested(cluster: Cluster) -> tuple[str, str]:
    """(a master, its replica): no election that its keeper knows of holds a hand-off back (any more)."""
    until(lambda: any(is_rested(cluster, name) for name in cluster.masters()), "a shard in which a hand-off can be", 90)
    nodes = cluster.nodes()
    master = next(name for name in masters_in(nodes) if is_rested(cluster, name))
    shard = nodes[master]["shard"]
    return master, next(name for name, node in nodes.items() if node["shard"] == shard and name != master)


def is_rested(cluster: Cluster, unit: str) -> bool:
    folder = cluster.path / "units" / unit
    election = folder / "last-election"
    pause_s = json.loads((folder / "handoff.json").read_text())["election_pause_s"]
    return not election.exists() or election.stat().st_mtime + pause_s < time.time()


def log(cluster: Cluster, unit: str, *, after: str = "") -> str:
    """What the keeper said, after what it had said."""
    text = (cluster.path / "units" / unit / "log").read_text()
    return "\n".join(line for line in text.splitlines() if "Z keeper: " in line).removeprefix(after)


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


def test_a_replica_that_lags_is_not_promoted(doomed: Cluster) -> None:
    """The master comes back with its data instead: that loses nothing."""
    doomed.declare(handoff_max_lag_bytes=100_000)
    assert doomed.up() == []
    master, replica = rested(doomed)
    await_sample(doomed, master)
    pid, replica_pid = doomed.pid(master), doomed.pid(replica)
    os.kill(replica_pid, signal.SIGSTOP)
    try:
        with doomed.node_client(master) as client:
            slot = int(str(doomed.nodes()[master]["slots"]).split("-")[0].split(",")[0])
            tag = next(f"{{{n}}}" for n in range(200_000) if key_slot(str(n).encode()) == slot)
            for number in range(40):
                client.set(f"{tag}:{number}", "x" * 1_000_000)
            size = client.dbsize()
        seen = offsets(doomed, master)["master_repl_offset"]
        await_sample(doomed, master)
        kill(pid)
    finally:
        os.kill(replica_pid, signal.SIGCONT)
    doomed.await_restart(master, pid)
    assert int(seen) > 40_000_000
    said = log(doomed, master)
    assert re.search(r"no hand-off to \S+: it (is \d+ bytes behind|does not answer)", said), said
    assert handed_off(doomed, master) == 0
    doomed.await_health(60)
    assert master in doomed.masters()
    with doomed.node_client(master) as client:
        assert client.dbsize() == size
        client.flushall()
    doomed.declare(handoff_max_lag_bytes=1_000_000)
    assert doomed.up() == []


def test_a_killed_master_is_replaced_at_once_and_a_second_crash_soon_after_is_left_to_itself(doomed: Cluster) -> None:
    """Nothing is lost. Redis would not hold a second election properly: so the master comes back with its data."""
    nodes, master = doomed.nodes(), ""
    for master in doomed.masters():
        replica = next(name for name in nodes if nodes[name]["shard"] == nodes[master]["shard"] and name != master)
        await_sample(doomed, master)
        with Load(doomed.url(), writers=8, readers=2) as load:
            load.await_writes(200)
            old = doomed.pid(master)
            os.kill(old, signal.SIGKILL)
            doomed.await_restart(master, old)
            load.await_writes(400)
        report = load.stop()
        report.check_nothing_lost()
        assert report.error_count > 0, "nobody noticed the crash: the test proves nothing"
        assert handed_off(doomed, master) == 1, log(doomed, master)
        assert report.error_window_s < SLACK_S, str(report)
        assert replica in doomed.masters()
        doomed.await_health(60)
    assert doomed.finds_nothing_to_do()

    keys = doomed.write_keys()
    doomed.await_copies()
    with doomed.node_client(master) as client:
        client.execute_command("CLUSTER FAILOVER")
    until(lambda: master in doomed.masters(), f"{master} is a master again")
    doomed.await_health(60)

    await_sample(doomed, master)
    pid = doomed.pid(master)
    kill(pid)
    doomed.await_restart(master, pid)
    doomed.await_health(60)

    assert log(doomed, master).count("no hand-off: an election was held in the shard") == 1, log(doomed, master)
    assert handed_off(doomed, master) == 1
    assert master in doomed.masters()
    assert doomed.read_keys(keys) == keys
    assert doomed.up() == []


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
    assert patient.finds_nothing_to_do()


def test_down_is_not_held_up_by_the_hand_off(patient: Cluster) -> None:
    """Replicas stop first: the masters have nobody to hand over to, and do not wait for anybody."""
    said = {unit: log(patient, unit) for unit in patient.unit_names()}
    result = patient.run("down")
    assert result.status == 0, str(result)
    logs = [log(patient, unit, after=before) for unit, before in said.items()]
    assert not [text for text in logs if "no replica took over within" in text or "handed off" in text]
    patient.up()
    patient.await_health(60)


def test_switched_off_the_master_comes_back_itself(patient: Cluster) -> None:
    master, _ = rested(patient)
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
    patient.await_health(60)
    master, _ = rested(patient)
    before = handed_off(patient, master)
    await_sample(patient, master)
    pid = patient.pid(master)
    kill(pid)
    until(lambda: handed_off(patient, master) == before + 1, "the hand-off is on again")
    patient.await_restart(master, pid)
    patient.await_health(60)


def test_a_master_that_died_and_lost_its_data_is_replaced_and_comes_back_blank(patient: Cluster) -> None:
    """The guard and the hand-off together: what Redis's own detection would take a node timeout for is done at once."""
    keys = patient.write_keys()
    patient.await_copies()
    master, replica = rested(patient)
    await_sample(patient, master)
    pid = patient.pid(master)
    shutil.rmtree(patient.path / "units" / master / "data" / "appendonlydir")
    kill(pid)
    patient.await_restart(master, pid)
    assert replica in patient.masters()
    patient.up()
    patient.await_health(60)
    assert patient.read_keys(keys) == keys


def stopped_under_load(cluster: Cluster, node: str) -> None:
    """Tell the node's keeper to stop, as the shutdown of a host does: no client may see an error, nor may readers."""
    keeper = cluster.keeper_pid(node)
    with Load(cluster.url(), reader_url=cluster.url("reader"), writers=4, readers=4) as load:
        load.await_writes(200)
        os.kill(keeper, signal.SIGTERM)
        until(lambda: cluster.state(node)["state"] == "stopped", f"{node} stopped")
        load.await_writes(400)
    load.stop().check()


def test_a_master_whose_keeper_is_told_to_stop_hands_over_without_an_error(quick: Cluster) -> None:
    master, replica = rested(quick)
    before = handed_off(quick, master)
    stopped_under_load(quick, master)
    assert handed_off(quick, master) == before + 1
    assert replica in quick.masters()
    quick.up()
    quick.await_health(60)


def test_a_replica_whose_keeper_is_told_to_stop_is_read_no_more(quick: Cluster) -> None:
    _, replica = rested(quick)
    users = (quick.path / "units" / replica / "users.acl").read_text()
    stopped_under_load(quick, replica)
    assert (quick.path / "units" / replica / "users.acl").read_text() == users
    quick.up()
    quick.await_health(60)


def test_a_cluster_that_is_older_than_the_hand_off_gets_its_user_and_a_rolling_restart(quick: Cluster) -> None:
    keys = quick.write_keys()
    path = quick.path / "secrets.env"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "HANDOFF" not in line))
    phases = quick.up()
    assert phases
    assert "REDIS_HANDOFF_PASS" in path.read_text()
    quick.await_health()
    assert quick.read_keys(keys) == keys
    master, _ = quick.pair()
    await_sample(quick, master)
    assert Path(quick.path, "handoff.py").exists()


def test_a_master_that_hangs_is_left_to_redis(quick: Cluster) -> None:
    """It holds its port and may wake up: two masters would be worse than waiting."""
    cluster = quick
    master, replica = cluster.pair()
    said = log(cluster, master)
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
    assert "hand" not in log(cluster, master, after=said)
    assert cluster.pid(master) == pid
    cluster.await_health()


def test_a_lost_host_is_left_to_redis(quick: Cluster) -> None:
    """A master and a replica of another shard are gone with their keepers, as all of a host would be."""
    cluster = quick
    nodes = cluster.nodes()
    master, replica = cluster.pair()
    here = {master, next(n for n, node in nodes.items() if node["role"] == "replica" and n != replica)}
    with Load(cluster.url(), writers=4, readers=2, timeout_s=1.0) as load:
        load.await_writes(200)
        kill(*(cluster.keeper_pid(unit) for unit in here))
        kill(*(cluster.pid(unit) for unit in here))

        def has_new_masters() -> bool:
            seen = cluster.status()
            return len(masters_in(nodes_in(seen)).keys() - here) == 3 and seen["cluster"]["slots_ok"] == SLOT_COUNT

        until(has_new_masters, "new masters", 20)
        load.await_writes(400)
    report = load.stop()
    report.check_nothing_lost()
    timeout_s = cluster.options["node_timeout_ms"] / 1000
    assert report.error_window_s < timeout_s + 1.0 + 3 * SLACK_S, str(report)
    cluster.up()
    cluster.await_health()
    assert cluster.finds_nothing_to_do()


def test_of_two_replicas_one_takes_over_and_the_other_follows(quick: Cluster) -> None:
    cluster = quick
    cluster.declare(replicas=2)
    cluster.up()
    cluster.await_health()
    keys = cluster.write_keys()
    cluster.await_copies()
    master, _ = rested(cluster)
    shard = {name for name, node in cluster.nodes().items() if node["shard"] == cluster.nodes()[master]["shard"]}
    before = handed_off(cluster, master)
    await_sample(cluster, master)
    pid = cluster.pid(master)
    kill(pid)
    cluster.await_restart(master, pid)
    cluster.await_health(60)
    assert handed_off(cluster, master) == before + 1
    assert len(shard & cluster.masters().keys() - {master}) == 1
    assert len(cluster.masters()) == 3
    assert cluster.read_keys(keys) == keys
