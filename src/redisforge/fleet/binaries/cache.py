"""The cache of fetched programs: whole entries or none.

    CACHE/redis-8.6.3/
      manifest.json   what it is, where it came from, sha256 of its programs
      bin/            what is to be run
      root/           the unpacked packages
    CACHE/.building-XXXX/   an entry that is being made; a leftover of a crash until the next fetch removes it
    CACHE/.lock             held (flock) by whoever makes an entry; the kernel drops it with the process

An entry is made beside, and renamed when it is complete, so a folder with a name is whole. Before it is used,
its programs are compared with the manifest, so that a damaged disk or a changed file is found here and not
later.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import msgspec

from redisforge.disk import sync_folder
from redisforge.errors import HostError
from redisforge.fleet.binaries.versions import parse_version

_BUILDING = ".building-"
_REMOVING = ".removing-"
_MANIFEST = "manifest.json"
_OTHER_FOLDER = "set REDISFORGE_CACHE to a folder that this user can write"

OnProgress = Callable[[str], None]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry holds. `programs`: path in the entry by name; `sha256`: by path in the entry."""

    kind: str
    version: str
    programs: dict[str, str]
    sha256: dict[str, str]
    packages: dict[str, str]
    """Version by package."""
    source: str
    """The suite or the package index that it came from."""
    fetched_at: str
    """ISO 8601, UTC."""


class Entry(msgspec.Struct, frozen=True):
    """An entry of the cache, already read but not yet verified."""

    folder: Path
    manifest: Manifest

    def program(self, name: str) -> Path:
        """The path of a program. Raises KeyError."""
        return self.folder / self.manifest.programs[name]


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where fetched programs are kept: REDISFORGE_CACHE, else the platform's cache folder of this user."""
    if named := environment.get("REDISFORGE_CACHE"):
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("redisforge", appauthor=False))


def entry_folder(program: Path) -> Path | None:
    """The entry of a cache that a program belongs to; None for one that lies elsewhere."""
    return next((folder for folder in program.parents if (folder / _MANIFEST).is_file()), None)


def sha256_of(file: Path) -> str:
    """The hash of a file, as hexadecimal digits. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_entries(cache: Path, kind: str) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Entries of one kind, and what is wrong with those whose manifest cannot be read."""
    entries: list[Entry] = []
    problems: list[str] = []
    for folder in sorted(cache.glob(f"{kind}-*")):
        try:
            entries.append(Entry(folder, _read_manifest(folder / _MANIFEST, kind)))
        except (OSError, ValueError, msgspec.DecodeError) as error:
            problems.append(f"{folder} is damaged: {_MANIFEST}: {error}")
    return tuple(entries), tuple(problems)


def _read_manifest(file: Path, kind: str) -> Manifest:
    """Raises OSError, msgspec.DecodeError, or ValueError when it is not one of `kind`."""
    manifest = msgspec.json.decode(file.read_bytes(), type=Manifest)
    parse_version(manifest.version)
    expected = {"envoy"} if kind == "envoy" else {f"{kind}-server", f"{kind}-cli"}
    if manifest.kind != kind or manifest.programs.keys() != expected:
        raise ValueError(f"it is not the manifest of {kind}")
    return manifest


def damage_of(entry: Entry) -> str:
    """What differs from the manifest; empty when nothing does."""
    for path, expected in entry.manifest.sha256.items():
        try:
            found = sha256_of(entry.folder / path)
        except OSError as error:
            return f"{entry.folder / path}: {error.strerror}"
        if found != expected:
            return f"{entry.folder / path}: sha256 is {found[:12]}…, the manifest says {expected[:12]}…"
    return ""


def check_space(cache: Path, needed_bytes: int) -> None:
    """Make the cache folder, and see that it can take `needed_bytes`.

    Raises:
        HostError: it cannot be made or written, or has too little space.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(cache).free
    except OSError as error:
        raise HostError(
            "the cache folder cannot be made",
            where=str(cache),
            why=error.strerror or str(error),
            next_step=_OTHER_FOLDER,
        ) from error
    if not os.access(cache, os.W_OK | os.X_OK):
        raise HostError(
            "the cache folder cannot be written",
            where=str(cache),
            next_step=_OTHER_FOLDER,
        )
    if free_bytes < needed_bytes:
        raise HostError(
            "not enough space for the download",
            where=str(cache),
            why=f"{free_bytes // 1_000_000} MB are free, {needed_bytes // 1_000_000} MB are needed",
            next_step="free some space, or set REDISFORGE_CACHE to a folder on a larger disk",
        )


_ONE_AT_A_TIME = threading.Lock()
"""Within this process, which fetches engine and Envoy side by side: its own download is nobody else's."""


@contextlib.contextmanager
def fetching(cache: Path, on_progress: OnProgress) -> Generator[None]:
    """Hold the cache's lock while an entry is made; leftovers of a crash are removed once it is held.

    Waits for another process, however long it takes: each of its commands has a time limit.

    Raises:
        HostError: something in the cache could not be written, here or in the body.
    """
    try:
        with _ONE_AT_A_TIME, (cache / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_progress(f"another download into {cache} is under way; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_leftovers(cache)
            yield
    except OSError as error:
        raise HostError(
            "the cache folder cannot take the download",
            where=str(error.filename or cache),
            why=error.strerror or str(error),
            next_step=_OTHER_FOLDER,
        ) from error


def _remove_leftovers(cache: Path) -> None:
    for leftover in cache.glob(f"{_BUILDING}*"):
        # Moved first: a child of a killed fetch that still works in there loses its way, and ends.
        leftover.rename(cache / f"{_REMOVING}{leftover.name}")
    for leftover in cache.glob(f"{_REMOVING}*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def building(cache: Path) -> Generator[Path]:
    """A new folder beside the entries; it is removed at the end unless `publish` has renamed it."""
    folder = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=cache))
    folder.chmod(0o755)  # a service user may run what an administrator fetched
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, cache: Path, manifest: Manifest) -> Entry:
    """Make a complete folder of `building` the entry of its version. The caller holds `fetching`.

    A damaged entry of that version is replaced; processes that run its programs keep them.
    """
    final = cache / f"{manifest.kind}-{manifest.version}"
    with (folder / _MANIFEST).open("wb") as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    for path in manifest.sha256:
        with (folder / path).open("rb") as program:
            os.fsync(program.fileno())
    if final.exists():
        aside = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=cache))
        final.rename(aside / "replaced")
        shutil.rmtree(aside, ignore_errors=True)
    folder.rename(final)
    sync_folder(cache)
    return Entry(final, manifest)
