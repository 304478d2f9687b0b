"""The folder that `docker build` reads: a Dockerfile, the keeper, and the programs that RedisForge has.

The Dockerfiles are in docker/ of the source, and in the installed package.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

from redisforge.errors import HostError
from redisforge.fleet.binaries.cache import entry_folder
from redisforge.fleet.binaries.locate import EngineBinary, EnvoyBinary
from redisforge.fleet.carry import write_archive
from redisforge.model.images import ENGINE_PATH, KEEPER_FILES

_EMPTY = ".empty"
"""A folder that is copied into an image must hold something."""


def dockerfile_folder(name: str) -> Path:
    """Where the Dockerfile of `redis` or `envoy` lies."""
    package = Path(__file__).parents[1]
    places = (package / "docker" / name, package.parents[1] / "docker" / name)
    return next(place for place in places if (place / "Dockerfile").is_file())


def write_engine_context(folder: Path, engine: EngineBinary | None) -> None:
    """The context of an engine's image. Without an engine, the base has it. Raises HostError."""
    try:
        _copy_sources(dockerfile_folder("redis"), folder)
        for name in KEEPER_FILES:
            shutil.copy(Path(__file__).with_name(name), folder / name)
        place = folder / "engine"
        place.mkdir()
        (place / _EMPTY).touch()
        if engine is not None:
            _put_engine(place, engine)
    except OSError as error:
        raise _unwritten(folder, error) from error


def write_envoy_context(folder: Path, envoy: EnvoyBinary | None) -> None:
    """The context of Envoy's image. Without an Envoy, the base has it. Raises HostError."""
    try:
        _copy_sources(dockerfile_folder("envoy"), folder)
        place = folder / "program"
        place.mkdir()
        (place / _EMPTY).touch()
        if envoy is not None:
            shutil.copy(envoy.path, place / "envoy")
    except OSError as error:
        raise _unwritten(folder, error) from error


def program_bytes(program: EngineBinary | EnvoyBinary) -> int:
    """How much the program and what lies with it adds to an image, roughly; bytes."""
    if isinstance(program, EnvoyBinary):
        return Path(program.path).stat().st_size
    entry = entry_folder(Path(program.server_path))
    if entry is None:
        return sum(Path(path).stat().st_size for path in (program.server_path, program.cli_path) if path)
    files = (path for path in entry.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)


def _copy_sources(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        if path.is_file():
            shutil.copy(path, folder / path.name)


def _put_engine(place: Path, engine: EngineBinary) -> None:
    """A whole entry of the cache, its scripts with the paths that they have in the image; else the two programs."""
    entry = entry_folder(Path(engine.server_path))
    if entry is not None:
        with tempfile.TemporaryFile() as file:
            write_archive(str(entry), ENGINE_PATH, file)
            file.seek(0)
            with tarfile.open(fileobj=file) as packed:
                packed.extractall(place, filter="tar")
        return
    (place / "bin").mkdir()
    for path in filter(None, (engine.server_path, engine.cli_path)):
        shutil.copy(path, place / "bin" / Path(path).name)


def _unwritten(folder: Path, error: OSError) -> HostError:
    return HostError(
        "the build's folder cannot be made",
        where=str(error.filename or folder),
        why=error.strerror or str(error),
        next_step="make room there, or set TMPDIR to another folder",
    )
