"""Captures the tables of redis.conf directives from real engines, which are fetched when they are not here.

python scripts/capture_directives.py            write the tables
python scripts/capture_directives.py --check    compare them; exit status 1 when an engine differs
python scripts/capture_directives.py [--check] redis-8.6 valkey-9.1     only these
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from redisforge.fleet.binaries import EngineBinary, cache_folder, ensure_engine
from redisforge.model.topology import Engine, EngineKind
from redisforge.render.directives import MANAGED, TABLES

FOLDER = Path(__file__).parent.parent / "src/redisforge/render/directive_tables"

FILE_ONLY = {
    "include": "include /dev/null",
    "loadmodule": "loadmodule /nonexistent.so",
    "rename-command": 'rename-command KEYS ""',
    "user": "user somebody off",
    # Accepted and ignored, for the files of older engines.
    "dynamic-hz": "dynamic-hz yes",
    "io-threads-do-reads": "io-threads-do-reads yes",
    "list-max-ziplist-entries": "list-max-ziplist-entries 512",
    "list-max-ziplist-value": "list-max-ziplist-value 64",
    "lua-replicate-commands": "lua-replicate-commands yes",
}
"""Directives that CONFIG GET may not list, each with a line to try."""

UNKNOWN = ("Bad directive", "Module Configuration detected")
"""What a server says of a directive that it does not know: up to 7.4, and from 8.0 (it may be a module's)."""

FIXED = (b"can't set immutable config", b"can't set protected config")
"""What CONFIG SET says of what only a start can set, whatever the value (config.c, configSetCommand)."""

START_LIMIT_S = 10.0


class Table(msgspec.Struct, frozen=True):
    """A table as it is written; `version` is the engine that it was captured from."""

    kind: str
    version: str
    directives: tuple[str, ...]
    file_only: tuple[str, ...]
    fixed: tuple[str, ...]
    defaults: dict[str, str]


@contextmanager
def running(engine: EngineBinary, folder: Path) -> Generator[Path]:
    """A server that listens on a Unix socket alone."""
    socket = folder / "s"
    argv = (engine.server_path, "--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", "")
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + START_LIMIT_S
        while ask(engine, socket, "PING") != b'"PONG"':
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"{engine.server_path} does not start")
        yield socket
    finally:
        process.terminate()
        process.wait()


def ask(engine: EngineBinary, socket: Path, *command: str) -> bytes:
    """The answer to a command, as JSON; empty while there is none."""
    argv = (engine.cli_path, "-s", str(socket), "--json", *command)
    return subprocess.run(argv, capture_output=True, check=False).stdout.strip()


def knows(engine: EngineBinary, line: str, folder: Path) -> bool:
    """Whether the server accepts `line` in its file. It ends at once: it has nothing to listen on."""
    argv = (engine.server_path, "-")
    given = f"port 0\n{line}\n"
    outcome = subprocess.run(argv, input=given, capture_output=True, text=True, cwd=folder, check=False)
    return not any(words in outcome.stdout + outcome.stderr for words in UNKNOWN)


def is_fixed(engine: EngineBinary, socket: Path, name: str, value: str) -> bool:
    """Whether the running server refuses to have `name` set, to the value that it has."""
    return any(words in ask(engine, socket, "CONFIG", "SET", name, value) for words in FIXED)


def is_managed(name: str) -> bool:
    """Whether RedisForge writes it itself; its default is then of no interest, and may depend on the machine."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in MANAGED)


def capture(engine: EngineBinary) -> Table:
    """The table of one engine."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if knows(engine, "redisforge-probe yes", folder):
            raise SystemExit(f"{engine.server_path} accepts a directive that does not exist")
        with running(engine, folder) as socket:
            settings = msgspec.json.decode(ask(engine, socket, "CONFIG", "GET", "*"), type=dict[str, str])
            fixed = [name for name, value in settings.items() if is_fixed(engine, socket, name, value)]
        file_only = [name for name, line in FILE_ONLY.items() if name not in settings and knows(engine, line, folder)]
    defaults = {name: settings[name] for name in sorted(settings) if name not in fixed and not is_managed(name)}
    return Table(
        engine.kind, engine.version, tuple(sorted(settings)), tuple(sorted(file_only)), tuple(sorted(fixed)), defaults
    )


def differences(written: Table, captured: Table) -> Iterator[str]:
    """What differs between two tables; the patch version does not count."""
    old = {*written.directives, *written.file_only}
    new = {*captured.directives, *captured.file_only}
    yield from (f"the engine knows {name}, the table does not" for name in sorted(new - old))
    yield from (f"the table has {name}, the engine does not" for name in sorted(old - new))
    changed = sorted({*written.fixed} ^ {*captured.fixed})
    yield from (f"{name} can{'not' * (name in captured.fixed)} be set at run time" for name in changed)
    others = sorted(name for name, value in written.defaults.items() if captured.defaults.get(name) != value)
    yield from (f"the default of {name} is {captured.defaults.get(name)!r}" for name in others)


def main() -> int:
    """Capture or check; returns the exit status."""
    kinds: tuple[EngineKind, ...] = ("redis", "valkey")
    choices = {f"{kind}-{series}": Engine(kind, series) for kind in kinds for series in TABLES[kind]}
    parser = argparse.ArgumentParser(description="Capture the tables of redis.conf directives from real engines.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("tables", nargs="*", help="such as redis-8.6; default: all")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.tables if name not in choices]:
        parser.error(f"no table {unknown[0]}; there are {', '.join(choices)}")
    status = 0
    for name in arguments.tables or choices:
        engine = ensure_engine(choices[name], cache_folder(os.environ), print, os.environ)
        captured, file = capture(engine), FOLDER / f"{name}.json"
        if not arguments.check:
            file.write_bytes(msgspec.json.format(msgspec.json.encode(captured), indent=1) + b"\n")
            print(f"{name}: written, from {engine.version}")
            continue
        found = list(differences(msgspec.json.decode(file.read_bytes(), type=Table), captured))
        print("\n".join(f"{name} ({engine.version}): {line}" for line in found) or f"{name}: as the engine has it")
        status = 1 if found else status
    return status


if __name__ == "__main__":
    sys.exit(main())
