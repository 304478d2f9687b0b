"""The names with digests are brought together with the images that they belong to."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from redisforge.cli.images import list_text
from redisforge.errors import HostError
from redisforge.fleet.docker import NOT_PULLED, missing_images
from redisforge.fleet.docker_digests import look_at_images, read_digests
from redisforge.fleet.fake import Answer, FakeTransport
from redisforge.fleet.transport import CommandResult
from redisforge.model.image_report import HostImages, ImageList
from redisforge.model.images import ImageFacts

LOOK = '26.1.5 linux/amd64\n/var/lib/docker\n[["Backing Filesystem","extfs"]]\n1000 4096\n' + json.dumps(
    [{"Id": "sha256:1", "RepoTags": [], "Size": 7}, {"Id": "sha256:2", "RepoTags": ["redis:8.6"], "Size": 7}]
)
DIGESTS = 'sha256:1 ["redis@sha256:a","<none>@<none>"]\nsha256:2 null\nsha256:3 []\n'


def answers(second: str, status: int = 0) -> Answer:
    """To the look at the engine, and to the question for digests."""
    told = iter([(LOOK, 0), (second, status)])

    def answer(argv: tuple[str, ...]) -> CommandResult:
        said, ended = next(told)
        return CommandResult(argv, ended, said if not ended else "", said if ended else "")

    return answer


async def test_each_image_has_its_own() -> None:
    facts = await look_at_images(FakeTransport(answers(DIGESTS)))
    assert {image.id: (image.names, image.digests) for image in facts.images} == {
        "sha256:1": ((), ("redis@sha256:a",)),
        "sha256:2": (("redis:8.6",), ()),
    }


def test_no_image_no_digest() -> None:
    assert read_digests("") == {}


@pytest.mark.parametrize(("said", "status", "what"), [("sha256:1 [", 0, "cannot be read"), ("odd", 1, "client failed")])
async def test_an_answer_that_is_none_is_an_error(said: str, status: int, what: str) -> None:
    with pytest.raises(HostError, match=what):
        await look_at_images(FakeTransport(answers(said, status)))


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
