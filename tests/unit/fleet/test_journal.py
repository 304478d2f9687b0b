"""The journal: whole lines, no secrets, closed to others, bounded."""

from __future__ import annotations

import json
import os
import sys
from asyncio import CancelledError
from pathlib import Path
from typing import Any

import pytest

from redisforge.errors import GateError
from redisforge.fleet import journal as journal_module
from redisforge.fleet.journal import Journal, command_line, repeatable_command, rotated, without_secrets

LOGIN_URL = "rediss://app:{}@host:6379/0"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_one_run_has_one_name_and_its_words_once(path: Path) -> None:
    first = Journal(path, verb="restart", user="ann", arguments=("restart", "redis-1"))
    second = Journal(path, verb="down", user="bob", arguments=("down",))
    first.write("begin", what="redis-1")
    first.write("step", what="restart redis-1", result="ok", seconds=0.12345)
    second.write("begin", what="main")

    begin, step, other = lines_of(path)
    assert begin["run"] == step["run"] != other["run"]
    assert begin["arguments"] == ["restart", "redis-1"]
    assert "arguments" not in step
    assert (step["user"], step["verb"], step["event"], step["what"]) == ("ann", "restart", "step", "restart redis-1")
    assert (step["result"], step["seconds"], step["pid"]) == ("ok", 0.123, os.getpid())


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_nobody_else_may_read_it(path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        Journal(path, verb="up", user="ann").write("begin")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_journal_that_others_could_read_is_closed(path: Path) -> None:
    path.write_text("{}\n")
    path.chmod(0o644)
    Journal(path, verb="up", user="ann").write("begin")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_torn_line_takes_no_other_with_it(path: Path) -> None:
    path.write_bytes(b'{"at": "2026-01-')
    Journal(path, verb="up", user="ann").write("begin")

    torn, whole = path.read_text().splitlines()
    assert torn == '{"at": "2026-01-'
    assert json.loads(whole)["event"] == "begin"


def test_a_full_journal_is_set_aside_and_the_older_one_goes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "LIMIT_BYTES", 1000)
    journal = Journal(path, verb="up", user="ann")
    for number in range(20):
        journal.write("step", what=f"step {number}", result="ok")
        assert path.stat().st_size <= 1000
        assert not rotated(path).exists() or rotated(path).stat().st_size <= 1000

    kept = [line["what"] for file in (rotated(path), path) for line in lines_of(file)]
    assert kept == [f"step {number}" for number in range(20)][-len(kept) :]
    assert len(kept) > 4
    assert {file.name for file in path.parent.iterdir()} == {"journal.jsonl", "journal.jsonl.1"}


def test_a_disk_that_takes_nothing_stops_no_operation(tmp_path: Path) -> None:
    Journal(tmp_path / "nowhere" / "journal.jsonl", verb="up", user="ann").write("begin")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (None, "ok"),
        (GateError("not reached within 5 s"), "GateError: not reached within 5 s"),
        (KeyboardInterrupt(), "interrupted"),
        (CancelledError(), "interrupted"),
        (ValueError("s3cret"), "ValueError"),
    ],
)
def test_how_a_run_ended(path: Path, error: BaseException | None, result: str) -> None:
    Journal(path, verb="up", user="ann").write_end(error, what="main", seconds=1.0)
    [line] = lines_of(path)
    assert (line["event"], line["result"], line["seconds"]) == ("end", result, 1.0)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("restart", "redis-1", "--probe"), ("restart", "redis-1", "--probe")),
        (("x", "--password", "s3cret", "redis-1"), ("x", "--password", "***", "redis-1")),
        (("x", "--password=s3cret"), ("x", "--password=***")),
        (("x", "--auth-token", "s3cret"), ("x", "--auth-token", "***")),
        (("x", "--password", "--force"), ("x", "--password", "--force")),
        (("x", LOGIN_URL.format("s3cret")), ("x", LOGIN_URL.format("***"))),
        (("cli", "REDIS_REQUIREPASS=s3cret"), ("cli", "REDIS_REQUIREPASS=***")),
        (("scale", "--max-key-size", "5mb"), ("scale", "--max-key-size", "5mb")),
        (("scale", "--weight", "redis-1=2"), ("scale", "--weight", "redis-1=2")),
    ],
)
def test_words_that_may_be_passwords_are_hidden(words: tuple[str, ...], shown: tuple[str, ...]) -> None:
    assert without_secrets(words) == shown


@pytest.mark.parametrize("program", ["/opt/bin/redisforge", "/opt/lib/redisforge/__main__.py"])
def test_the_words_that_repeat_a_run(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """As a shell takes them; without passwords."""
    monkeypatch.setattr(sys, "argv", [program, "failover", "redis-2", "--takeover", "-c", "my cluster"])
    assert command_line("else") == "redisforge failover redis-2 --takeover -c 'my cluster'"


@pytest.mark.parametrize("program", ["/usr/bin/pytest", "/opt/redisforge/nightly.py"])
def test_within_another_program_its_words_say_nothing(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(sys, "argv", [program, "tests"])
    assert command_line("redisforge up") == "redisforge up"


@pytest.mark.parametrize(
    ("words", "repeatable"),
    [
        (("rebalance", "--weight", "redis-2=3"), "redisforge rebalance --weight redis-2=3"),
        (("restart", "--password", "s3cret"), ""),
        (("restart", *(f"redis-{number}" for number in range(1000))), ""),
        (("up", "--config", "two\nlines"), ""),
        (("up", "--config", "\udcff"), ""),
    ],
)
def test_only_a_command_that_does_the_same_again_is_handed_on(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], repeatable: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/redisforge", *words])
    assert repeatable_command() == repeatable
