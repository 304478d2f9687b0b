"""The cluster's lock: who holds it is seen from outside, and nobody else is ever stopped for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from redisforge.errors import LockedError
from redisforge.fleet.lock import (
    LockHolder,
    LockState,
    await_release,
    cluster_lock,
    end_holder,
    holds,
    is_same_process,
    lock_state,
    read_holder,
)

HOLDER = """
import sys, time
from pathlib import Path
from redisforge.fleet.lock import cluster_lock
with cluster_lock(Path(sys.argv[1]), "restart"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "main" / "lock"


@pytest.fixture
def other(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = (sys.executable, "-c", HOLDER, str(path))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_free_lock(path: Path) -> None:
    assert lock_state(path) == LockState(0, None)
    with cluster_lock(path, "up") as holder:
        assert lock_state(path) == LockState(os.getpid(), holder)
        assert is_same_process(holder)
    assert lock_state(path) == LockState(0, None)


def test_an_operation_that_fails_gives_the_lock_back_like_any_other(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), cluster_lock(path, "up"):
        raise KeyboardInterrupt
    assert lock_state(path) == LockState(0, None)


def test_a_second_operation_is_told_who_holds_it_and_where_to_look(path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(LockedError) as caught, cluster_lock(path, "up"):
        pytest.fail("it is held")
    assert f"`redisforge restart` of {read_user(path)}" in caught.value.why
    assert f"process {other.pid}" in caught.value.why
    assert "redisforge lock status" in caught.value.next_step


def test_who_has_just_taken_it_and_not_said_so_yet_is_named(
    path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = path.read_bytes()
    path.write_bytes(b"")

    def say(_: float) -> None:
        path.write_bytes(text)

    monkeypatch.setattr("redisforge.fleet.lock.time.sleep", say)
    with pytest.raises(LockedError) as told, cluster_lock(path, "up"):
        pass
    assert f"process {other.pid}" in told.value.why


def test_a_lock_that_is_being_given_back_is_taken(
    path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"")

    def end(_: float) -> None:
        other.kill()
        other.wait()

    monkeypatch.setattr("redisforge.fleet.lock.time.sleep", end)
    with cluster_lock(path, "up") as holder:
        assert lock_state(path) == LockState(os.getpid(), holder)


def test_a_holder_that_never_says_who_it_is_is_not_waited_for(path: Path, other: subprocess.Popen[str]) -> None:
    path.write_bytes(b"")
    with pytest.raises(LockedError, match="another operation") as told, cluster_lock(path, "up"):
        pass
    assert "another redisforge command" in told.value.why
    assert other.poll() is None


def test_who_holds_it_is_told_with_all_the_words_of_the_command(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb alone may do something else: `rebalance` moves back what `rebalance --weight` has moved."""
    words = ["rebalance", "--weight", "redis-2=3", "--cluster", "a b"]
    monkeypatch.setattr(sys, "argv", ["/opt/bin/redisforge", *words])
    command = "redisforge rebalance --weight redis-2=3 --cluster 'a b'"
    with cluster_lock(path, "rebalance") as holder:
        assert (holder.verb, holder.command) == ("rebalance", command)
        with pytest.raises(LockedError) as caught, cluster_lock(path, "up"):
            pytest.fail("it is held")
    assert f"held by `{command}` of {holder.user}" in caught.value.why


def read_user(path: Path) -> str:
    holder = read_holder(path)
    assert holder
    return holder.user


def test_looking_does_not_take_the_lock_nor_lose_it(path: Path, other: subprocess.Popen[str]) -> None:
    for _ in range(20):
        assert lock_state(path).pid == other.pid
    assert holds(other.pid, path)
    assert not holds(os.getpid(), path)


def test_a_holder_that_is_killed_leaves_a_free_lock_and_its_name(path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    state = lock_state(path)
    assert not state.held
    assert state.holder
    assert state.holder.pid == other.pid
    assert not is_same_process(state.holder)
    with cluster_lock(path, "up"):
        pass


def test_the_holder_is_found_when_the_file_names_another(path: Path, other: subprocess.Popen[str]) -> None:
    holder = read_holder(path)
    assert holder
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(holder, pid=os.getpid())))
    assert lock_state(path).pid == other.pid
    path.write_bytes(b"")
    assert lock_state(path) == LockState(other.pid, None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_holder_is_stopped(path: Path, other: subprocess.Popen[str], number: signal.Signals) -> None:
    end_holder(path, lock_state(path), number)
    assert await_release(path, other.pid, 10)
    assert other.wait(10) != 0


def test_a_pid_that_is_another_process_now_is_left_alone(path: Path, other: subprocess.Popen[str]) -> None:
    """The file names a living process with another start: such is a number that was used again."""
    state = lock_state(path)
    assert state.holder
    later = msgspec.structs.replace(state.holder, start_ticks=state.holder.start_ticks + 1)
    before_reboot = msgspec.structs.replace(state.holder, boot_id="another")
    for holder in (later, before_reboot, None):
        with pytest.raises(ProcessLookupError):
            end_holder(path, LockState(other.pid, holder), signal.SIGKILL)
    assert other.poll() is None


def test_a_living_process_that_does_not_hold_it_is_left_alone(path: Path, other: subprocess.Popen[str]) -> None:
    holder = read_holder(path)
    assert holder
    with subprocess.Popen(("sleep", "600")) as bystander:
        ticks = int(Path(f"/proc/{bystander.pid}/stat").read_text().rpartition(")")[2].split()[19])
        named = msgspec.structs.replace(holder, pid=bystander.pid, start_ticks=ticks)
        assert is_same_process(named)
        with pytest.raises(ProcessLookupError):
            end_holder(path, LockState(bystander.pid, named), signal.SIGKILL)
        assert bystander.poll() is None
        bystander.kill()


def test_waiting_for_a_holder_that_stays_has_an_end(path: Path, other: subprocess.Popen[str]) -> None:
    assert not await_release(path, other.pid, 0.1)


def test_text_of_an_earlier_version_is_understood(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"user":"ann","host":"h","pid":1,"verb":"up","since":"2026-01-01T00:00:00+00:00"}')
    holder = read_holder(path)
    assert holder
    assert holder.pid == 1
    assert not is_same_process(holder)
    assert holder.command == ""
    assert str(holder).startswith("`redisforge up` of ann")


def test_what_an_earlier_version_wrote_is_written_again_as_it_was() -> None:
    """A host takes a lock away only from a holder whose text is the same (fleet/host_lock_look.py)."""
    text = b'{"user":"ann","host":"h","pid":1,"verb":"up","since":"2026-01-01T00:00:00","start_ticks":7,"boot_id":"b"}'
    assert msgspec.json.encode(msgspec.json.decode(text, type=LockHolder)) == text
