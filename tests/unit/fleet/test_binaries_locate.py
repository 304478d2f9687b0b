"""Finding programs: real files that answer as engines do, or fail in every way that files can."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redisforge.errors import BinaryError
from redisforge.fleet.binaries import ensure_engine, ensure_envoy, locate_engine
from redisforge.fleet.binaries.catalogue import TESTED_SERIES
from redisforge.fleet.binaries.identify import identify_engine, identify_envoy
from redisforge.model.topology import Engine
from redisforge.render.directives import TABLES

WITH_TLS = "argument couldn't be parsed into an integer"
WITHOUT_TLS = "Bad directive or wrong number of arguments"

Fake = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Writes a program into `folder` that prints `banner` for --version, and `answer` to a configuration."""

    def write(folder: str, name: str, banner: str, answer: str = WITH_TLS) -> Path:
        program = tmp_path / folder / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\ncase "$1" in --version) {banner};; *) echo "{answer}"; exit 1;; esac\n')
        program.chmod(0o755)
        return program

    return write


def redis(version: str) -> str:
    return f"echo 'Redis server v={version} sha=00000000:0 malloc=jemalloc bits=64 build=0'"


def valkey(version: str) -> str:
    return f"echo 'Valkey server v={version} sha=00000000:0 malloc=jemalloc bits=64 build=0'"


def envoy(version: str) -> str:
    return f"echo 'envoy  version: 9e5580933739/{version}/Clean/RELEASE/BoringSSL'"


def path_of(*folders: Path) -> dict[str, str]:
    return {"PATH": ":".join(map(str, folders))}


def find(engine: Engine, tmp_path: Path, environment: dict[str, str]) -> tuple[str, str, str, list[str]]:
    """(version, server, origin, progress) with an empty cache and no apt on PATH."""
    said: list[str] = []
    found = ensure_engine(engine, tmp_path / "cache", said.append, environment)
    return found.version, found.server_path, found.origin, said


def test_an_engine_on_path_that_fits_is_taken(fake: Fake, tmp_path: Path) -> None:
    server = fake("bin", "redis-server", redis("8.6.3"))
    client = fake("bin", "redis-cli", "echo redis-cli 8.6.3")
    found = ensure_engine(Engine(), tmp_path / "cache", print, path_of(server.parent))
    assert (found.kind, found.version, found.origin) == ("redis", "8.6.3", "path")
    assert (found.server_path, found.cli_path) == (str(server), str(client))


def test_an_engine_without_a_client_is_taken_too(fake: Fake, tmp_path: Path) -> None:
    server = fake("bin", "redis-server", redis("8.6.3"))
    assert ensure_engine(Engine(), tmp_path / "cache", print, path_of(server.parent)).cli_path == ""


@pytest.mark.parametrize(("asked", "expected"), [("7.0", "old"), ("8.6", "new"), (">=8.2", "new"), ("newest", "new")])
def test_the_first_on_path_that_fits_is_taken(fake: Fake, tmp_path: Path, asked: str, expected: str) -> None:
    old = fake("old", "redis-server", redis("7.0.15"))
    new = fake("new", "redis-server", redis("8.6.3"))
    found = find(Engine(version=asked), tmp_path, path_of(old.parent, new.parent))
    assert Path(found[1]).parent.name == expected


def test_a_newer_engine_than_tested_is_taken_and_said(fake: Fake, tmp_path: Path) -> None:
    server = fake("bin", "redis-server", redis("9.4.0"))
    version, _, origin, said = find(Engine(), tmp_path, path_of(server.parent))
    assert (version, origin) == ("9.4.0", "path")
    assert said == ["redis 9.4.0 is none of the series that this version is tested with"]


@pytest.mark.parametrize(("version", "series"), [("8.1.1", "8.1"), ("9.1.2", "9.1")])
def test_nothing_is_said_of_valkeys_that_the_suite_raises(
    fake: Fake, tmp_path: Path, version: str, series: str
) -> None:
    """test_upgrade.py raises a cluster of the older one and upgrades it to the other."""
    server = fake("bin", "valkey-server", valkey(version))
    found = find(Engine("valkey", series), tmp_path, path_of(server.parent))
    assert (found[0], found[3]) == (version, [])


