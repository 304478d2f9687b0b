"""A file of `docker save`, and the streams for `docker load` that are made of it.

It is saved once, for all hosts; each host gets a stream of the images and layers that it lacks. What is read is
manifest.json, which all versions of Docker write: for each image the name of its configuration, of its tags, and of its
layers, the base first. What is written is the same, with nothing else beside. Source: moby, image/tarexport.
"""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

import msgspec

from redisforge.errors import HostError
from redisforge.plan.images import Chain

PIECE_BYTES = 256 * 1024
_END_OF_ARCHIVE = b"\0" * 2 * tarfile.BLOCKSIZE


class _Listed(msgspec.Struct, rename="pascal"):
    """An image in manifest.json."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class _RootFs(msgspec.Struct):
    diff_ids: list[str]


class _Configuration(msgspec.Struct):
    rootfs: _RootFs


class _Image(msgspec.Struct, frozen=True):
    id: str
    config: bytes
    names: tuple[str, ...]
    layers: tuple[tuple[Chain, str], ...]
    """Each layer's chain, and the member that holds it."""


class _Place(msgspec.Struct, frozen=True):
    """Where a member's content lies in the file."""

    offset: int
    size_bytes: int


class ImageArchive:
    """An indexed file of `docker save`. Raises HostError if it is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with tarfile.open(path, "r:") as archive:
                self._places = _places(archive)
                self._images = {image.id: image for image in self._read_images()}
        except (OSError, tarfile.TarError, KeyError, msgspec.DecodeError, ValueError) as error:
            raise HostError("the saved images cannot be read", where=str(path), why=repr(error)) from error

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The ids of all images in it."""
        return tuple(self._images)

    def size_of(self, image_ids: Collection[str], there: Collection[Chain] = frozenset()) -> int:
        """Bytes of the stream that `pieces` makes, headers aside."""
        return sum(self._places[member].size_bytes for _, member in self._needed(image_ids, there))

    def pieces(
        self, image_ids: Collection[str], there: Collection[Chain], on_bytes: Callable[[int], None]
    ) -> Iterator[bytes]:
        """An archive of these images for `docker load`, without the layers that are `there`, in pieces, none empty."""
        listed = [self._listed(self._images[image_id]) for image_id in image_ids]
        yield from _member("manifest.json", msgspec.json.encode(listed))
        for image_id in image_ids:
            yield from _member(_config_name(image_id), self._images[image_id].config)
        with self._path.open("rb") as file:
            for chain, member in self._needed(image_ids, there):
                place = self._places[member]
                yield _header(_layer_name(chain), place.size_bytes)
                for piece in _read(file, place):
                    on_bytes(len(piece))
                    yield piece
                if padding := _padding(place.size_bytes):
                    yield padding
        yield _END_OF_ARCHIVE

    def _listed(self, image: _Image) -> _Listed:
        layers = [_layer_name(chain) for chain, _ in image.layers]
        return _Listed(config=_config_name(image.id), repo_tags=list(image.names), layers=layers)

    def _needed(self, image_ids: Collection[str], there: Collection[Chain]) -> list[tuple[Chain, str]]:
        """The layers of these images that are not there, each once."""
        needed = {
            _layer_name(chain): (chain, member)
            for image_id in image_ids
            for chain, member in self._images[image_id].layers
            if chain not in there
        }
        return list(needed.values())

    def _content(self, member: str) -> bytes:
        with self._path.open("rb") as file:
            return b"".join(_read(file, self._places[member]))

    def _read_images(self) -> Iterator[_Image]:
        for listed in msgspec.json.decode(self._content("manifest.json"), type=list[_Listed]):
            config = self._content(listed.config)
            hashes = tuple(msgspec.json.decode(config, type=_Configuration).rootfs.diff_ids)
            if len(hashes) != len(listed.layers):
                raise ValueError(
                    f"{listed.config} has {len(hashes)} layers, and manifest.json says {len(listed.layers)}"
                )
            if unknown := [name for name in listed.layers if name not in self._places]:
                raise ValueError(f"{unknown[0]} is missing")
            layers = tuple((hashes[: number + 1], name) for number, name in enumerate(listed.layers))
            names = tuple(listed.repo_tags or ())
            yield _Image(f"sha256:{hashlib.sha256(config).hexdigest()}", config, names, layers)


def _places(archive: tarfile.TarFile) -> dict[str, _Place]:
    """Every file by its name; a layer that lies there already may be a link to it."""
    members = {member.name: member for member in archive.getmembers()}
    places: dict[str, _Place] = {}
    for name, member in members.items():
        found = members.get(_target(member)) if member.issym() or member.islnk() else member
        if found is not None and found.isreg():
            places[name] = _Place(found.offset_data, found.size)
    return places


def _target(link: tarfile.TarInfo) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(link.name) if link.issym() else "", link.linkname))


def _config_name(image_id: str) -> str:
    return f"{image_id.removeprefix('sha256:')}.json"


def _layer_name(chain: Chain) -> str:
    """By its own content: two images that have it in different places share it."""
    return f"{chain[-1].removeprefix('sha256:')}/layer.tar"


def _read(file: IO[bytes], place: _Place) -> Iterator[bytes]:
    file.seek(place.offset)
    left = place.size_bytes
    while left:
        piece = file.read(min(left, PIECE_BYTES))
        if not piece:
            raise OSError("the file of saved images has become shorter")
        left -= len(piece)
        yield piece


def _header(name: str, size_bytes: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size_bytes, 0o644
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size_bytes: int) -> bytes:
    return b"\0" * (-size_bytes % tarfile.BLOCKSIZE)


def _member(name: str, content: bytes) -> Iterator[bytes]:
    yield _header(name, len(content)) + content + _padding(len(content))
