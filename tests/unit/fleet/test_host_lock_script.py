"""LOCK_HOLD: what a host says to the second of two operators, also in the moments in which the file names nobody."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from redisforge.fleet.host_lock import LOCK_HOLD
from waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "main"


@contextmanager
def asked(path: Path, holder: str) -> Generator[subprocess.Popen[str]]:
    """An operator that asks for the lock; it lets go when its standard input ends."""
    argv = ("sh", "-c", LOCK_HOLD, "sh", str(path), holder, "30", "")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().removeprefix("redisforge-lock ").rstrip("\n")


def has_opened(process: subprocess.Popen[str], path: Path) -> bool:
    descriptor = Path(f"/proc/{process.pid}/fd/9")
    return process.poll() is not None or (descriptor.exists() and descriptor.samefile(path))


def test_the_second_is_told_who_holds_it(path: Path) -> None:
    with asked(path, "first") as first:
        assert said(first) == "mine"
        with asked(path, "second") as second:
            assert said(second) == "held first"


@pytest.mark.parametrize("before", ["", "1\nkilled\n"], ids=["empty", "of a killed holder"])
def test_who_has_taken_it_and_not_said_so_yet_is_named(path: Path, before: str) -> None:
    with asked(path, "first") as first:
        assert said(first) == "mine"
        text = path.read_text()
        path.write_text(before)
        with asked(path, "second") as second:
            until(lambda: has_opened(second, path), "the second has asked")
            path.write_text(text)
            assert said(second) == "held first"


def test_a_lock_that_is_being_given_back_is_taken(path: Path) -> None:
    with asked(path, "first") as first:
        assert said(first) == "mine"
        path.write_text("")
        with asked(path, "second") as second:
            until(lambda: has_opened(second, path), "the second has asked")
            assert first.stdin
            first.stdin.close()
            assert said(second) == "mine"
            assert path.read_text().splitlines()[1] == "second"


def test_a_holder_that_never_says_who_it_is_is_not_waited_for(path: Path) -> None:
    with asked(path, "first") as first:
        assert said(first) == "mine"
        path.write_text("")
        with asked(path, "second") as second:
            assert said(second) == "held "
