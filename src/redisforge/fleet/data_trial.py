"""Does this server read that data? A program of the standard library alone, run as `python3 -I -c PROGRAM REQUEST` on
the host where the data lies (fleet/data_check.py).

REQUEST is JSON: `server` (the program), `data` (a node's data folder, whose node may go on writing), `memory_bytes`
(what the node uses). A server without ports and without a cluster, on a Unix socket in a folder of its own, loads a
copy and counts its keys. It answers with one line of JSON, one of

    {"keys": N}      {"skipped": WHY}      {"no_room": [FREE, NEEDED]}      {"changing": true}      {"refused": WORDS}
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LOAD_LIMIT_S = 1800.0
COPY_ATTEMPTS = 3
ROOM_BYTES = 64 << 20
AOF_FOLDER = "appendonlydir"
SNAPSHOT = "dump.rdb"
POLL_S = 0.05


def try_data(server: str, data: Path, memory_bytes: int) -> dict[str, Any]:
    """The answer (see above). Raises OSError for a copy that failed."""
    if not (data / AOF_FOLDER).is_dir() and not (data / SNAPSHOT).is_file():
        return {"skipped": "nothing is kept on disk"}
    if available_memory_bytes() < memory_bytes + ROOM_BYTES:
        return {"skipped": f"there is no memory for a second copy of {memory_bytes >> 20} MB"}
    size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    free = shutil.disk_usage(data).free
    if free < size + ROOM_BYTES:
        return {"no_room": [free, size + ROOM_BYTES]}
    copy = data.parent / "upgrade-check"
    with tempfile.TemporaryDirectory(prefix="redisforge-") as sockets:  # short: a socket's path has 107 bytes at most
        try:
            return load(server, copy, Path(sockets, "s")) if copied(data, copy) else {"changing": True}
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def available_memory_bytes() -> int:
    """What the host has for another process."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def copied(source: Path, target: Path) -> bool:
    """Make a copy that fits together: when a rewrite replaces the append-only files meanwhile, once more."""
    for attempt in range(COPY_ATTEMPTS):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        try:
            if not (source / AOF_FOLDER).is_dir():
                shutil.copy2(source / SNAPSHOT, target / SNAPSHOT)
                return True
            shutil.copytree(source / AOF_FOLDER, target / AOF_FOLDER)
            if manifests(source) == manifests(target):
                return True
        except (FileNotFoundError, shutil.Error):  # a file that was listed is gone
            if attempt == COPY_ATTEMPTS - 1:
                raise
    return False


def manifests(data: Path) -> list[bytes]:
    """What the manifests of the append-only files say."""
    return [path.read_bytes() for path in sorted((data / AOF_FOLDER).glob("*.manifest"))]


def load(server: str, folder: Path, address: Path) -> dict[str, Any]:
    """Start the server on the copy, until it has read it or ended."""
    is_aof = (folder / AOF_FOLDER).is_dir()
    manifest = next((folder / AOF_FOLDER).glob("*.manifest"), None) if is_aof else None
    settings = {
        "port": "0", "unixsocket": str(address), "dir": str(folder), "dbfilename": SNAPSHOT, "save": "",
        "appendonly": "yes" if is_aof else "no", "appenddirname": AOF_FOLDER, "auto-aof-rewrite-percentage": "0",
        "appendfilename": manifest.name[: -len(".manifest")] if manifest else "appendonly.aof",
    }  # fmt: skip
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [server, *arguments], stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + LOAD_LIMIT_S
    try:
        while process.poll() is None and time.monotonic() < deadline:
            keys = key_count(address)
            if keys is not None:
                return {"keys": keys}
            time.sleep(POLL_S)
    finally:
        process.kill()
        process.wait()
    return {"refused": "\n".join(log.read_text(errors="replace").splitlines()[-8:])}


def key_count(address: Path) -> int | None:
    """DBSIZE, or None while the server does not answer or still loads."""
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(address))
        connection.sendall(b"DBSIZE\r\n")
        answer = connection.makefile("rb").readline()
        if answer.startswith(b":"):
            return int(answer[1:])
    return None


def end(*_: object) -> None:
    """Leave through the finally clauses."""
    sys.exit(1)


def main(request: str) -> None:
    """Answer a request. Cut off by SIGTERM it leaves nothing behind."""
    signal.signal(signal.SIGTERM, end)
    asked = json.loads(request)
    answer = try_data(asked["server"], Path(asked["data"]), asked["memory_bytes"])
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
