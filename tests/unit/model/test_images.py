"""Names of images, and that the Dockerfiles and the code agree on what is where."""

import re
from pathlib import Path

import pytest

from redisforge.model import images

ROOT = Path(__file__).parents[3]


def dockerfile(name: str) -> str:
    return (ROOT / "docker" / name / "Dockerfile").read_text()


def test_names_say_program_and_version() -> None:
    assert images.engine_image("redis", "8.6.3") == "redisforge/redis:8.6.3"
    assert images.engine_image("valkey", "9.1.2") == "redisforge/valkey:9.1.2"
    assert images.envoy_image("1.40.0") == "redisforge/envoy:1.40.0"


PINNED = f"redis@sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        ("redis:8.6", "redis:8.6"),
        ("redis", "redis:latest"),
        ("docker.io/library/redis:8.6", "redis:8.6"),
        ("index.docker.io/valkey/valkey", "valkey/valkey:latest"),
        ("library/redis", "redis:latest"),
        ("registry:5000/library/redis", "registry:5000/library/redis:latest"),
        ("registry:5000/redis:8.6", "registry:5000/redis:8.6"),
        (PINNED, PINNED),
        (PINNED.replace("@", ":8.6@"), PINNED),
        (f"docker.io/library/{PINNED}", PINNED),
        (f"registry:5000/{PINNED}", f"registry:5000/{PINNED}"),
    ],
)
def test_an_image_is_listed_by_one_name(asked: str, listed: str) -> None:
    assert images.listed_name(asked) == listed


def test_an_image_is_found_by_its_digest_too() -> None:
    facts = images.ImageFacts(
        id="sha256:1", names=("redis:8.6",), size_bytes=1, created_at="", architecture="amd64", digests=(PINNED,)
    )
    for name in ("redis:8.6", PINNED, f"docker.io/library/{PINNED}", "docker.io/library/redis:8.6"):
        assert facts.is_called(name), name
    for name in ("redis", PINNED.replace("a", "b"), f"other/{PINNED}"):
        assert not facts.is_called(name), name


def test_only_a_tag_of_ours_says_a_version() -> None:
    assert images.own_version("redisforge/redis:8.6.3") == "8.6.3"
    for name in ("redis:8.6", "redisforge/redis", f"redisforge/{PINNED}", f"redisforge/{PINNED.replace('@', ':8@')}"):
        assert images.own_version(name) == "", name


def test_the_dockerfiles_say_the_same_as_the_code() -> None:
    for name in ("redis", "envoy"):
        text = dockerfile(name)
        assert f"ARG BASE={images.DEFAULT_BASE}\n" in text
        assert {images.LABEL, images.PROGRAM_LABEL, images.VERSION_LABEL} <= set(
            re.findall(r"io\.redisforge\.\w+", text)
        )
    assert f'"{images.KEEPER_PATH}", "foreground"' in dockerfile("redis")
    assert f"/stage{images.ENGINE_PATH}/" in dockerfile("redis")
    assert f"USER {images.ENGINE_USER}:{images.ENGINE_USER}\n" in dockerfile("redis")
    assert f"USER {images.ENVOY_USER}:{images.ENVOY_USER}\n" in dockerfile("envoy")
    assert f'ENTRYPOINT ["{images.ENVOY_PATH}"]' in dockerfile("envoy")


def test_every_keeper_program_is_copied_and_exists() -> None:
    copied = re.search(r"^COPY (.*) /stage/usr/lib/redisforge/$", dockerfile("redis"), re.MULTILINE)
    assert copied is not None
    assert set(copied[1].split()) == {*images.KEEPER_FILES, "health.py"}
    for name in images.KEEPER_FILES:
        assert (ROOT / "src/redisforge/fleet" / name).exists()


def test_what_images_build_did_not_make_has_no_program() -> None:
    facts = images.ImageFacts(id="sha256:1", names=("redis:8.6",), size_bytes=1, created_at="", architecture="amd64")
    assert facts.program == ""
