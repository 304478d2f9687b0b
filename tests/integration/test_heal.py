"""What dies comes back: by its keeper, or by the next `up`, with the data and without a second cluster."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections.abc import Iterator

import pytest
from cluster_tool import NODE_NAMES, Cluster, is_alive, kill, raised
from verbs import after_lines, cut, journal_of, killed

from conftest import MakeCluster
from waiting import until

pytestmark = pytest.mark.integration

KILLS_IN_A_ROW = 4
CUT_LIMIT = 60
LEAST_CUTS = 4
"""Nodes start, form the cluster, replicas follow, the Envoy starts: what can be done at once is."""
HURRIED = ("introduce the nodes", "spread the slots", "announce the replicas")
"""MEETs: between nodes that know each other they are greetings, which bring news sooner."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the tests after which it is whole again by itself."""
    with raised(tmp_path_factory.mktemp("heal")) as made:
        yield made


def ids_of(cluster: Cluster) -> dict[str, str]:
    """Node ids by name, as the nodes themselves say."""
    return {name: node["id"] for name, node in cluster.nodes().items()}


def assert_one_cluster(cluster: Cluster) -> None:
    """All nodes list the same six ids, and each slot has one owner on which all agree."""
    views: set[frozenset[str]] = set()
    owners: set[tuple[str, ...]] = set()
    for name in NODE_NAMES:
        with cluster.node_client(name) as client:
            table = client.execute_command("CLUSTER NODES")
            info = client.execute_command("CLUSTER INFO")
        assert (info["cluster_known_nodes"], info["cluster_slots_assigned"], info["cluster_state"]) == (
            "6", "16384", "ok",
        )  # fmt: skip
        views.add(frozenset(entry["node_id"] for entry in table.values()))
        owners.add(tuple(sorted(f"{entry['node_id']}:{entry['slots']}" for entry in table.values() if entry["slots"])))
    assert len(views) == 1, views
    assert len(owners) == 1, owners
    assert cluster.is_healthy()


@pytest.mark.parametrize("which", ["master", "replica", "envoy"])
def test_a_killed_process_is_started_again_by_its_keeper(cluster: Cluster, which: str) -> None:
    keys = cluster.write_keys(prefix=f"kill-{which}")
    cluster.await_copies()
    unit = "envoy-1" if which == "envoy" else cluster.pair()[which == "replica"]
    old, keeper = cluster.pid(unit), cluster.keeper_pid(unit)

    kill(old)

    cluster.await_restart(unit, old)
    cluster.await_health()
    assert cluster.keeper_pid(unit) == keeper
    assert "SIGKILL" in cluster.state(unit)["last_exit"]
    assert cluster.read_keys(keys) == keys
    assert cluster.finds_nothing_to_do()


@pytest.mark.parametrize("unit", ["redis-1", "envoy-1"])
def test_a_process_without_its_keeper_is_shown_and_adopted(cluster: Cluster, unit: str) -> None:
    process, keeper = cluster.pid(unit), cluster.keeper_pid(unit)
    kill(keeper)
    assert is_alive(process)
    assert f"{unit}: runs without its keeper: nothing would restart it" in cluster.problems()
    assert cluster.run("status", "--check").status == 13

    phases = cluster.up()

    assert phases
    assert cluster.pid(unit) == process
    assert cluster.keeper_pid(unit) != keeper
    assert cluster.is_healthy()
    kill(process)  # an adopted process, too, is started again
    cluster.await_restart(unit, process)
    cluster.await_health()


def test_everything_killed_at_once_comes_back_with_the_data(cluster: Cluster) -> None:
    keys, ids = cluster.write_keys(500, prefix="all"), ids_of(cluster)
    cluster.await_copies()
    cluster.kill_everything()
    assert cluster.status()["cluster"]["state"] == "stopped"

    cluster.up()

    assert ids_of(cluster) == ids
    assert cluster.read_keys(keys) == keys
    assert_one_cluster(cluster)


