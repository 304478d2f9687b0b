"""`redisforge deploy --runtime docker`: a node in a container, whose image is built where it is missing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from env_hosts import ADDRESSES, Hosts

from docker_bed import DockerBed
from redisforge.render.container import UNIT_LABEL

pytestmark = pytest.mark.integration

REPOSITORY = "redisforge/redis"
KEPT = "redisforge-test/kept"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    made.close()


def names_of(engine: DockerBed, repository: str) -> list[str]:
    listed = engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={repository}")
    return listed.split()


def what_it_may_make(engine: DockerBed, node: str) -> tuple[list[str], str]:
    """The names of images and the containers that `deploy` could have made. Others use the same engine meanwhile."""
    return names_of(engine, REPOSITORY), engine.docker("ps", "--all", "--quiet", "--filter", node)


@contextlib.contextmanager
def without_images(engine: DockerBed) -> Generator[None]:
    """No image of a node has its name meanwhile; what got one is removed, and each gets its own back."""
    kept = {f"{KEPT}:{number}": name for number, name in enumerate(names_of(engine, REPOSITORY))}
    for alias, name in kept.items():
        engine.docker("tag", name, alias)
        engine.docker("rmi", name)
    try:
        yield
    finally:
        for name in names_of(engine, REPOSITORY):
            engine.docker("rmi", name)
        for alias, name in kept.items():
            engine.docker("tag", alias, name)
            engine.docker("rmi", alias)


def test_a_missing_image_is_built_and_the_node_runs_in_it(hosts: Hosts, docker: DockerBed) -> None:
    hosts.certify()
    host, node = ADDRESSES[0], f"label={UNIT_LABEL}=redis-{hosts.port}"
    words = ("deploy", "redis", "--runtime", "docker", "--base", docker.base_image())
    with without_images(docker):
        try:
            before = what_it_may_make(docker, node)
            plan = hosts.done(host, *words, "--dry-run", "--json").json()
            assert what_it_may_make(docker, node) == before == ([], "")
            assert not hosts.home(host).exists()
            with socket.create_server((host, hosts.port)):
                refused = hosts.run(host, *words)
            assert what_it_may_make(docker, node) == ([], ""), "no minutes of building for a port that is taken"
            first = hosts.done(host, *words, "--json")
            size_bytes = int(docker.docker("image", "inspect", "--format", "{{.Size}}", plan["image"]["name"]))
            idle = hosts.done(host, *words, "--dry-run", "--json").json()
            again = hosts.done(host, *words, "--json")
            seen = docker.docker("ps", "--format", "{{.Image}} {{.State}}", "--filter", node)
        finally:
            hosts.done(host, "down", "--purge", "--yes", "--cluster", "shop")
        left = docker.docker("ps", "--all", "--quiet", "--filter", node)

    assert (refused.status, "ports are not free" in refused.stderr) == (7, True), str(refused)
    assert "building" not in refused.stderr
    report = first.json()
    image = f"{REPOSITORY}:{report['version']}"
    assert (plan["outcome"], idle["outcome"]) == ("started", "runs already")
    assert (plan["image"]["action"], plan["image"]["name"]) == ("build", image)
    assert 0.7 < plan["image"]["about_bytes"] / size_bytes < 1.3
    assert (idle["image"]["action"], idle["phases"]) == ("nothing", [])
    assert (report["done"], again.json()["done"]) == ("started", "runs already")
    assert seen == f"{image} running"
    assert f"built {image} in " in first.stderr
    assert "built" not in again.stderr
    assert left == ""


def test_a_port_that_a_container_may_not_have_is_named(hosts: Hosts, docker: DockerBed) -> None:
    hosts.certify()
    here = ADDRESSES[0]
    hosts.write(here, REDIS_PORT="443", REDIS_CLUSTER_ANNOUNCE_PORT="443")
    said = hosts.run(here, "deploy", "redis", "--runtime", "docker", "--base", docker.base_image(), "--dry-run")
    assert said.status == 7, str(said)
    assert f"redis-443 needs {here}:443: ports below 1024 are root's there" in said.stderr
    assert "a container on its host's network is not root" in said.stderr
    assert not hosts.home(here).exists()
