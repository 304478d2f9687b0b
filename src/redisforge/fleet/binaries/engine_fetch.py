"""Fetches an engine from the package suites into the cache, without touching the system.

The packages of the server and of every library it needs, the C library and its loader included, are unpacked
into one folder. The server is started through that folder's own loader, so it runs on any distribution of
this architecture, older ones included:

    ROOT/…/ld-linux-x86-64.so.2 --library-path ROOT/… --argv0 redis-server ROOT/usr/bin/redis-check-rdb

(Debian's redis-server is a link to redis-check-rdb; the name it is called by selects the program.)
Source of the loader's options: ld.so(8); --argv0 needs glibc 2.33.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from redisforge.fleet.binaries import apt
from redisforge.fleet.binaries.apt_sources import Repository, debian_mirror
from redisforge.fleet.binaries.cache import Entry, Manifest, OnProgress, building, publish, sha256_of
from redisforge.fleet.binaries.catalogue import OFFERS, Offer, cli_name, server_name
from redisforge.fleet.binaries.command import run
from redisforge.fleet.binaries.identify import ANSWER_LIMIT_S
from redisforge.fleet.binaries.versions import (
    VersionRule,
    parse_debian_version,
    parse_server_banner,
    parse_version,
)
from redisforge.model.topology import EngineKind

_LIBRARY_FOLDERS = ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*", "usr/lib64", "lib64", "usr/lib", "lib")
_LOADERS = "ld-linux*.so.*"
_LIBRARY_PATH_SEPARATORS = ":;"


class FetchError(Exception):
    """One attempt failed; its text says why. The caller tries the next, or tells the user all of them."""


class Source(msgspec.Struct, frozen=True):
    """Repositories that may hold an engine. `series` is what to expect of them; empty: not known."""

    label: str
    repositories: tuple[Repository, ...]
    series: str = ""
    pinned_suite: str = ""


def sources_for(kind: EngineKind, environment: Mapping[str, str]) -> tuple[Source, ...]:
    """Where this machine may fetch an engine from, newest first; its own suites come last."""
    repositories = apt.machine_repositories(environment)
    mirror = debian_mirror(repositories, is_debian=apt.runs_debian())
    debian = [_debian_source(offer, mirror) for offer in OFFERS[kind]] if mirror else []
    own = [Source("the machine's own suites", repositories)] if repositories else []
    return (*debian, *own)


def _debian_source(offer: Offer, mirror: Repository) -> Source:
    suites = (offer.suite, *offer.beside)
    return Source(
        f"Debian {offer.suite}",
        tuple(Repository(mirror.uri, suite, "main", mirror.options) for suite in suites),
        offer.series,
        offer.suite if offer.beside else "",
    )


def order_sources(sources: Sequence[Source], rule: VersionRule) -> tuple[Source, ...]:
    """Those expected to satisfy `rule` first, then the rest: suites move on, the catalogue does not."""

    def is_unlikely(source: Source) -> bool:
        return not source.series or not rule.matches((*parse_version(source.series), *rule.numbers[2:]))

    return tuple(sorted(sources, key=is_unlikely))


class EngineFetch:
    """One fetch of an engine; the caller holds the cache's lock (cache.fetching)."""

    def __init__(self, kind: EngineKind, cache: Path, on_progress: OnProgress, environment: Mapping[str, str]) -> None:
        self._kind: EngineKind = kind
        self._cache = cache
        self._on_progress = on_progress
        self._environment = environment

    def fetch(self, rule: VersionRule, source: Source) -> Entry:
        """Fetch what `source` holds if it satisfies `rule`, and put it into the cache.

        Raises:
            FetchError: it holds none, another version, or what it holds does not run here.
            AptError: apt failed; see there.
        """
        started_s = time.monotonic()
        self._on_progress(f"{self._kind} {rule}: reading the package lists of {source.label}")
        with building(self._cache) as folder:
            work = folder / "apt"
            work.mkdir()
            private = apt.PrivateApt(work, source.repositories, self._environment)
            names = (server_name(self._kind), f"{self._kind}-tools")
            if source.pinned_suite:
                private.pin(names, source.pinned_suite)
            private.update()
            version = self._offered_version(private, rule, source)
            packages = private.closure(names)
            self._on_progress(f"{self._kind} {version}: downloading {len(packages)} packages from {source.label}")
            files = private.download(packages)
            size_bytes = sum(file.stat().st_size for file in files)
            for file in files:
                private.unpack(file, folder / "root")
            manifest = self._finish(folder, version, source, private.package_versions(files))
            shutil.rmtree(work)
            entry = publish(folder, self._cache, manifest)
        seconds = time.monotonic() - started_s
        self._on_progress(
            f"{self._kind} {version}: {len(files)} packages, {size_bytes / 1e6:.1f} MB, in {seconds:.1f} s"
        )
        return entry

    def _offered_version(self, private: apt.PrivateApt, rule: VersionRule, source: Source) -> str:
        offered = private.candidate(server_name(self._kind))
        version = parse_debian_version(offered)
        if version is None:
            raise FetchError(f"holds no {server_name(self._kind)}")
        if not rule.matches(parse_version(version)):
            raise FetchError(f"holds {version}, and {rule} is asked for")
        return version

    def _finish(self, folder: Path, version: str, source: Source, packages: dict[str, str]) -> Manifest:
        """Write the launchers, and see that the server starts from here."""
        root = folder / "root"
        real = {name: _real_program(root, name) for name in (server_name(self._kind), cli_name(self._kind))}
        final_root = self._cache / f"{self._kind}-{version}" / "root"
        (folder / "bin").mkdir()
        for name, program in real.items():
            launcher = folder / "bin" / name
            launcher.write_text(_launcher_text(launch_argv(root, final_root, name, program)))
            launcher.chmod(0o755)
        self._try_server(launch_argv(root, root, server_name(self._kind), real[server_name(self._kind)]), version)
        hashed = (*(root / program for program in real.values()), *(folder / "bin").iterdir(), *_libraries(root))
        return Manifest(
            kind=self._kind,
            version=version,
            programs={name: f"bin/{name}" for name in real},
            sha256={str(file.relative_to(folder)): sha256_of(file) for file in sorted(hashed)},
            packages=packages,
            source=source.label,
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _try_server(self, argv: Sequence[str], version: str) -> None:
        """The loader itself says whether every library is there: it does not start a program otherwise."""
        outcome = run((*argv, "--version"), self._environment, timeout_s=ANSWER_LIMIT_S)
        banner = parse_server_banner(outcome.output)
        if not outcome.succeeded or banner is None:
            raise FetchError(f"{self._kind} {version} does not start here: {outcome.why()}")
        if banner != (self._kind, version):
            raise FetchError(f"the package says {self._kind} {version}, the server {banner[0]} {banner[1]}")


def launch_argv(root: Path, final_root: Path, name: str, program: Path) -> tuple[str, ...]:
    """The command that starts `program` (relative to the root) as `name` once `root` lies at `final_root`."""
    if any(separator in str(final_root) for separator in _LIBRARY_PATH_SEPARATORS):
        raise FetchError(f"a library path cannot hold ':' or ';': {final_root}")
    folders = [folder for pattern in _LIBRARY_FOLDERS for folder in sorted(root.glob(pattern)) if folder.is_dir()]
    library_path = ":".join(str(final_root / folder.relative_to(root)) for folder in folders)
    loader = final_root / _loader(root).relative_to(root)
    return (str(loader), "--library-path", library_path, "--argv0", name, str(final_root / program))


def _launcher_text(argv: Sequence[str]) -> str:
    comment = "# Written by redisforge: starts the program with the libraries beside it."
    return f'#!/bin/sh\n{comment}\nexec {shlex.join(argv)} "$@"\n'


def _loader(root: Path) -> Path:
    found = [file for folder in _LIBRARY_FOLDERS for file in sorted(root.glob(f"{folder}/{_LOADERS}"))]
    if not found:
        raise FetchError("the packages hold no loader (ld-linux)")
    return found[0]


def _libraries(root: Path) -> tuple[Path, ...]:
    """Every shared library and the loader; the links to them are left out."""
    found = (file for folder in _LIBRARY_FOLDERS for file in root.glob(f"{folder}/*.so*"))
    return tuple(file for file in found if file.is_file() and not file.is_symlink())


def _real_program(root: Path, name: str) -> Path:
    """The file behind `usr/bin/NAME`, relative to the root; a link must not lead out of it."""
    program = root / "usr/bin" / name
    resolved = program.resolve()
    if not resolved.is_file() or not resolved.is_relative_to(root.resolve()):
        raise FetchError(f"the packages hold no usr/bin/{name}")
    return resolved.relative_to(root.resolve())