@pytest.mark.parametrize("which", ["replica", "master"])
def test_the_dry_run_says_what_up_does_about_a_dead_node(cluster: Cluster, which: str) -> None:
    """Its keeper is dead too, and the replica of the master has taken over. Phases that only hurry or await gossip
    depend on the moment: they may be in one and not in the other."""
    cluster.await_copies()
    ids, dead = ids_of(cluster), cluster.pair()[which == "replica"]
    kill(cluster.keeper_pid(dead), cluster.pid(dead))
    until(lambda: len(cluster.masters()) == 3 and dead not in cluster.masters(), "3 living masters")
    for verb in ("scale", "up"):
        planned = cluster.run(verb, "--dry-run", "--json")
        assert planned.status == 0, str(planned)
        phases = [phase for phase in planned.json()["phases"] if not phase["title"].startswith("wait")]
        assert [phase["title"] for phase in phases] == ["start nodes that have data"], verb
        assert [step["unit"] for step in phases[0]["steps"]] == [dead]

    done = cluster.up()

    assert [title for title in done if title not in HURRIED and not title.startswith("wait")] == [
        phase["title"] for phase in phases
    ]
    cluster.await_health()
    assert ids_of(cluster) == ids
    assert cluster.finds_nothing_to_do()


def test_up_killed_while_it_heals_is_finished_by_the_next(cluster: Cluster) -> None:
    keys, ids = cluster.write_keys(200, prefix="healing"), ids_of(cluster)
    for _ in range(KILLS_IN_A_ROW):
        cluster.kill_everything()
        kill_up_after(cluster, random.uniform(0.3, 3.0))

    cluster.up()

    assert ids_of(cluster) == ids
    assert cluster.read_keys(keys) == keys
    assert_one_cluster(cluster)


def test_a_failover_is_no_drift(cluster: Cluster) -> None:
    master, replica = cluster.pair()
    with cluster.node_client(replica) as client:
        client.execute_command("CLUSTER FAILOVER")
    until(lambda: replica in cluster.masters(), f"{replica} is master")
    cluster.await_health()
    pids = cluster.pids()

    assert cluster.up() == []
    assert cluster.pids() == pids
    assert replica in cluster.masters()
    assert master not in cluster.masters()


def steps_of(cluster: Cluster, pid: int) -> list[str]:
    """What a verb's process has done, as its journal says."""
    return [line["what"] for line in map(json.loads, journal_of(cluster, pid)) if line["event"] == "step"]


def kill_up_after(cluster: Cluster, seconds: float) -> None:
    """Start `up` and kill its process, and only that, at a moment that no step decides."""
    with cluster.start("up") as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)


def test_a_first_up_killed_after_each_of_its_steps_goes_on_each_time(make_cluster: MakeCluster) -> None:
    """Run after run until one is through: each is killed at its first steps, which are the next of the formation."""
    cluster = make_cluster()
    killed(cluster, "up", when=after_lines(cluster, 1))
    cuts: list[str] = []
    status, errors = -signal.SIGKILL, ""
    while status == -signal.SIGKILL:
        assert len(cuts) < CUT_LIMIT, cuts
        pids: list[int] = []
        status, errors = cut(cluster, "up", when=lambda pid, pids=pids: pids.append(pid) or steps_of(cluster, pid))
        cuts.append("; ".join(steps_of(cluster, pids[-1])))

    assert status == 0, f"{errors}\n{cuts}"
    assert len(cuts) >= LEAST_CUTS, cuts
    assert_one_cluster(cluster)
    assert cluster.finds_nothing_to_do()


@pytest.mark.parametrize("line_count", [13, 30])
def test_a_first_up_killed_while_it_forms_is_finished_by_the_next(make_cluster: MakeCluster, line_count: int) -> None:
    cluster = make_cluster()
    killed(cluster, "up", when=after_lines(cluster, line_count))

    cluster.up()

    assert_one_cluster(cluster)
    assert cluster.up() == []


def test_a_first_up_killed_again_and_again_ends_in_one_cluster(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    for _ in range(KILLS_IN_A_ROW):
        kill_up_after(cluster, random.uniform(0.2, 3.0))

    cluster.up()

    assert_one_cluster(cluster)
    assert cluster.finds_nothing_to_do()
