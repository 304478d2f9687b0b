"""Words that mean nothing: a usage error that names the option and what was given to it, before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from redisforge.cli.main import run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("rebalance --roles --weight redis-1=2", "so --weight would do nothing"),
        ("rebalance --roles --max-rate 5mb --threshold 2", "so --threshold and --max-rate would do nothing"),
        ("rebalance --roles --max-key-size 5mb", "so --max-key-size would do nothing"),
        ("rebalance --max-rate 0", "--max-rate 0 would move nothing"),
        ("rebalance --max-rate 0mb", "leave --max-rate out for no limit"),
        ("rebalance --max-rate 5furlongs", "--max-rate 5furlongs is not a size: it must be a size such as"),
        ("rebalance --max-key-size huge", "--max-key-size huge is not a size"),
        ("upgrade --redis blah --yes", "--redis blah is not a version"),
        ("upgrade --valkey 9.x", "--valkey 9.x is not a version"),
        ("upgrade --redis >=new", "a floor (>=8.2)"),
    ],
)
def test_refused(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no cluster here, and it is not asked for."""
    monkeypatch.setenv("REDISFORGE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run(words.split()) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "next:" in error