def test_the_directives_of_every_tested_series_are_known() -> None:
    assert TABLES == TESTED_SERIES


def test_newest_takes_an_older_engine_when_nothing_else_can_be_had(fake: Fake, tmp_path: Path) -> None:
    server = fake("bin", "redis-server", redis("7.0.15"))
    version, path, origin, said = find(Engine(), tmp_path, path_of(server.parent))
    assert (version, path, origin) == ("7.0.15", str(server), "path")
    assert said == [f"redis 8.6 or later cannot be had here; using 7.0.15 ({server})"]
    assert locate_engine(Engine(), tmp_path / "cache", path_of(server.parent)).version == "7.0.15"


@pytest.mark.parametrize(
    ("banner", "answer", "asked", "why"),
    [
        (redis("7.0.15"), WITH_TLS, "8.6", "is redis 7.0.15, and 8.6 is asked for"),
        (redis("8.6.3"), WITH_TLS, ">=8.8", "is redis 8.6.3, and >=8.8 is asked for"),
        (redis("6.2.14"), WITH_TLS, "newest", "is redis 6.2.14, and 8.6 or later is asked for"),
        (valkey("9.1.2"), WITH_TLS, "newest", "is valkey 9.1.2, and redis is asked for"),
        (redis("8.6.3"), WITHOUT_TLS, "8.6", "was built without TLS"),
        ("echo hello", WITH_TLS, "newest", "--version prints no version that is known here: hello"),
        (":", WITH_TLS, "newest", "--version prints no version that is known here: nothing"),
        ("printf '\\377\\376\\000\\001'", WITH_TLS, "newest", "--version prints no version that is known here"),
        ("echo broken >&2; exit 3", WITH_TLS, "newest", "--version: exit status 3\nbroken"),
        ("kill -9 $$", WITH_TLS, "newest", "--version: exit status -9"),
    ],
)
def test_an_engine_on_path_that_does_not_fit(
    fake: Fake, tmp_path: Path, banner: str, answer: str, asked: str, why: str
) -> None:
    server = fake("bin", "redis-server", banner, answer)
    with pytest.raises(BinaryError) as caught:
        find(Engine(version=asked), tmp_path, path_of(server.parent))
    assert f"PATH: {server} {why}" in caught.value.why
    assert "apt-get is not on PATH" in caught.value.why
    assert "engine.server_path" in caught.value.next_step
    assert not (tmp_path / "cache").exists()


def test_a_program_that_hangs_is_given_up_with_all_that_it_started(fake: Fake, tmp_path: Path) -> None:
    server = fake("bin", "redis-server", "sleep 600 & sleep 600")
    mark = f"REDISFORGE_TEST={tmp_path}"
    environment = {"PATH": "/usr/bin:/bin", "REDISFORGE_TEST": str(tmp_path)}
    identity = identify_engine(server, environment, limit_s=1.0)
    assert identity.problem == "--version: did not end within 1 s"
    deadline_s = time.monotonic() + 30
    while left := processes_with(mark):
        assert time.monotonic() < deadline_s, left


def processes_with(mark: str) -> list[str]:
    """Processes that were started with `mark` in their environment."""
    found: list[str] = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in environ.read_bytes():
                found.append(environ.parent.name)
    return found


def test_files_that_are_no_programs(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a program")
    assert identify_engine(plain, {}).problem == "is not executable"
    assert identify_engine(tmp_path, {}).problem == "is a directory"
    assert identify_engine(tmp_path / "nothing", {}).problem == "does not exist"
    plain.chmod(0o755)
    assert "Exec format error" in identify_engine(plain, {}).problem
    plain.write_text("#!/nonexistent/interpreter\n")
    assert "No such file" in identify_engine(plain, {}).problem
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert identify_envoy(loop, {}).problem


def test_a_directory_on_path_called_like_the_server_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "bin" / "redis-server").mkdir(parents=True)
    with pytest.raises(BinaryError, match=r"no redis 8\.6 or later can be had"):
        find(Engine(), tmp_path, path_of(tmp_path / "bin", tmp_path / "missing"))


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (Engine(server_path="{}/missing"), "does not exist"),
        (Engine(server_path="{}"), "is a directory"),
        (Engine(server_path="{}/bin/old"), "is redis 7.0.15, and 8.6 or later is asked for"),
        (Engine(kind="valkey", version="8.6", server_path="{}/bin/new"), "is redis 8.6.3, and valkey is asked for"),
        (Engine(server_path="{}/bin/plain"), "was built without TLS"),
    ],
)
def test_an_explicit_path_is_never_passed_over(fake: Fake, tmp_path: Path, engine: Engine, why: str) -> None:
    fake("bin", "old", redis("7.0.15"))
    fake("bin", "new", redis("8.6.3"))
    fake("bin", "plain", redis("8.6.3"), WITHOUT_TLS)
    fitting = fake("fitting", f"{engine.kind}-server", redis("8.6.3") if engine.kind == "redis" else valkey("8.6.0"))
    asked = Engine(engine.kind, engine.version, engine.server_path.format(tmp_path))
    with pytest.raises(BinaryError) as caught:
        find(asked, tmp_path, path_of(fitting.parent))
    assert caught.value.why == why
    assert caught.value.where == asked.server_path


