"""Does this engine read that data? Asked of the engine itself, with a copy of a node's files.

A server without ports and without a cluster, on a Unix socket in a folder of its own, loads the copy and counts its
keys. That is dearer than redis-check-rdb and redis-check-aof, which look at the form of the files alone: a server also
has to understand every type and every command in them, which is what a new version may get wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path

import msgspec

from redisforge.errors import HostError, RefusedError
from redisforge.fleet.binaries import EngineBinary

_LOAD_LIMIT_S = 1800.0
_COPY_ATTEMPTS = 3
_ROOM_BYTES = 64 << 20
_AOF_FOLDER = "appendonlydir"
_SNAPSHOT = "dump.rdb"


class DataCheck(msgspec.Struct, frozen=True):
    """What came of it: the keys that were read; or why nothing was read, which is no failure."""

    keys: int = 0
    skipped: str = ""


async def check_data(engine: EngineBinary, data_path: str, memory_bytes: int) -> DataCheck:
    """Let `engine` load a copy of the files in `data_path`, of a node that uses `memory_bytes` and may go on writing.

    Raises:
        RefusedError: it cannot read them; says what the engine said.
        HostError: there is no room for the copy.
    """
    source = Path(data_path)
    if not (source / _AOF_FOLDER).is_dir() and not (source / _SNAPSHOT).is_file():
        return DataCheck(skipped="nothing is kept on disk")
    if _available_memory_bytes() < memory_bytes + _ROOM_BYTES:
        return DataCheck(skipped=f"there is no memory for a second copy of {memory_bytes >> 20} MB")
    copy = source.parent / "upgrade-check"
    with tempfile.TemporaryDirectory(prefix="redisforge-") as sockets:  # short: a socket's path has 107 bytes at most
        try:
            await asyncio.to_thread(_copy, source, copy)
            return DataCheck(keys=await _load(engine, copy, Path(sockets, "s")))
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _available_memory_bytes() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _copy(source: Path, target: Path) -> None:
    """A copy that fits together: when a rewrite replaces the append-only files meanwhile, once more."""
    _check_room(source)
    for attempt in range(_COPY_ATTEMPTS):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        try:
            if not (source / _AOF_FOLDER).is_dir():
                shutil.copy2(source / _SNAPSHOT, target / _SNAPSHOT)
                return
            shutil.copytree(source / _AOF_FOLDER, target / _AOF_FOLDER)
            if _manifests(source) == _manifests(target):
                return
        except (FileNotFoundError, shutil.Error):  # a file that was listed is gone
            if attempt == _COPY_ATTEMPTS - 1:
                raise
    raise HostError("the append-only files change too fast to be copied", where=str(source))


def _manifests(data: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((data / _AOF_FOLDER).glob("*.manifest"))]


def _check_room(source: Path) -> None:
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    free = shutil.disk_usage(source).free
    if free < size + _ROOM_BYTES:
        raise HostError(
            "not enough space to try the data with the new version",
            where=str(source),
            why=f"{free >> 20} MB free, {(size + _ROOM_BYTES) >> 20} MB needed for a copy",
            next_step="make room and run the command again",
        )


async def _load(engine: EngineBinary, folder: Path, socket: Path) -> int:
    is_aof = (folder / _AOF_FOLDER).is_dir()
    manifest = next((folder / _AOF_FOLDER).glob("*.manifest"), None) if is_aof else None
    settings = {
        "port": "0", "unixsocket": str(socket), "dir": str(folder), "dbfilename": _SNAPSHOT, "save": "",
        "appendonly": "yes" if is_aof else "no", "appenddirname": _AOF_FOLDER, "auto-aof-rewrite-percentage": "0",
        "appendfilename": manifest.name.removesuffix(".manifest") if manifest else "appendonly.aof",
    }  # fmt: skip
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    process = await asyncio.create_subprocess_exec(
        engine.server_path, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout
    log = asyncio.create_task(process.stdout.read())
    try:
        async with asyncio.timeout(_LOAD_LIMIT_S):
            while process.returncode is None:
                if (keys := await _key_count(socket)) is not None:
                    return keys
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        said = (await log).decode(errors="replace")
    raise RefusedError(
        f"{engine.kind} {engine.version} cannot read the data of this cluster",
        where=str(folder),
        why="\n".join(said.splitlines()[-8:]),
        next_step="nothing was changed; stay with the version that runs, or choose another one",
    )


async def _key_count(socket: Path) -> int | None:
    """DBSIZE, or None while the server does not answer or still loads."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return None
    try:
        writer.write(b"DBSIZE\r\n")
        answer = await reader.readline()
    except OSError:
        return None
    finally:
        writer.close()
    return int(answer[1:]) if answer.startswith(b":") else None
