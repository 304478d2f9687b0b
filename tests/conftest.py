"""What holds for all tests; an engine of Docker, and the test bed of many hosts, for those that ask for them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from hypothesis import settings

import docker_bed
from docker_bed import DockerBed, UnavailableError
from testbed import hosts

# A deadline for an example would be a timed test: it fails on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

HOST_COUNT = 6
_ON_HOSTS = {"docker", "bed"}
"""Fixtures that all their tests share, in whatever file: two would be two engines of Docker, or twelve hosts."""


@pytest.hookimpl(tryfirst=True)  # xdist looks at the groups in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests one process runs, where several do (make test): those of a file, and those on hosts, which are
    the longest way and go first; what is over within seconds goes last, and evens out the rest."""
    for item in items:
        group = "hosts" if _on_hosts(item) else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: (not _on_hosts(item), "unit" in item.path.parts))


def _on_hosts(item: pytest.Item) -> bool:
    return not _ON_HOSTS.isdisjoint(getattr(item, "fixturenames", ()))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerBed]:
    """This machine's engine of Docker, with a base image."""
    try:
        with docker_bed.running() as engine:
            engine.base_image()
            yield engine
    except UnavailableError as error:
        pytest.skip(f"no engine of Docker for tests: {error}")


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Bed]:
    """Six hosts in three zones, each with sshd and an engine of Docker. A test that breaks one mends it."""
    signal.signal(signal.SIGTERM, _interrupt)  # else they would be left
    try:
        with hosts.running(tmp_path_factory.mktemp("bed"), host_count=HOST_COUNT) as made:
            yield made
    except UnavailableError as error:
        pytest.skip(f"no hosts for tests: {error}")
