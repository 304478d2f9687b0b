"""Which images are pushed when none is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace

from redisforge.config.load import load
from redisforge.errors import NotFoundError
from redisforge.model.image_report import DockerFacts
from redisforge.model.images import PROGRAM_LABEL, VERSION_LABEL, ImageFacts
from redisforge.model.topology import Topology
from redisforge.runbooks.hosts import declared_fleet
from redisforge.runbooks.images import Sent, docker_hosts, wanted_images

HERE = DockerFacts(version="26.1.5", platform="linux/amd64", root="/var/lib/docker", free_bytes=0, takes_parts=True)


def made(program: str, version: str) -> ImageFacts:
    return ImageFacts(
        id=f"sha256:{program}{version}", names=(f"redisforge/{program}:{version}",), size_bytes=1, created_at="",
        architecture="amd64", labels={PROGRAM_LABEL: program, VERSION_LABEL: version},
    )  # fmt: skip


def topology(folder: Path, **options: object) -> Topology:
    (folder / "redisforge.yaml").write_text(yaml.safe_dump(options))
    return load(None, {}, folder).topology


def names(here: DockerFacts, declared: Topology, *wanted: str) -> list[str]:
    return [name for name, _ in wanted_images(here, wanted, declared)]


def test_the_newest_that_the_declaration_allows_is_taken(tmp_path: Path) -> None:
    images = [made("redis", version) for version in ("8.6.3", "8.6.10", "8.0.6", "9.0.1")]
    here = replace(HERE, images=(*images, made("valkey", "9.1.2"), made("envoy", "1.40.0")))
    engine = {"kind": "redis", "version": "8.6"}
    assert names(here, topology(tmp_path, engine=engine)) == ["redisforge/redis:8.6.10", "redisforge/envoy:1.40.0"]


def test_a_declared_image_is_taken_by_its_name(tmp_path: Path) -> None:
    other = replace(made("redis", "8.6.3"), names=("redis:8.6",), labels={})
    here = replace(HERE, images=(made("redis", "8.6.3"), other, made("envoy", "1.40.0")))
    declared = topology(tmp_path, docker={"redis_image": "redis:8.6"})
    assert names(here, declared) == ["redis:8.6", "redisforge/envoy:1.40.0"]


def test_what_was_not_built_says_how(tmp_path: Path) -> None:
    here = replace(HERE, images=(made("redis", "7.0.15"),))
    with pytest.raises(NotFoundError, match="no image of redis") as caught:
        names(here, topology(tmp_path, engine={"version": "8.6"}))
    assert "redisforge/redis:7.0.15" in caught.value.why
    assert caught.value.next_step == "redisforge images build redis"


def test_named_images_are_found_with_the_tag_that_docker_adds(tmp_path: Path) -> None:
    here = replace(HERE, images=(replace(made("redis", "1"), names=("registry:5000/redis:latest",)),))
    assert names(here, topology(tmp_path), "registry:5000/redis") == ["registry:5000/redis"]
    with pytest.raises(NotFoundError):
        names(here, topology(tmp_path), "redis")


def test_an_image_is_found_by_the_digest_that_pins_it(tmp_path: Path) -> None:
    pinned = f"redis@sha256:{'a' * 64}"
    other = replace(made("redis", "8.6.3"), names=(), digests=(pinned,), labels={})
    here = replace(HERE, images=(made("envoy", "1.40.0"), other))
    declared = topology(tmp_path, docker={"redis_image": pinned})
    assert names(here, declared) == [pinned, "redisforge/envoy:1.40.0"]
    assert names(here, declared, f"docker.io/library/{pinned}") == [f"docker.io/library/{pinned}"]


def test_only_hosts_that_run_containers_are_asked(tmp_path: Path) -> None:
    hosts = [
        {"name": "h1", "address": "10.0.0.1", "runtime": "docker"},
        {"name": "h2", "address": "10.0.0.2"},
        {"name": "h3", "address": "10.0.0.3", "ssh": False, "runtime": "docker"},
    ]
    (tmp_path / "redisforge.yaml").write_text(yaml.safe_dump({"hosts": hosts}))
    fleet = declared_fleet(None, (), {"REDISFORGE_HOME": str(tmp_path)}, tmp_path)
    assert docker_hosts(fleet) == ["h1"]


def test_when_all_is_sent_it_is_said_once_that_the_hosts_load_it() -> None:
    sent = Sent()
    sent.total_bytes = 40_000_000
    assert sent.line(1.0) == "", "nothing has begun"
    sent.count(10_000_000)
    assert sent.line(2.0) == "sent 10 of 40 MB, 5.0 MB/s, 6 s left"
    sent.count(30_000_000)
    assert [sent.line(second) for second in (4.0, 5.0, 6.0)] == ["sent 40 MB; the hosts load the images…", "", ""]
    sent.total_bytes += 40_000_000  # the next host's turn
    sent.count(20_000_000)
    assert sent.line(8.0) == "sent 60 of 80 MB, 7.5 MB/s, 3 s left"
    sent.count(20_000_000)
    assert [sent.line(second) for second in (9.0, 10.0)] == ["sent 80 MB; the hosts load the images…", ""]