def test_an_explicit_path_with_its_client(fake: Fake, tmp_path: Path) -> None:
    server = fake("a folder", "my-redis", redis("8.0.2"))
    beside = fake("a folder", "redis-cli", "echo redis-cli 8.0.2")
    other = fake("other", "redis-cli", "echo redis-cli 8.6.3")
    asked = Engine(version="8.0", server_path=str(server))
    found = ensure_engine(asked, tmp_path / "cache", print, path_of(other.parent))
    assert (found.origin, found.cli_path) == ("explicit", str(beside))
    asked = Engine(version="8.0", server_path=str(server), cli_path=str(other))
    assert ensure_engine(asked, tmp_path / "cache", print, {}).cli_path == str(other)
    asked = Engine(version="8.0", server_path=str(server), cli_path=str(tmp_path / "missing"))
    with pytest.raises(BinaryError, match=r"engine\.cli_path"):
        ensure_engine(asked, tmp_path / "cache", print, {})


def test_a_version_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match=r"engine\.version is not a version: 'latest'"):
        find(Engine(version="latest"), tmp_path, {})
    with pytest.raises(BinaryError, match=r"envoy\.version is not a version: 'v1'"):
        ensure_envoy("v1", "", tmp_path / "cache", print, {})


def test_valkey_that_is_called_redis_is_no_redis(fake: Fake, tmp_path: Path) -> None:
    compatible = fake("bin", "redis-server", valkey("9.1.2"))
    (compatible.parent / "valkey-server").symlink_to(compatible)
    found = ensure_engine(Engine(kind="valkey"), tmp_path / "cache", print, path_of(compatible.parent))
    assert (found.kind, found.version) == ("valkey", "9.1.2")
    with pytest.raises(BinaryError, match="no redis"):
        find(Engine(), tmp_path, path_of(compatible.parent))


def test_an_explicit_envoy(fake: Fake, tmp_path: Path) -> None:
    program = fake("bin", "my-envoy", envoy("1.38.2"))
    found = ensure_envoy(">=1.32", str(program), tmp_path / "cache", print, {})
    assert (found.version, found.path, found.origin) == ("1.38.2", str(program), "explicit")
    with pytest.raises(BinaryError) as caught:
        ensure_envoy("newest", str(program), tmp_path / "cache", print, {})
    assert caught.value.why == "is envoy 1.38.2, and 1.40 or later is asked for"


def test_an_envoy_on_path_before_all_others(fake: Fake, tmp_path: Path) -> None:
    old = fake("old", "envoy", envoy("1.20.0"))
    new = fake("new", "envoy", envoy("1.41.3"))
    found = ensure_envoy("newest", "", tmp_path / "cache", print, path_of(old.parent, new.parent))
    assert (found.version, found.path, found.origin) == ("1.41.3", str(new), "path")


def test_an_envoy_that_is_not_pinned_is_not_fetched(fake: Fake, tmp_path: Path) -> None:
    old = fake("old", "envoy", envoy("1.20.0"))
    with pytest.raises(BinaryError) as caught:
        ensure_envoy("1.33", "", tmp_path / "cache", print, path_of(old.parent))
    assert f"PATH: {old} is envoy 1.20.0, and 1.33 is asked for" in caught.value.why
    assert "only the pinned 1.40.0 is fetched" in caught.value.why
