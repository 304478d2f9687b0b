"""redisforge binaries: the engines and Envoys that are here, and those that can be fetched."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import JsonOption

if TYPE_CHECKING:
    from redisforge.fleet.binaries import EngineBinary, EnvoyBinary


class Package(StrEnum):
    """What `install` takes."""

    REDIS = "redis"
    VALKEY = "valkey"
    ENVOY = "envoy"


class Program(StrEnum):
    """What `path` takes."""

    REDIS_SERVER = "redis-server"
    REDIS_CLI = "redis-cli"
    VALKEY_SERVER = "valkey-server"
    VALKEY_CLI = "valkey-cli"
    ENVOY = "envoy"


VersionOption = Annotated[
    str,
    typer.Option("--version", metavar="V", help='"newest", a series such as 8.6, or a floor such as ">=8.2".'),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    binaries = typer.Typer(help="Redis, Valkey and Envoy: what is here, and fetching them.", no_args_is_help=True)
    binaries.command("list")(show_list)
    binaries.command("install")(install)
    binaries.command("path")(show_path)
    app.add_typer(binaries, name="binaries")


def show_list(as_json: JsonOption = False) -> None:
    """List what is on PATH and in the cache, and what can be fetched."""
    from redisforge.cli.output import print_json, print_table
    from redisforge.fleet.binaries import cache_folder, list_binaries

    listed = list_binaries(cache_folder(os.environ), os.environ)
    if as_json:
        print_json(listed)
        return
    headings = ("KIND", "VERSION", "ORIGIN", "WHERE", "PROBLEM")
    print_table(headings, [(row.kind, row.version, row.origin, row.where, row.problem) for row in listed])


def install(
    packages: Annotated[list[Package] | None, typer.Argument(help="Default: redis envoy.")] = None,
    version: VersionOption = "newest",
    as_json: JsonOption = False,
) -> None:
    """Find or fetch programs, so that `up` need not; nothing is installed into the system."""
    from redisforge.cli.output import print_json, progress_to_stderr
    from redisforge.errors import UsageError
    from redisforge.fleet.binaries import EnvoyBinary

    wanted = packages or [Package.REDIS, Package.ENVOY]
    if version != "newest" and len(wanted) != 1:
        raise UsageError("--version needs one name", next_step="redisforge binaries install redis --version V")
    found = [_ensure(package, version, progress_to_stderr) for package in wanted]
    if as_json:
        print_json(found)
        return
    for package, binary in zip(wanted, found, strict=True):
        path = binary.path if isinstance(binary, EnvoyBinary) else binary.server_path
        typer.echo(f"{package} {binary.version}  {path}  ({binary.origin})")


def show_path(program: Program, version: VersionOption = "newest") -> None:
    """Print the path of a program that is here, as `up` would take it; fetches nothing."""
    from redisforge.errors import BinaryError
    from redisforge.fleet.binaries import cache_folder, locate_engine, locate_envoy
    from redisforge.model.topology import Engine

    cache = cache_folder(os.environ)
    if program is Program.ENVOY:
        typer.echo(locate_envoy(version, "", cache, os.environ).path)
        return
    kind = "valkey" if program.startswith("valkey") else "redis"
    engine = locate_engine(Engine(kind, version), cache, os.environ)
    path = engine.server_path if program.endswith("-server") else engine.cli_path
    if not path:
        raise BinaryError(
            f"there is no {program} beside {engine.server_path}", next_step="install it, or set engine.cli_path"
        )
    typer.echo(path)


def _ensure(package: Package, version: str, on_progress: Callable[[str], None]) -> EngineBinary | EnvoyBinary:
    from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy
    from redisforge.model.topology import Engine

    cache = cache_folder(os.environ)
    if package is Package.ENVOY:
        return ensure_envoy(version, "", cache, on_progress, os.environ)
    kind = "valkey" if package is Package.VALKEY else "redis"
    return ensure_engine(Engine(kind, version), cache, on_progress, os.environ)
