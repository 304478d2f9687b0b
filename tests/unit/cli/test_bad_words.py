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
        ("restart --abort-over abc", "--abort-over abc is not a whole number"),
        ("restart --abort-over abc", "give --abort-over a whole number, 1 or more; `redisforge restart --help` says"),
        ("failover redis-1 --abort-over=", "--abort-over '' is not a whole number"),
        ("failover redis-1 --abort-over 0", "--abort-over 0 is out of range"),
        ("apply-config --abort-over -5", "--abort-over -5 is out of range"),
        ("upgrade --redis 8.6 --abort-over 1s", "--abort-over 1s is not a whole number"),
        ("scale --shards many", "--shards many is not a whole number"),
        ("scale --replicas 9", "--replicas 9 is out of range"),
        ("scale --replicas 9", "give --replicas a whole number from 0 to 5; `redisforge scale --help`"),
        ("scale add 127.0.0.1:7000 --abort-over 2.5", "--abort-over 2.5 is not a whole number"),
        ("scale add 127.0.0.1:7000 --abort-over 2.5", "`redisforge scale add --help`"),
        ("rebalance --threshold some", "--threshold some is not a number"),
        ("rebalance --threshold -1", "give --threshold a number, 0 or more"),
        ("audit -n x", "--last x is not a whole number"),
        ("test-cluster localhost 70000", "PORT 70000 is out of range"),
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
    assert error.startswith("error: ")
    assert says in error
    assert "next:" in error
