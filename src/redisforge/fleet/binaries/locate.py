"""Finds engines and Envoys that are already here: an explicit path, PATH, the cache. Fetches nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from redisforge.errors import BinaryError
from redisforge.fleet.binaries.cache import Entry, damage_of, read_entries
from redisforge.fleet.binaries.catalogue import cli_name, server_name
from redisforge.fleet.binaries.identify import Identity, identify_engine, identify_envoy
from redisforge.fleet.binaries.versions import VersionRule, parse_version
from redisforge.model.topology import Engine, EngineKind

Origin = Literal["explicit", "path", "cache", "fetched"]


class EngineBinary(msgspec.Struct, frozen=True):
    """A server that was asked and answered. `version` is full ("8.6.3"); `cli_path` may be empty."""

    kind: EngineKind
    version: str
    server_path: str
    cli_path: str
    origin: Origin


class EnvoyBinary(msgspec.Struct, frozen=True):
    """An Envoy that was asked and answered. `version` is full ("1.40.0")."""

    version: str
    path: str
    origin: Origin


class Place(msgspec.Struct, frozen=True):
    """A program that lies somewhere, with what it said of itself."""

    path: Path
    identity: Identity


def explicit_engine(engine: Engine, rule: VersionRule, environment: Mapping[str, str]) -> EngineBinary:
    """The engine at `engine.server_path`.

    Raises:
        BinaryError: it is missing, not executable, of another kind or version, or built without TLS.
    """
    path = Path(engine.server_path).expanduser().absolute()
    identity = identify_engine(path, environment)
    _refuse_unfit(path, identity, engine.kind, rule, "engine.server_path")
    cli = Path(engine.cli_path).expanduser().absolute() if engine.cli_path else None
    if cli is not None and not _is_program(cli):
        raise BinaryError(
            "engine.cli_path is not a program",
            where=str(cli),
            why="it does not exist, or is not executable",
            next_step="correct engine.cli_path, or leave it out: the one beside the server is used then",
        )
    found_cli = str(cli) if cli is not None else cli_beside(path, engine.kind, environment)
    return EngineBinary(engine.kind, identity.version, str(path), found_cli, "explicit")


def explicit_envoy(path_text: str, rule: VersionRule, environment: Mapping[str, str]) -> EnvoyBinary:
    """The Envoy at `path_text`. Raises BinaryError as `explicit_engine` does."""
    path = Path(path_text).expanduser().absolute()
    identity = identify_envoy(path, environment)
    _refuse_unfit(path, identity, "envoy", rule, "envoy.path")
    return EnvoyBinary(identity.version, str(path), "explicit")


def _refuse_unfit(path: Path, identity: Identity, kind: str, rule: VersionRule, option: str) -> None:
    if why := unfitness(identity, kind, rule):
        raise BinaryError(
            f"the program of {option} cannot be used",
            where=str(path),
            why=why,
            next_step=f"correct {option}, or leave it out: a fitting one is looked for on PATH, or fetched",
        )


def unfitness(identity: Identity, kind: str, rule: VersionRule) -> str:
    """Why a program does not serve; empty when it does. Says what was found and what is asked for."""
    if identity.problem:
        return identity.problem
    if identity.kind != kind:
        return f"is {identity.kind} {identity.version}, and {kind} is asked for"
    if not rule.matches(parse_version(identity.version)):
        return f"is {kind} {identity.version}, and {rule} is asked for"
    return ""


def engines_on_path(kind: EngineKind, environment: Mapping[str, str]) -> Iterator[Place]:
    """Every file on PATH that is called like the server of `kind`, in PATH's order, with what it is."""
    for path in _on_path(server_name(kind), environment):
        yield Place(path, identify_engine(path, environment))


def envoys_on_path(environment: Mapping[str, str]) -> Iterator[Place]:
    """Every `envoy` on PATH, and the one beside this Python: a package there is not always on PATH."""
    beside = Path(sys.executable).parent / "envoy"
    candidates = [*_on_path("envoy", environment), *([beside] if beside.is_file() else [])]
    for path in dict.fromkeys(candidates):
        yield Place(path, identify_envoy(path, environment))


def _on_path(name: str, environment: Mapping[str, str]) -> tuple[Path, ...]:
    folders = [Path(part).absolute() for part in environment.get("PATH", "").split(":") if part]
    found: dict[Path, Path] = {}
    for folder in folders:
        candidate = folder / name
        if _is_file(candidate):
            found.setdefault(candidate.resolve(), candidate)
    return tuple(found.values())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _is_program(path: Path) -> bool:
    return _is_file(path) and os.access(path, os.X_OK)


def cli_beside(server: Path, kind: EngineKind, environment: Mapping[str, str]) -> str:
    """The client that belongs to `server`: beside it, or beside what it links to, or on PATH; else empty."""
    names = (cli_name(kind), "redis-cli")
    folders = (server.parent, server.resolve().parent)
    beside = (folder / name for name in names for folder in folders)
    on_path = (path for name in names for path in _on_path(name, environment))
    return next((str(path) for path in (*beside, *on_path) if _is_program(path)), "")


def engine_in_cache(
    kind: EngineKind, rule: VersionRule, cache: Path, environment: Mapping[str, str]
) -> tuple[EngineBinary | None, tuple[str, ...]]:
    """The newest whole entry that satisfies `rule`; and what is wrong with those that are damaged."""
    for_program = server_name(kind)
    entry, problems = _best_entry(kind, for_program, rule, cache, environment)
    if entry is None:
        return None, problems
    return engine_of(entry, kind, "cache"), problems


def envoy_in_cache(
    rule: VersionRule, cache: Path, environment: Mapping[str, str]
) -> tuple[EnvoyBinary | None, tuple[str, ...]]:
    """As `engine_in_cache`, of Envoy."""
    entry, problems = _best_entry("envoy", "envoy", rule, cache, environment)
    if entry is None:
        return None, problems
    return EnvoyBinary(entry.manifest.version, str(entry.program("envoy")), "cache"), problems


def engine_of(entry: Entry, kind: EngineKind, origin: Origin) -> EngineBinary:
    """The programs of a cache entry."""
    server, client = entry.program(server_name(kind)), entry.program(cli_name(kind))
    return EngineBinary(kind, entry.manifest.version, str(server), str(client), origin)


def _best_entry(
    kind: str, program: str, rule: VersionRule, cache: Path, environment: Mapping[str, str]
) -> tuple[Entry | None, tuple[str, ...]]:
    entries, unreadable = read_entries(cache, kind)
    problems = list(unreadable)
    fitting = [entry for entry in entries if rule.matches(parse_version(entry.manifest.version))]
    for entry in sorted(fitting, key=lambda entry: parse_version(entry.manifest.version), reverse=True):
        if damage := damage_of_program(entry, program, environment):
            problems.append(f"{entry.folder} is damaged: {damage}")
            continue
        return entry, tuple(problems)
    return None, tuple(problems)


def damage_of_program(entry: Entry, program: str, environment: Mapping[str, str]) -> str:
    """What is wrong with an entry: its hashes, then what its program says; empty when all is well."""
    if damage := damage_of(entry):
        return damage
    path = entry.program(program)
    identity = identify_envoy(path, environment) if program == "envoy" else identify_engine(path, environment)
    if identity.problem:
        return f"{path}: {identity.problem}"
    if identity.version != entry.manifest.version:
        return f"{path} says {identity.version}, the manifest {entry.manifest.version}"
    return ""
