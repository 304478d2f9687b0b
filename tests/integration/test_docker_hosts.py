"""The production system from one end to the other: images, three hosts with Docker over SSH, a cluster in containers.

`tests/run-integration` runs this file alone. The tests are one story about one cluster, in the order in which they
stand here; each leaves the cluster healthy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from docker_fleet import DockerFleet

from testbed.hosts import DATA_FOLDER, Bed
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

HEAL_S = 60.0


@pytest.fixture(scope="module")
def fleet(docker_hosts: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerFleet]:
    made = DockerFleet(docker_hosts, tmp_path_factory.mktemp("docker") / "operator")
    try:
        up = made.cluster.run("up", "--json")
        assert up.status == 0, str(up)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def keys(fleet: DockerFleet) -> dict[str, str]:
    """Keys that were acknowledged, and that every test must find again."""
    return fleet.cluster.write_keys()


def assert_whole(fleet: DockerFleet, keys: dict[str, str]) -> None:
    """Healthy once the masters are spread over the zones again, and nothing is lost."""
    until(lambda: fleet.cluster.run("rebalance", "--roles").status == 0, "masters are spread over the zones", HEAL_S)
    fleet.cluster.await_health(HEAL_S)
    assert fleet.cluster.read_keys(keys) == keys


def test_three_masters_three_replicas_and_an_envoy_run_in_containers(fleet: DockerFleet, keys: dict[str, str]) -> None:
    assert sorted(fleet.all_containers()) == ["envoy-1", *(f"redis-{number}" for number in range(1, 7))]
    assert fleet.cluster.up() == [], "a second `up` has nothing to do"
    zones = {node["shard"]: set[str]() for node in fleet.cluster.nodes().values()}
    for node in fleet.cluster.nodes().values():
        zones[node["shard"]].add(node["host"])
    assert all(len(hosts) == 2 for hosts in zones.values()), "no shard has both of its nodes in one zone"
    assert_whole(fleet, keys)


def test_containers_have_no_rights_and_nothing_to_write_on(fleet: DockerFleet) -> None:
    for host in fleet.hosts.values():
        for unit, container in fleet.containers(host).items():
            settings = fleet.inspect(host, container)["HostConfig"]
            assert settings["ReadonlyRootfs"], unit
            assert settings["CapDrop"] == ["ALL"], unit
            assert not settings["Privileged"], unit
            assert "no-new-privileges" in str(settings["SecurityOpt"]), unit
            user = host.run("docker", "exec", container, "id", "-u")
            assert user != "0", unit
            refused = host.run("docker", "exec", container, "touch", "/etc/written", check=False)
            assert refused == "", unit


def test_docker_calls_every_container_healthy(fleet: DockerFleet) -> None:
    for host in fleet.hosts.values():
        for unit, container in fleet.containers(host).items():

            def health(host: object = host, container: str = container) -> str:
                return fleet.inspect(host, container)["State"].get("Health", {}).get("Status", "")  # type: ignore[arg-type]

            until(lambda health=health: health() == "healthy", f"{unit} is healthy", HEAL_S)


def test_a_shard_comes_and_goes(fleet: DockerFleet, keys: dict[str, str]) -> None:
    grown = fleet.cluster.run("scale", "--shards", "4", "--yes", "--json")
    assert grown.status == 0, str(grown)
    assert len(fleet.cluster.masters()) == 4
    assert len(fleet.all_containers()) == 9
    assert_whole(fleet, keys)
    shrunk = fleet.cluster.run("scale", "--shards", "3", "--yes", "--json")
    assert shrunk.status == 0, str(shrunk)
    assert len(fleet.cluster.masters()) == 3
    assert len(fleet.all_containers()) == 7
    assert_whole(fleet, keys)


def test_a_master_hands_over(fleet: DockerFleet, keys: dict[str, str]) -> None:
    master, replica = fleet.cluster.pair()
    done = fleet.cluster.run("failover", master, "--yes", "--json")
    assert done.status == 0, str(done)
    assert replica in fleet.cluster.masters()
    assert_whole(fleet, keys)


def test_a_process_that_dies_in_its_container_is_replaced_and_comes_back(
    fleet: DockerFleet, keys: dict[str, str]
) -> None:
    nodes = fleet.cluster.nodes()
    masters = [name for name, node in nodes.items() if node["role"] == "master"]
    master = max(masters, key=lambda name: nodes[name]["shard"])  # not the shard that has just had an election
    replica = fleet.cluster.pair_of(master)
    host = fleet.host_of(master)
    before = fleet.containers(host)
    state = json.loads(host.run("cat", f"{DATA_FOLDER}/clusters/main/units/{master}/state.json"))
    host.run("docker", "exec", before[master], "sh", "-c", f"kill -9 {state['pid']}")
    until(lambda: replica in fleet.cluster.masters(), f"{replica} has taken over", HEAL_S)
    assert_whole(fleet, keys)
    assert fleet.containers(host) == before, "the keeper starts the process again, in the same container"


def test_a_container_that_was_removed_by_hand_is_made_again(fleet: DockerFleet, keys: dict[str, str]) -> None:
    _, replica = fleet.cluster.pair()
    before = fleet.all_containers()
    host = fleet.host_of(replica)
    host.run("docker", "rm", "--force", before[replica])
    fleet.cluster.up()
    after = fleet.all_containers()
    assert {name for name, found in after.items() if before[name] != found} == {replica}
    assert_whole(fleet, keys)


def test_everything_is_stopped_and_started_with_its_data(fleet: DockerFleet, keys: dict[str, str]) -> None:
    down = fleet.cluster.run("down")
    assert down.status == 0, str(down)
    assert fleet.all_containers() == {}
    up = fleet.cluster.run("up", "--json")
    assert up.status == 0, str(up)
    assert_whole(fleet, keys)


def test_a_zone_that_is_cut_off_costs_nothing_and_heals(fleet: DockerFleet, keys: dict[str, str]) -> None:
    cut = fleet.hosts["h3"]
    lost = {name for name in fleet.cluster.masters() if fleet.host_of(name) is cut}
    assert lost, "roles are even over the zones, so each has a master"
    replicas = {fleet.cluster.pair_of(name) for name in lost}
    fleet.cluster.await_copies()
    cut.cut_off()
    try:
        until(lambda: replicas <= fleet.cluster.masters().keys(), "the replicas of the lost zone took over", HEAL_S)
        until(lambda: fleet.cluster.read_keys(keys) == keys, "all keys are served again", HEAL_S)
    finally:
        cut.reconnect()
    assert_whole(fleet, keys)


def test_a_host_that_lost_its_power_comes_back_by_itself(fleet: DockerFleet, keys: dict[str, str]) -> None:
    fleet.cluster.await_copies()
    host = fleet.hosts["h2"]
    names = set(fleet.containers(host))
    host.power_off()
    host.power_on()
    until(lambda: set(fleet.containers(host)) == names, "its containers run again", HEAL_S)
    assert_whole(fleet, keys)


def test_nothing_is_left_when_it_is_taken_down(fleet: DockerFleet) -> None:
    down = fleet.cluster.run("down", "--purge", "--yes")
    assert down.status == 0, str(down)
    assert fleet.left_over() == []
