"""Images made by hand, as `docker save` writes them: small, of any architecture, with the layers that a test wants."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docker_bed import TEST_LABEL

CREATED = "2026-01-02T03:04:05.123456789Z"


class Crafted:
    """An image. `layers`: the content of the one file in each."""

    def __init__(self, name: str, layers: Sequence[bytes], architecture: str = "amd64", **labels: str) -> None:
        self.name = name
        self.layers = [_tar({f"part-{number}": content}) for number, content in enumerate(layers)]
        self.hashes = tuple(f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in self.layers)
        config: dict[str, Any] = {
            "architecture": architecture,
            "os": "linux",
            "created": CREATED,
            "config": {"Labels": {TEST_LABEL: "image", **labels}},
            "rootfs": {"type": "layers", "diff_ids": list(self.hashes)},
            "history": [{"created": CREATED} for _ in layers],
        }
        self.config = json.dumps(config).encode()
        self.id = f"sha256:{hashlib.sha256(self.config).hexdigest()}"


def write_archive(path: Path, images: Sequence[Crafted], *, links: bool = False) -> None:
    """Write what `docker save` of these images gives; with `links`, a layer that is there already is a link to it."""
    listed: list[dict[str, object]] = []
    with tarfile.open(path, "w") as archive:
        places: dict[bytes, str] = {}
        for image in images:
            config_name = f"{image.id.removeprefix('sha256:')}.json"
            _add(archive, config_name, image.config)
            names: list[str] = []
            for number, layer in enumerate(image.layers):
                name = f"{image.id[7:19]}-{number}/layer.tar"
                if links and layer in places:
                    link = tarfile.TarInfo(name)
                    link.type, link.linkname = tarfile.SYMTYPE, f"../{places[layer]}"
                    archive.addfile(link)
                else:
                    _add(archive, name, layer)
                    places[layer] = name
                names.append(name)
            listed.append({"Config": config_name, "RepoTags": [image.name], "Layers": names})
        _add(archive, "manifest.json", json.dumps(listed).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            _add(archive, name, content)
    return stream.getvalue()
