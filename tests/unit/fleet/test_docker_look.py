"""What the Docker client says, and what its complaints mean."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from redisforge.cli.images import list_text
from redisforge.errors import HostError
from redisforge.fleet.docker import NOT_PULLED, missing_images
from redisforge.fleet.docker_look import docker_problem, look_at_docker, read_look
from redisforge.fleet.fake import FakeTransport
from redisforge.fleet.transport import CommandResult
from redisforge.model.image_report import HostImages, ImageList
from redisforge.model.images import ImageFacts

HEAD = '26.1.5 linux/amd64\n/var/lib/docker\n[["Backing Filesystem","extfs"]]\n1000 4096\n'
INSPECTED: list[dict[str, object]] = [
    {
        "Id": "sha256:1", "RepoTags": ["redisforge/redis:8.6.3", "<none>:<none>"], "Size": 7, "Created": "2026",
        "RepoDigests": ["redis@sha256:a", "<none>@<none>"],
        "Architecture": "amd64", "RootFS": {"Type": "layers", "Layers": ["a", "b"]}, "Config": {"Labels": {"x": "y"}},
        "Something": "new",
    },
    {"Id": "sha256:2", "RepoTags": None, "Size": 7, "RootFS": {}, "Config": None},
]  # fmt: skip


def test_an_engine_and_its_images_are_read() -> None:
    facts = read_look(HEAD + json.dumps(INSPECTED, indent=4))
    assert (facts.version, facts.platform, facts.root) == ("26.1.5", "linux/amd64", "/var/lib/docker")
    assert facts.free_bytes == 4_096_000
    assert facts.takes_parts
    first, second = facts.images
    assert (first.names, first.layers, first.labels) == (("redisforge/redis:8.6.3",), ("a", "b"), {"x": "y"})
    assert (second.names, second.layers, second.labels) == ((), (), {})
    assert (first.digests, second.digests) == (("redis@sha256:a",), ())


def test_an_engine_without_images_has_none() -> None:
    assert read_look(HEAD).images == ()


def test_the_containerd_store_takes_no_parts() -> None:
    head = HEAD.replace('[["Backing Filesystem","extfs"]]', '[["driver-type","io.containerd.snapshotter.v1"]]')
    assert not read_look(head).takes_parts


async def test_an_answer_that_is_none_is_an_error_with_what_came() -> None:
    for said in ("", "what?\n", HEAD + "[{"):
        fake = FakeTransport(lambda argv, said=said: CommandResult(argv, 0, said, ""))
        with pytest.raises(HostError, match="cannot be read"):
            await look_at_docker(fake)


@pytest.mark.parametrize(
    ("said", "what", "cure"),
    [
        ("sh: 3: docker: not found", "not installed", "install Docker"),
        ("sh: line 3: docker: command not found", "not installed", "install Docker"),
        (
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            "may not use Docker",
            "usermod -aG docker",
        ),
        (
            "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            "may not use Docker",
            "usermod -aG docker",
        ),
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "not running",
            "systemctl start docker",
        ),
        ("Error processing tar file(exit status 1): write /x: no space left on device", "disk is full", "make room"),
        ("something new", "client failed", "look at what it says"),
    ],
)  # fmt: skip
async def test_each_complaint_has_its_cure(said: str, what: str, cure: str) -> None:
    fake = FakeTransport(lambda argv: CommandResult(argv, 1, "", said))
    with pytest.raises(HostError, match=what) as caught:
        await look_at_docker(fake)
    assert caught.value.where == "fake"
    assert said in caught.value.why
    assert cure in caught.value.next_step


def test_what_was_tried_is_said_where_the_complaint_is_not_known() -> None:
    assert docker_problem("h1", "odd", what="the images were not taken").what == "the images were not taken"


def test_a_missing_image_has_a_cure_that_can_bring_it() -> None:
    cures = {name: missing_images((name,), "h", NOT_PULLED).next_step for name in ("redis@sha256:a", "redis:8.6")}
    assert "images push" not in cures["redis@sha256:a"]
    assert "docker.pull: true" in cures["redis@sha256:a"]
    assert "images push" in cures["redis:8.6"]


def test_what_has_no_tag_is_listed_by_its_digest() -> None:
    image = ImageFacts(id="sha256:1", names=(), size_bytes=1, created_at="", architecture="amd64")
    known = replace(image, digests=("redisforge/redis@sha256:a",))
    tagged = replace(known, names=("redisforge/redis:8.6.3",))
    listed = list_text(ImageList(hosts=(HostImages(host="h1", images=(known, tagged)),)))
    assert listed.count("redisforge/redis@sha256:a") == listed.count("redisforge/redis:8.6.3") == 1
