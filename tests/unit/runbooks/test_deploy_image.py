"""`deploy` builds an image last: not for ports that are taken, or kept for root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from test_preflight_ports import HIGH, IN_DOCKER, LAYOUT, LOW, envoy_unit, one_envoy

from redisforge.errors import HostError
from redisforge.fleet.fake import FakeRuntime
from redisforge.model.image_report import DockerFacts
from redisforge.model.images import ImageFacts, envoy_image
from redisforge.model.topology import Credentials
from redisforge.model.unit import Container
from redisforge.runbooks import deploy_image, preflight_ports
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.deploy_image import need_image
from redisforge.runbooks.deploy_input import Wanted

OURS = envoy_image("1.40.0")
WANTED = Wanted(role="envoy", folder=Path("/nowhere"), runtime="docker")
EMPTY = DockerFacts(version="26.1.5", platform="linux/amd64", root="/var/lib/docker", free_bytes=0, takes_parts=True)
IMAGE = ImageFacts(id="sha256:1", names=(OURS,), size_bytes=1, created_at="", architecture="amd64")


class _Machine:
    """A machine with Docker; `taken` ports are somebody's, those below 1024 root's. What is built is remembered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.docker, self.taken, self.built = EMPTY, frozenset[int](), list[str]()
        monkeypatch.setattr(deploy_image, "look_at_docker", self._look)
        monkeypatch.setattr(deploy_image, "build_images", self._build)
        monkeypatch.setattr(preflight_ports, "bind_problem", self._bind_problem)
        monkeypatch.setattr(preflight_ports, "unprivileged_from", lambda: 1024)

    async def _look(self, _: object) -> DockerFacts:
        return self.docker

    def _build(self, orders: tuple[Any, ...], *_: object) -> None:
        self.built += [f"{order.program} {order.version}" for order in orders]

    def _bind_problem(self, _: str, port: int) -> str:
        return "in use by process 7" if port in self.taken else ""

    def need(self, port: int, image: str = OURS) -> None:
        topology = one_envoy(IN_DOCKER, port)
        unit = replace(envoy_unit(topology)["envoy-1"], container=Container(image, ()))
        cluster = Cluster(topology, LAYOUT, Credentials({}), {}, FakeRuntime())
        need_image(WANTED, cluster, unit, {}, lambda _: None)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> _Machine:
    return _Machine(monkeypatch)


def test_a_missing_image_is_built_when_the_ports_are_free(machine: _Machine) -> None:
    machine.need(HIGH + 1)
    assert machine.built == ["envoy 1.40.0"]


@pytest.mark.parametrize(("port", "words"), [(LOW, "kept for root"), (HIGH + 1, "not free")])
def test_nothing_is_built_for_ports_that_cannot_be_had(machine: _Machine, port: int, words: str) -> None:
    machine.taken = frozenset({HIGH + 1})
    with pytest.raises(HostError, match=words):
        machine.need(port)
    assert machine.built == []


def test_what_is_here_or_is_not_ours_is_not_built(machine: _Machine) -> None:
    machine.need(HIGH + 1, "envoyproxy/envoy:v1.40.0")
    machine.need(HIGH + 1, f"{OURS}@sha256:{'a' * 64}")
    machine.docker = replace(EMPTY, images=(IMAGE,))
    machine.need(HIGH + 1)
    assert machine.built == []
