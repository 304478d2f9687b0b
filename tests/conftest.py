"""What holds for all tests; an engine of Docker, and the test bed of many hosts, for those that ask for them."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import NodeManager

import docker_bed
from docker_bed import DockerBed, UnavailableError
from testbed import hosts

# A deadline for an example would be a timed test: it fails on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

HOST_COUNT = 6
_ON_HOSTS = re.compile(r"test_((bed|docker|images)_.*|testbed|runtimes)\.py")
"""Files whose tests share one engine of Docker, or the hosts of the test bed: one process runs them all."""


NodeManager.EXIT_TIMEOUT = 120  # pyright: ignore[reportAttributeAccessIssue]
"""Seconds that an interrupted run leaves its processes to take down what they have raised."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Where several processes test (make test), each takes a file at a time."""
    return _ByFile(config, log)


class _ByFile(LoadScopeScheduling):
    """A file's tests stay together, and so do those of all files on hosts."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "hosts" if _ON_HOSTS.fullmatch(Path(path).name) else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest goes first, the tests on hosts; what is over within seconds goes last, and evens out."""
    for item in items:
        wanted = {"docker", "bed"}.intersection(getattr(item, "fixturenames", ())) - _parameters(item)
        if wanted and not _ON_HOSTS.fullmatch(item.path.name):
            raise pytest.UsageError(f"{item.nodeid} uses {wanted}: give its file a name that says so (_ON_HOSTS)")
    items.sort(key=lambda item: (not _ON_HOSTS.fullmatch(item.path.name), "unit" in item.path.parts))


def _parameters(item: pytest.Item) -> set[str]:
    return set(item.callspec.params) if isinstance(item, pytest.Function) and hasattr(item, "callspec") else set()


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
