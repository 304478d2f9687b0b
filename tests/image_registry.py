"""A registry of images on this machine's loopback, to pull from: it serves what `docker save` wrote, and takes nothing.

Docker talks to registries at 127.0.0.0/8 without TLS.

Source: github.com/opencontainers/distribution-spec (pull), image-spec (image layout).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tarfile
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from docker_bed import DockerBed

_SAVE_LIMIT_S = 240.0
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Blob(NamedTuple):
    """A manifest, a configuration or a layer."""

    path: Path
    media_type: str


class Registry:
    """`blobs` by digest, `tags` (digests of manifests) by "name:tag". `asked`: every path that was asked for."""

    def __init__(self, folder: Path) -> None:
        self.blobs: dict[str, Blob] = {}
        self.tags: dict[str, str] = {}
        self.asked: list[str] = []
        self._folder = folder
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """As it begins the name of an image."""
        return f"127.0.0.1:{self._port}"

    def add(self, docker: DockerBed, image: str, name: str) -> str:
        """Serve an image that is in Docker as `name` ("some/name:tag"); returns the digest of its manifest."""
        folder = self._folder / name.replace("/", "-").replace(":", "-")
        folder.mkdir(parents=True)
        archive = folder / "image.tar"
        docker.docker("save", "--output", str(archive), image, limit_s=_SAVE_LIMIT_S)
        with tarfile.open(archive) as saved:
            saved.extractall(folder, filter="data")
        archive.unlink()
        [saved_image] = json.loads((folder / "manifest.json").read_text())
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._described(folder / saved_image["Config"], _CONFIG),
            "layers": [self._described(folder / layer, _LAYER) for layer in saved_image["Layers"]],
        }
        (folder / "described.json").write_text(json.dumps(manifest))
        self.tags[name] = self._described(folder / "described.json", _MANIFEST)["digest"]
        return self.tags[name]

    def _described(self, path: Path, media_type: str) -> dict[str, Any]:
        """Serve a file; returns its descriptor."""
        with path.open("rb") as content:
            digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
        self.blobs[digest] = Blob(path, media_type)
        return {"mediaType": media_type, "size": path.stat().st_size, "digest": digest}

    def start(self) -> None:
        """Answer; at the same port as before, if it has answered before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Be away: connections are refused."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def digest_at(self, path: str) -> str:
        """What /v2/NAME/manifests/REFERENCE or /v2/NAME/blobs/DIGEST means, there or not."""
        place, _, reference = path.removeprefix("/v2/").rpartition("/")
        return self.tags.get(f"{place.rpartition('/')[0]}:{reference}", reference)


def _handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            registry.asked.append(self.path)
            if self.path == "/v2/":
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            digest = registry.digest_at(self.path)
            blob = registry.blobs.get(digest)
            if blob is None:
                body = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}).encode()
                self.send_response(404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_response(200)
            self.send_header("Content-Type", blob.media_type)
            self.send_header("Content-Length", str(blob.path.stat().st_size))
            self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if with_body:
                with blob.path.open("rb") as content:
                    shutil.copyfileobj(content, self.wfile)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Nothing: it is known what was asked for (`asked`)."""

    return Handler


@contextlib.contextmanager
def registry_in(folder: Path) -> Generator[Registry]:
    """One that answers for as long as the block lasts."""
    made = Registry(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()
