"""The cache: whole entries or none, one maker at a time, and damage that is found."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from pathlib import Path

import pytest

from redisforge.errors import BinaryError, HostError
from redisforge.fleet.binaries import cache_folder, ensure_engine, list_binaries
from redisforge.fleet.binaries.cache import (
    Entry,
    Manifest,
    building,
    check_space,
    damage_of,
    fetching,
    publish,
    read_entries,
    sha256_of,
)
from redisforge.model.topology import Engine

SERVER = """#!/bin/sh
case "$1" in
  --version) echo 'Redis server v={version} sha=0 malloc=libc bits=64 build=0';;
  *) echo "argument couldn't be parsed into an integer"; exit 1;;
esac
"""


def put(cache: Path, version: str = "8.6.3", says: str = "") -> Entry:
    """An entry as a fetch leaves it, with a program that prints a version."""
    cache.mkdir(parents=True, exist_ok=True)
    with building(cache) as folder:
        (folder / "bin").mkdir()
        for name in ("redis-server", "redis-cli"):
            program = folder / "bin" / name
            program.write_text(SERVER.format(version=says or version))
            program.chmod(0o755)
        programs = {name: f"bin/{name}" for name in ("redis-server", "redis-cli")}
        manifest = Manifest(
            kind="redis",
            version=version,
            programs=programs,
            sha256={path: sha256_of(folder / path) for path in programs.values()},
            packages={"redis-server": f"5:{version}-1"},
            source="a test",
            fetched_at="2026-01-01T00:00:00+00:00",
        )
        return publish(folder, cache, manifest)


def take(cache: Path, version: str = "newest") -> tuple[str, str, list[str]]:
    """(version, origin, progress) with nothing on PATH."""
    said: list[str] = []
    found = ensure_engine(Engine(version=version), cache, said.append, {"PATH": ""})
    return found.version, found.origin, said


def test_an_entry_is_used_and_only_it_is_left(tmp_path: Path) -> None:
    cache = tmp_path / "a cache"
    put(cache)
    assert take(cache) == ("8.6.3", "cache", [])
    assert [folder.name for folder in cache.iterdir()] == ["redis-8.6.3"]


@pytest.mark.parametrize(
    ("asked", "expected"), [("newest", "8.10.0"), ("8.6", "8.6.9"), (">=8.0", "8.10.0"), ("8.0", "8.0.6")]
)
def test_the_newest_entry_that_fits_is_used(tmp_path: Path, asked: str, expected: str) -> None:
    for version in ("8.6.9", "8.10.0", "8.0.6", "8.6.3"):
        put(tmp_path, version)
    assert take(tmp_path, asked)[0] == expected


def test_newest_takes_an_older_entry_when_nothing_else_can_be_had(tmp_path: Path) -> None:
    put(tmp_path, "8.0.6")
    version, origin, said = take(tmp_path)
    assert (version, origin) == ("8.0.6", "cache")
    assert "redis 8.6 or later cannot be had here; using 8.0.6" in said[-1]


@pytest.mark.parametrize(
    "harm", ["changed", "missing program", "no manifest", "torn manifest", "odd manifest", "another version", "dead"]
)
def test_a_damaged_entry_is_reported_and_never_used(tmp_path: Path, harm: str) -> None:
    entry = put(tmp_path, says="8.6.2" if harm == "another version" else "")
    server, manifest = entry.program("redis-server"), entry.folder / "manifest.json"
    if harm == "changed":
        server.write_text(server.read_text() + "\n# one byte more\n")
    elif harm == "missing program":
        server.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "torn manifest":
        manifest.write_bytes(manifest.read_bytes()[:40])
    elif harm == "odd manifest":
        manifest.write_text(manifest.read_text().replace('"8.6.3"', '"latest"'))
    elif harm == "dead":
        server.chmod(0o644)
    said: list[str] = []
    with pytest.raises(BinaryError) as caught:
        ensure_engine(Engine(version="8.6"), tmp_path, said.append, {"PATH": ""})
    assert said[0].startswith(f"{entry.folder} is damaged: ")
    assert said[0] in caught.value.why
    listed = [row for row in list_binaries(tmp_path, {"PATH": ""}) if row.origin == "cache"]
    assert [bool(row.problem) for row in listed] == [True]


def test_damage_names_the_file_and_both_hashes(tmp_path: Path) -> None:
    entry = put(tmp_path)
    assert damage_of(entry) == ""
    entry.program("redis-cli").write_text("")
    assert str(entry.program("redis-cli")) in damage_of(entry)
    assert "sha256 is e3b0c44298fc…, the manifest says" in damage_of(entry)


def test_a_leftover_is_no_entry_and_goes_with_the_next_fetch(tmp_path: Path) -> None:
    whole = put(tmp_path)
    leftover = tmp_path / ".building-crashed"
    shutil.copytree(whole.folder, leftover / "redis-8.6.9")
    assert [entry.folder for entry in read_entries(tmp_path, "redis")[0]] == [whole.folder]
    with fetching(tmp_path, print):
        assert not leftover.exists()
    assert damage_of(whole) == ""


def test_what_fails_while_it_is_made_leaves_nothing(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise InterruptedError

    with pytest.raises(InterruptedError), building(tmp_path) as folder:
        half(folder)
    assert list(tmp_path.iterdir()) == []


def test_an_entry_is_replaced_as_a_whole(tmp_path: Path) -> None:
    first = put(tmp_path)
    (first.folder / "stray").write_text("of the damaged one")
    with first.program("redis-server").open() as running:
        second = put(tmp_path)
        assert running.read() == SERVER.format(version="8.6.3")
    assert second.folder == first.folder
    assert not (second.folder / "stray").exists()
    assert [folder.name for folder in tmp_path.iterdir()] == ["redis-8.6.3"]


def test_one_fetch_at_a_time_and_another_process_is_told_of(tmp_path: Path) -> None:
    waits, order = threading.Event(), list[str]()

    def second() -> None:
        def on_progress(line: str) -> None:
            order.append(line)
            waits.set()

        with fetching(tmp_path, on_progress):
            order.append("second")

    thread = threading.Thread(target=second)
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join(30)
    assert order == [f"another download into {tmp_path} is under way; waiting for it", "first", "second"]


def test_two_fetches_of_one_process_follow_one_another_without_a_word(tmp_path: Path) -> None:
    """`up` fetches engine and Envoy: its own download would read like somebody else's."""
    order, begun = list[str](), threading.Event()

    def second() -> None:
        begun.set()
        with fetching(tmp_path, order.append):
            order.append("second")

    thread = threading.Thread(target=second)
    with fetching(tmp_path, print):
        thread.start()
        assert begun.wait(30)
        thread.join(0.05)  # it would speak before it waits
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_too_little_space(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="not enough space") as caught:
        check_space(tmp_path / "cache", 10**18)
    assert "MB are free, 1000000000000 MB are needed" in caught.value.why
    check_space(tmp_path / "cache", 1)


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be made") as caught:
        check_space(tmp_path / "file" / "cache", 1)
    assert "REDISFORGE_CACHE" in caught.value.next_step


def test_what_cannot_be_written_is_an_error_of_the_host(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(HostError, match="cannot take the download") as caught, fetching(tmp_path, print):
        pass
    assert caught.value.where == str(tmp_path / ".lock")


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder({"REDISFORGE_CACHE": str(tmp_path)}) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert cache_folder({"REDISFORGE_CACHE": "here"}) == tmp_path / "here"
    assert cache_folder({}).is_absolute()
    assert cache_folder({}).name == "redisforge"
    assert os.environ.get("REDISFORGE_CACHE") != str(tmp_path)
