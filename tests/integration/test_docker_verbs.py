"""An upgrade to another image, on containers over several hosts, under load. All other verbs: test_bed_docker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker_fleet import DockerFleet, pushed_images
from load import Load

from testbed.hosts import Bed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

OLD, NEW = "8.0", "8.6"
HEAL_S = 60.0


@pytest.fixture(scope="module")
def fleet(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerFleet]:
    made = DockerFleet(bed, tmp_path_factory.mktemp("verbs") / "operator", engine={"version": OLD})
    try:
        with pushed_images(bed, made, OLD, NEW):
            up = made.cluster.run("up", "--json")
            assert up.status == 0, str(up)
            yield made
    finally:
        made.close()


def carried_out(fleet: DockerFleet, *words: str) -> list[str]:
    """A verb under load, which nobody may notice; returns the titles of its phases."""
    with Load(fleet.cluster.url("primary"), reader_url=fleet.cluster.url("reader")) as load:
        done = fleet.cluster.run(*words, "--json")
        assert done.status == 0, str(done)
    load.stop().check()
    fleet.cluster.await_health(HEAL_S)
    return [title for title, _ in done.json()["phases"]]


def images(fleet: DockerFleet) -> dict[str, str]:
    """The image that each Unit's container was made from."""
    return {
        unit: fleet.inspect(host, container)["Config"]["Image"]
        for host in fleet.hosts.values()
        for unit, container in fleet.containers(host).items()
    }


def test_another_version_of_the_engine_is_another_image(fleet: DockerFleet) -> None:
    assert {image.rpartition(".")[0] for unit, image in images(fleet).items() if unit != "envoy-1"} == {
        f"redisforge/redis:{OLD}"
    }
    assert carried_out(fleet, "upgrade", "--redis", NEW, "--yes")
    assert {image.rpartition(".")[0] for unit, image in images(fleet).items() if unit != "envoy-1"} == {
        f"redisforge/redis:{NEW}"
    }
