"""`docker.pull: true`: a host fetches its images from a registry; one of them is pinned by its digest.

The registry is a stand-in on this machine (image_registry.py); Docker, and what it pulls, are real. The tests are one
story about one cluster, in the order in which they stand here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_tool import NODE_NAMES, Cluster

from docker_bed import DockerBed
from image_registry import Registry, registry_in
from official_images import ENVOY_IMAGE, REDIS_IMAGE, build_official, remove_official
from redisforge.render.container import FOLDER_LABEL, UNIT_LABEL

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

REDIS, ENVOY = "official/redis:1", "official/envoy:1"
HOST_ERROR = 7


class Pulled:
    """A cluster whose images are in a registry alone."""

    def __init__(self, docker: DockerBed, registry: Registry, folder: Path) -> None:
        self.docker, self.registry = docker, registry
        version = build_official(docker)
        try:
            registry.add(docker, REDIS_IMAGE, REDIS)
            digest = registry.add(docker, ENVOY_IMAGE, ENVOY)
        finally:
            remove_official(docker)
        self.redis = f"{registry.address}/{REDIS}"
        self.envoy = f"{registry.address}/{ENVOY.partition(':')[0]}@{digest}"
        self.cluster = Cluster(folder, name="pulled", engine={"version": version}, **self.declared())

    def declared(self, **docker: object) -> dict[str, Any]:
        return {
            "placement": {"allow_shared_hosts": True},
            "hosts": [{"name": "here", "address": "127.0.0.1", "ssh": False, "runtime": "docker"}],
            "docker": {"redis_image": self.redis, "envoy_image": self.envoy, "pull": True, **docker},
        }

    def images(self) -> dict[str, str]:
        """Of every container of the cluster, running or not, by Unit."""
        mark = f"label={FOLDER_LABEL}={self.cluster.path / 'docker'}"
        shown = f'{{{{.Label "{UNIT_LABEL}"}}}} {{{{.Image}}}}'
        listed = self.docker.docker("ps", "--all", "--no-trunc", "--filter", mark, "--format", shown)
        return dict(line.split() for line in listed.splitlines())

    def close(self) -> None:
        self.cluster.close()
        self.docker.docker("rmi", self.redis, self.envoy, check=False)
        assert self.images() == {}


@pytest.fixture(scope="module")
def pulled(docker: DockerBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulled]:
    folder = tmp_path_factory.mktemp("pulled")
    with registry_in(folder / "registry") as registry:
        made = Pulled(docker, registry, folder / "operator")
        try:
            yield made
        finally:
            made.close()


def test_what_the_registry_does_not_have_is_named_and_nothing_starts(pulled: Pulled) -> None:
    pulled.cluster.declare(**pulled.declared(redis_image=f"{pulled.registry.address}/official/redis:77"))
    done = pulled.cluster.run("up")
    assert done.status == HOST_ERROR, str(done)
    for words in (f"an image is missing: {pulled.registry.address}/official/redis:77", "here", "manifest unknown"):
        assert words in done.stderr, str(done)
    assert "next:" in done.stderr
    assert pulled.images() == {}


def test_a_cluster_is_raised_with_what_is_pulled(pulled: Pulled) -> None:
    pulled.cluster.declare(**pulled.declared())
    pulled.registry.asked.clear()
    pulled.cluster.up()
    assert pulled.cluster.is_healthy()
    assert pulled.images() == {"envoy-1": pulled.envoy, **dict.fromkeys(NODE_NAMES, pulled.redis)}
    digests = {path.rpartition("/")[2] for path in pulled.registry.asked if "/blobs/" in path}
    assert len(digests) >= 4, "a configuration and a layer of each, at the least"


def test_what_is_there_is_not_asked_for_again(pulled: Pulled) -> None:
    """So a registry that is away keeps nobody from a restart."""
    pulled.registry.asked.clear()
    assert pulled.cluster.up() == []
    assert pulled.registry.asked == []
    pulled.registry.stop()
    try:
        keys = pulled.cluster.write_keys()
        done = pulled.cluster.run("restart", "redis-1")
        assert done.status == 0, str(done)
        assert pulled.cluster.read_keys(keys) == keys
    finally:
        pulled.registry.start()
