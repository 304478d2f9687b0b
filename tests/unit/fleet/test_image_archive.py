"""What a host is sent of saved images: those that it lacks, each layer once, and nothing that it has."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_craft import Crafted, write_archive
from redisforge.errors import HostError
from redisforge.fleet.image_archive import ImageArchive
from redisforge.plan.images import Chain

BASE, ENGINE, PROXY = b"base " * 60_000, b"engine" * 50_000, b"proxy"
REDIS = Crafted("redisforge/redis:8.6.3", [BASE, ENGINE])
ENVOY = Crafted("redisforge/envoy:1.40.0", [BASE, PROXY])
NOTHING: frozenset[Chain] = frozenset()


def sent(archive: ImageArchive, ids: Collection[str], there: Collection[Chain] = NOTHING) -> dict[str, bytes]:
    """The files of the stream."""
    pieces = list(archive.pieces(ids, there, lambda _: None))
    assert all(pieces), "an empty piece would end the stream"
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces)), mode="r:") as stream:
        return {member.name: read(stream, member) for member in stream.getmembers()}


def read(stream: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = stream.extractfile(member)
    assert content is not None
    return content.read()


@pytest.fixture(params=[False, True], ids=["copies", "links"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> ImageArchive:
    write_archive(tmp_path / "images.tar", [REDIS, ENVOY], links=request.param)
    return ImageArchive(tmp_path / "images.tar")


def test_images_are_known_by_the_hash_of_their_configuration(archive: ImageArchive) -> None:
    assert archive.image_ids == (REDIS.id, ENVOY.id)


def test_everything_is_sent_with_a_shared_layer_once(archive: ImageArchive) -> None:
    files = sent(archive, [REDIS.id, ENVOY.id])
    listed = json.loads(files.pop("manifest.json"))
    assert [image["RepoTags"] for image in listed] == [[REDIS.name], [ENVOY.name]]
    assert [files.pop(image["Config"]) for image in listed] == [REDIS.config, ENVOY.config]
    assert [[files[name] for name in image["Layers"]] for image in listed] == [REDIS.layers, ENVOY.layers]
    assert len(files) == 3
    assert archive.size_of([REDIS.id, ENVOY.id]) == sum(map(len, files.values()))


def test_one_image_is_sent_without_the_other(archive: ImageArchive) -> None:
    files = sent(archive, [ENVOY.id])
    assert len(json.loads(files["manifest.json"])) == 1
    assert REDIS.layers[1] not in files.values()


def test_layers_that_are_there_are_named_but_not_sent(archive: ImageArchive) -> None:
    files = sent(archive, [REDIS.id], [REDIS.hashes[:1]])
    assert len(json.loads(files["manifest.json"])[0]["Layers"]) == 2
    assert REDIS.layers[0] not in files.values()
    assert REDIS.layers[1] in files.values()
    assert archive.size_of([REDIS.id], [REDIS.hashes[:1]]) == len(REDIS.layers[1])


def test_the_same_content_over_another_base_is_not_what_is_there(archive: ImageArchive) -> None:
    assert REDIS.layers[1] in sent(archive, [REDIS.id], [(REDIS.hashes[1],)]).values()


def test_what_was_sent_is_counted(archive: ImageArchive) -> None:
    counted: list[int] = []
    for _ in archive.pieces([REDIS.id], NOTHING, counted.append):
        pass
    assert sum(counted) == archive.size_of([REDIS.id])


@given(
    st.lists(
        st.lists(st.sampled_from([b"a", b"b" * 511, b"c" * 70_000]), min_size=1, max_size=4), min_size=1, max_size=3
    )
)
def test_any_images_arrive_as_they_were(tmp_path_factory: pytest.TempPathFactory, contents: list[list[bytes]]) -> None:
    images = [Crafted(f"test/image:{number}", layers, n=str(number)) for number, layers in enumerate(contents)]
    path = tmp_path_factory.mktemp("any") / "images.tar"
    write_archive(path, images, links=True)
    files = sent(ImageArchive(path), [image.id for image in images])
    listed = json.loads(files["manifest.json"])
    assert [[files[name] for name in image["Layers"]] for image in listed] == [image.layers for image in images]


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10240])
def test_a_file_that_holds_no_images_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images.tar").write_bytes(content)
    with pytest.raises(HostError, match="cannot be read"):
        ImageArchive(tmp_path / "images.tar")


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    write_archive(path, [REDIS])
    path.write_bytes(path.read_bytes()[: len(BASE)])
    with pytest.raises(HostError, match="cannot be read"):
        ImageArchive(path)
