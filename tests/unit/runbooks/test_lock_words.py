"""What `lock` says of a holder that has ended: the words that go on with what it did."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from redisforge.cli.lock import lock_text
from redisforge.errors import HostError, HostKeyError, UnreachableError
from redisforge.fleet.host_lock import too_few
from redisforge.fleet.lock import LockHolder, cluster_lock
from redisforge.model.layout import ClusterLayout
from redisforge.model.report import LockReport
from redisforge.runbooks.lock import lock_notices, lock_report

KILLED = LockHolder("ann", "h", 1, "rebalance", "2026-01-01T00:00:00+00:00", 1, "another boot")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("redisforge rebalance --weight redis-2=3", "`redisforge rebalance --weight redis-2=3` goes on from there"),
        ("", "`redisforge rebalance` with the words that it had goes on from there"),
    ],
)
def test_what_goes_on_after_a_holder_that_was_killed(tmp_path: Path, command: str, says: str) -> None:
    layout = ClusterLayout(str(tmp_path / "main"))
    Path(layout.lock).parent.mkdir()
    Path(layout.lock).write_bytes(msgspec.json.encode(msgspec.structs.replace(KILLED, command=command)))
    report = lock_report(layout)
    assert (report.verb, report.command) == ("rebalance", command)
    assert says in report.note
    assert f"last: `{command or 'redisforge rebalance'}` of ann on h" in lock_text(report)


def test_what_nobody_could_be_asked_about_is_not_free() -> None:
    assert lock_text(LockReport(cluster="main", held=False, unreachable=("h3",))).startswith("main: free\n")
    unknown = LockReport(cluster="main", held=False, known=False, unreachable=("h1", "h2"))
    assert lock_text(unknown) == "main: not known: somebody may hold it\n  could not be asked: h1, h2"


def test_a_host_whose_key_is_not_known_is_not_to_be_declared_lost() -> None:
    key = HostKeyError("the host's key is not known yet", where="h1", next_step="accept it: redisforge host trust h1")
    gone = UnreachableError("the host does not answer", where="h2", next_step="Is it up?")
    only_keys = too_few(1, {"h1": key}, KILLED)
    assert only_keys.next_step == "accept it: redisforge host trust h1"
    full = HostError("the host cannot keep the cluster's lock", where="h1", why="no space", next_step="mend it")
    cannot = too_few(1, {"h1": full}, KILLED)
    assert cannot.next_step == "mend it"
    assert "cannot be asked" in cannot.why
    both = too_few(3, {"h1": key, "h2": gone}, KILLED)
    assert "redisforge host trust h1" in (both.next_step or "")
    assert "REDISFORGE_LOST_HOSTS=h2 redisforge rebalance" in (both.next_step or "")


def test_a_dry_run_names_the_holder_and_makes_no_lock(tmp_path: Path) -> None:
    layout = ClusterLayout(str(tmp_path / "main"))
    assert lock_notices(layout, "deploy") == ()
    assert not (tmp_path / "main").exists()
    with cluster_lock(Path(layout.lock), "up") as holder:
        (notice,) = lock_notices(layout, "deploy")
        assert str(holder) in notice
        assert "`deploy` is refused" in notice
        Path(layout.lock).write_bytes(msgspec.json.encode(KILLED))
        (notice,) = lock_notices(layout, "deploy")
        assert f"process {os.getpid()}, which has not said who it is" in notice
    Path(layout.lock).write_bytes(msgspec.json.encode(KILLED))
    assert lock_notices(layout, "deploy") == (), "a holder that has ended holds nothing"
