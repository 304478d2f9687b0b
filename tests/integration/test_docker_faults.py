"""What is wrong with a host's Docker, and an `up` that is killed: which host, what, the cure; and on from there."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator

import pytest
from docker_fleet import DockerFleet

from testbed.hosts import Bed
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

HOST_ERROR = 7
CUT_COUNT = 4
HEAL_S = 60.0


@pytest.fixture(scope="module")
def fleet(docker_hosts: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerFleet]:
    made = DockerFleet(docker_hosts, tmp_path_factory.mktemp("faults") / "operator")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def from_nothing(fleet: DockerFleet) -> Iterator[None]:
    """Every test begins without a cluster, and ends without one."""
    yield
    down = fleet.cluster.run("down", "--purge", "--yes")
    assert down.status in (0, 14), str(down)  # 14: it never came up
    assert fleet.left_over() == []


def test_an_image_that_a_host_lacks_is_named_and_pushed(fleet: DockerFleet, images: tuple[str, ...]) -> None:
    host = fleet.hosts["h2"]
    name = next(name for name in images if name.startswith("redisforge/redis:"))
    host.run("docker", "rmi", name)
    said = fleet.cluster.run("up", "--json")
    assert fleet.left_over() == []  # nor on the hosts that have it
    pushed = fleet.cluster.run("images", "push", "--json")
    assert said.status == HOST_ERROR, str(said)
    assert f"an image is missing: {name}" in said.stderr
    assert "h2" in said.stderr
    assert "redisforge images push" in said.stderr
    verdicts = {(result["host"], result["name"]): result["verdict"] for result in pushed.json()["results"]}
    assert [key for key, verdict in verdicts.items() if verdict == "sent"] == [("h2", name)]
    fleet.cluster.up()
    fleet.cluster.await_health(HEAL_S)
    host.run("docker", "tag", name, "kept:1")
    host.run("docker", "rmi", name)
    planned = fleet.cluster.run("scale", "--replicas", "2", "--dry-run")
    host.run("docker", "tag", "kept:1", name)
    host.run("docker", "rmi", "kept:1")
    assert planned.status == HOST_ERROR, str(planned)
    assert f"an image is missing: {name}" in planned.stderr
    assert fleet.cluster.run("scale", "--replicas", "2", "--dry-run").status == 0


def test_a_container_of_somebody_else_with_our_name_is_left_alone(fleet: DockerFleet, images: tuple[str, ...]) -> None:
    host = fleet.hosts["h1"]
    stranger = host.run("docker", "create", "--name", "redisforge-main-redis-1", images[0])
    said = fleet.cluster.run("up", "--json")
    there = host.run("docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", f"id={stranger}")
    assert fleet.left_over() == ["h1: redisforge-main-redis-1"]
    host.run("docker", "rm", stranger)
    assert said.status == HOST_ERROR, str(said)
    assert "there is a container redisforge-main-redis-1 that is not of this cluster" in said.stderr
    assert "h1" in said.stderr
    assert there == stranger
    fleet.cluster.up()
    fleet.cluster.await_health(HEAL_S)


def test_an_engine_that_stops_is_named_and_its_nodes_come_back(fleet: DockerFleet) -> None:
    cluster = fleet.cluster
    cluster.up()
    keys = cluster.write_keys()
    cluster.await_copies()
    host = fleet.hosts["h3"]
    lost = {name for name in cluster.masters() if fleet.host_of(name) is host}
    host.stop_engine()
    try:
        until(lambda: not lost & cluster.masters().keys(), "other zones have taken over", HEAL_S)
        said = cluster.run("up", "--json")
    finally:
        host.start_engine()
    assert said.status != 0
    assert "h3" in said.stderr
    assert "Cannot connect to the Docker daemon" in said.stderr
    cluster.up()
    until(lambda: cluster.run("rebalance", "--roles").status == 0, "masters are spread again", HEAL_S)
    cluster.await_health(HEAL_S)
    assert cluster.read_keys(keys) == keys


def test_an_up_that_is_killed_anywhere_is_finished_by_the_next(fleet: DockerFleet) -> None:
    chosen = random.Random(20261124)
    for _ in range(CUT_COUNT):
        running = fleet.cluster.start("up", "--json")
        try:
            running.communicate(timeout=chosen.uniform(0.3, 7.0))
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.communicate()
    fleet.cluster.up()
    assert len(fleet.all_containers()) == 7
    fleet.cluster.await_health(HEAL_S)
    assert fleet.cluster.up() == []
