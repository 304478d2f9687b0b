"""Clusters for the integration tests, and what a failing one of them has to say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from bed_cluster import images_on_all_hosts
from cluster_tool import Cluster, living

from testbed.hosts import Bed

MakeCluster = Callable[..., Cluster]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the state and the logs of every living cluster to the report of a failed test."""
    report = yield
    if report.when == "call" and report.failed and "integration" in item.keywords:
        fixtures: list[object] = list(getattr(item, "funcargs", {}).values())
        folder = next((value for value in fixtures if isinstance(value, Path)), None)
        for cluster in living:
            if cluster not in fixtures and not (folder and cluster.folder.is_relative_to(folder)):
                continue
            report.sections.append((f"cluster {cluster.name} in {cluster.folder}", cluster.story()))
    return report


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Declare clusters of this test alone: `make_cluster(name=…, **options)`; they are taken down at its end."""
    with contextlib.ExitStack() as stack:

        def make(name: str = "main", *, home: Path | None = None, **options: Any) -> Cluster:
            cluster = Cluster(tmp_path / name, name=name, home=home, **options)
            stack.callback(cluster.close)
            return cluster

        yield make


@pytest.fixture
def fresh(make_cluster: MakeCluster) -> Cluster:
    """A cluster that is up and may be broken."""
    cluster = make_cluster()
    cluster.up()
    return cluster


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that is up, for tests that only look at it; `transcript[0]` is what its first `up` printed."""
    cluster = Cluster(tmp_path_factory.mktemp("shared"))
    try:
        assert cluster.run("up").status == 0, str(cluster.transcript[0])
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def images(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The names of RedisForge's images, which were built here and are in the Docker of each host of the bed."""
    with images_on_all_hosts(bed, tmp_path_factory.mktemp("images")) as names:
        yield names


@pytest.fixture(scope="session")
def docker_hosts(bed: Bed, images: tuple[str, ...]) -> Bed:
    """The hosts of the bed, with RedisForge's images in the Docker of each."""
    assert images
    return bed
