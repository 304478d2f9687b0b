"""Which images a host lacks, and whether it can take them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from redisforge.model.image_report import DockerFacts
from redisforge.model.images import ImageFacts
from redisforge.plan.images import chains_of, is_same, next_push, room_problem

NAME = "redisforge/redis:8.6.3"
IMAGE = ImageFacts(
    id="sha256:1",
    names=(NAME,),
    size_bytes=100,
    created_at="2026-01-01T00:00:00Z",
    architecture="amd64",
    layers=("a", "b"),
)
EMPTY = DockerFacts(version="26.1.5", platform="linux/amd64", root="/var/lib/docker", free_bytes=1000, takes_parts=True)


def actions(host: DockerFacts, image: ImageFacts = IMAGE) -> list[str]:
    return [step.action for step in next_push(host, [(NAME, image)])]


def test_what_is_missing_is_sent() -> None:
    assert actions(EMPTY) == ["send"]


def test_what_is_there_is_left_alone() -> None:
    assert actions(replace(EMPTY, images=(IMAGE,))) == ["nothing"]


def test_what_is_there_under_another_name_is_named() -> None:
    (step,) = next_push(replace(EMPTY, images=(replace(IMAGE, names=()),)), [(NAME, IMAGE)])
    assert (step.action, step.there_id) == ("name", "sha256:1")


def test_another_image_of_that_name_is_replaced() -> None:
    other = replace(IMAGE, id="sha256:2", layers=("a", "c"))
    assert actions(replace(EMPTY, images=(other,))) == ["send"]


def test_an_engine_that_counts_ids_otherwise_has_the_same_image() -> None:
    elsewhere = replace(IMAGE, id="sha256:9")
    (step,) = next_push(replace(EMPTY, images=(elsewhere,)), [(NAME, IMAGE)])
    assert (step.action, step.there_id) == ("nothing", "sha256:9")


@pytest.mark.parametrize(
    "change", [{"layers": ("a",)}, {"created_at": "2026-01-02T00:00:00Z"}, {"labels": {"a": "b"}}, {"layers": ()}]
)
def test_images_that_differ_in_anything_are_not_the_same(change: dict[str, object]) -> None:
    assert not is_same(IMAGE, replace(IMAGE, id="sha256:9", **change))


def test_nothing_is_known_of_images_without_layers() -> None:
    bare = replace(IMAGE, layers=())
    assert not is_same(bare, replace(bare, id="sha256:9"))


def test_another_architecture_is_refused_with_the_reason() -> None:
    (step,) = next_push(replace(EMPTY, platform="linux/arm64"), [(NAME, IMAGE)])
    assert step.action == "refuse"
    assert step.why == "the image is for linux/amd64, and this host runs linux/arm64"
    assert "linux/arm64" in step.next_step


def test_a_layer_is_there_with_everything_below_it() -> None:
    other = replace(IMAGE, layers=("a", "c", "d"))
    assert chains_of([IMAGE, other]) == {("a",), ("a", "b"), ("a", "c"), ("a", "c", "d")}


def test_room_is_needed_twice() -> None:
    assert room_problem(EMPTY, 500) == ""
    assert "/var/lib/docker has 0 MiB free" in room_problem(EMPTY, 501)


PINNED = f"redis@sha256:{'a' * 64}"
PULLED = replace(IMAGE, names=(), digests=(PINNED,))


def test_what_is_named_by_its_digest_is_there_only_if_the_host_pulled_it() -> None:
    (step,) = next_push(replace(EMPTY, images=(PULLED,)), [(f"docker.io/library/{PINNED}", PULLED)])
    assert (step.action, step.there_id) == ("nothing", PULLED.id)
    for images in ((), (IMAGE,)):  # Docker neither tags nor loads an image by a digest
        (step,) = next_push(replace(EMPTY, images=images), [(PINNED, PULLED)])
        assert (step.action, "by its digest" in step.why, "docker.pull" in step.next_step) == ("refuse", True, True)
