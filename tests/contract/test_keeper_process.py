"""The keeper with real programs: deaths, adoption, two keepers, stubborn children, reused process ids.

The program as a script: test_keeper_script.py. Its guard: test_keeper_guard.py, test_guarded_unit.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from unit_host import KEEPER, PYTHON, SLEEP, STUBBORN, UnitHost, has_open, is_alive, kill

from redisforge.fleet import keeper
from redisforge.model.facts import UnitState
from redisforge.model.unit import UnitFile
from waiting import until


@pytest.fixture
def units(tmp_path: Path) -> Iterator[UnitHost]:
    host = UnitHost(tmp_path / "main")
    yield host
    host.close()


@pytest.fixture
def stranger() -> Iterator[int]:
    """The pid of a process that has nothing to do with any Unit."""
    with subprocess.Popen(("sleep", "300")) as process:
        yield process.pid
        process.kill()


def program(source: str) -> tuple[str, ...]:
    return (*PYTHON, "-c", source)


def state_of(units: UnitHost) -> dict[str, Any]:
    return json.loads(units.folder().joinpath("state.json").read_text())


def rewrite_state(units: UnitHost, **changes: object) -> None:
    path = units.folder() / "state.json"
    path.write_text(json.dumps({**state_of(units), **changes}))


def orphan(units: UnitHost, argv: tuple[str, ...] = SLEEP, **more: Any) -> int:
    """Start a Unit and kill its keeper; returns the pid of the child that lives on."""
    facts = units.start_ready(units.unit(argv=argv, **more))
    kill(facts.keeper_pid)
    return facts.pid


# --- a child that dies ---------------------------------------------------------------------------------------


def test_a_killed_child_is_started_again(units: UnitHost) -> None:
    before = units.start_ready()
    kill(before.pid)
    units.await_log("ready\n", count=2)
    after = units.reach(UnitState.RUNNING)
    assert after.pid != before.pid
    assert after.keeper_pid == before.keeper_pid
    assert after.config_hash == before.config_hash
    assert (after.restart_count, after.last_exit) == (1, "killed by SIGKILL")
    assert "keeper: killed by SIGKILL; starting again in 0.1 s\n" in units.log()


@pytest.mark.parametrize("status", [0, 3])
def test_each_death_in_a_row_doubles_the_delay(units: UnitHost, status: int) -> None:
    units.start(units.unit(argv=program(f"raise SystemExit({status})")))
    units.await_log("starting again", count=4)
    delays = re.findall(r"exited with status (\d+); starting again in ([\d.]+) s", units.log())
    assert delays[:4] == [(str(status), delay) for delay in ("0.1", "0.2", "0.4", "0.8")]
    assert units.facts().restart_count >= 4


def test_a_child_that_fell_is_started_with_what_is_declared_now(units: UnitHost) -> None:
    """So a broken Unit is mended by its new files, without waiting for anybody."""
    units.start(units.unit(argv=program("raise SystemExit(1)")))
    units.await_log("starting again")
    units.start(units.unit())
    units.await_log("ready\n")
    assert units.reach(UnitState.RUNNING).config_hash == units.unit().config_hash


def test_a_program_that_does_not_exist_is_in_backoff_and_its_log_says_why(units: UnitHost) -> None:
    units.start(units.unit(argv=("/nowhere/redis-server", "redis.conf")))
    units.await_log("starting again", count=2)
    facts = units.reach(UnitState.BACKOFF)
    assert facts.last_exit == "exited with status 127"
    assert (facts.pid, facts.config_hash) == (0, "")
    assert facts.keeper_pid > 0
    assert "keeper: cannot run /nowhere/redis-server: [Errno 2] No such file or directory" in units.log()


def test_a_program_that_may_not_be_executed_says_so_too(units: UnitHost) -> None:
    path = units.folder() / "program"
    units.start(units.unit(argv=(str(path),), files=(UnitFile("program", "#!/bin/sh\n", 0o644),)))
    units.await_log(f"cannot run {path}: [Errno 13] Permission denied")
    units.await_log("starting again")
    assert units.reach(UnitState.BACKOFF).last_exit == "exited with status 127"


def test_a_unit_in_backoff_is_stopped_at_once(units: UnitHost) -> None:
    units.start(units.unit(argv=("/nowhere/redis-server",)))
    units.await_log("starting again")
    units.stop()
    facts = units.facts()
    assert (facts.state, facts.keeper_pid) == (UnitState.STOPPED, 0)


def test_the_child_gets_a_clean_process_of_its_own(units: UnitHost) -> None:
    source = """if True:
        import json, os, resource, signal, time
        print("seen", json.dumps({
            "session": os.getsid(0) == os.getpid(),
            "folder": os.getcwd(),
            "input": os.readlink("/proc/self/fd/0"),
            "descriptors": sorted(int(d) for d in os.listdir("/proc/self/fd"))[:-1],
            "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "signals": [signal.getsignal(n) is signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGHUP)],
        }), flush=True)
        time.sleep(300)"""
    units.start(units.unit(argv=program(source), open_files=64))
    units.await_log("}\n")
    seen = json.loads(units.log().partition("seen ")[2])
    assert seen == {
        "session": True,
        "folder": str(units.folder()),
        "input": "/dev/null",
        "descriptors": [0, 1, 2],
        "files": 64,
        "signals": [True, True],
    }


# --- a keeper that dies --------------------------------------------------------------------------------------


def test_a_child_outlives_its_keeper_and_the_next_one_adopts_it(units: UnitHost) -> None:
    before = units.start_ready()
    kill(before.keeper_pid)
    alone = units.facts()
    assert (alone.state, alone.pid, alone.keeper_pid) == (UnitState.ORPHANED, before.pid, 0)

    units.start(units.unit())
    units.await_log(f"adopted process {before.pid}\n")
    after = units.reach(UnitState.RUNNING)
    assert after.pid == before.pid
    assert after.keeper_pid not in {0, before.keeper_pid}
    assert (after.config_hash, after.started_at_s) == (before.config_hash, before.started_at_s)
    assert units.log().count("ready\n") == 1


def test_an_adopted_child_that_dies_is_started_again(units: UnitHost) -> None:
    pid = orphan(units)
    units.start(units.unit())
    units.await_log("adopted process")
    kill(pid)
    units.await_log("ready\n", count=2)
    facts = units.reach(UnitState.RUNNING)
    assert facts.pid != pid
    assert facts.last_exit == "ended (how is not known: it was adopted)"


def test_an_adopted_child_is_stopped_like_an_own_one(units: UnitHost) -> None:
    pid = orphan(units)
    units.start(units.unit())
    units.await_log("adopted process")
    units.stop()
    assert not is_alive(pid)
    assert units.facts().state is UnitState.STOPPED


def test_after_the_death_of_both_nothing_is_adopted(units: UnitHost) -> None:
    pid = orphan(units)
    kill(pid)
    assert units.facts().state is UnitState.STOPPED
    assert units.start_ready().pid != pid
    assert "adopted" not in units.log()


@pytest.mark.parametrize(
    ("argv", "grace_s"), [pytest.param(SLEEP, 30.0, id="willing"), pytest.param(STUBBORN, 0.2, id="stubborn")]
)
def test_stop_ends_an_orphan(units: UnitHost, argv: tuple[str, ...], grace_s: float) -> None:
    pid = orphan(units, argv, stop_grace_s=grace_s)
    units.stop()
    assert not is_alive(pid)
    facts = units.facts()
    assert (facts.state, facts.pid) == (UnitState.STOPPED, 0)


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1', "[]", "\0\0\0\0"])
def test_a_torn_state_file_is_no_obstacle(units: UnitHost, content: str) -> None:
    units.start_ready()
    units.stop()
    units.folder().joinpath("state.json").write_text(content)
    assert units.start_ready().restart_count == 0


# --- two keepers ---------------------------------------------------------------------------------------------


def test_of_two_keepers_for_one_folder_the_second_leaves(units: UnitHost) -> None:
    before = units.start_ready()
    log, state = units.log(), state_of(units)
    second = units.run_keeper("keep", str(units.folder()))
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert units.facts() == before
    assert (units.log(), state_of(units)) == (log, state)


def test_a_second_start_leaves_no_keeper_on_its_way(units: UnitHost) -> None:
    """One that is still on its way when the first is stopped would start the Unit again."""
    first = units.start_ready()
    for _ in range(5):
        units.start(units.unit())
        assert units.keepers() == [first.keeper_pid]


@contextlib.contextmanager
def somebody_looks(units: UnitHost) -> Generator[None]:
    """An observer (`status` on another terminal) that the machine suspended just while it looked at the lock."""
    descriptor = os.open(units.folder() / "keeper.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def test_a_keeper_does_not_leave_because_somebody_looks(units: UnitHost) -> None:
    units.start_ready()
    units.stop()
    with somebody_looks(units):
        command = (*PYTHON, str(KEEPER), "keep", str(units.folder()))
        late = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(lambda: late.poll() is not None or has_open(late.pid, "keeper.lock"), "the keeper at its lock")
    with late:
        assert late.poll() is None, "it left"
        assert units.reach(UnitState.RUNNING).keeper_pid == late.pid
        units.stop()
        assert late.wait(30) == 0


def test_of_two_that_look_none_takes_the_other_for_a_keeper(units: UnitHost, stranger: int) -> None:
    units.start_ready()
    units.stop()
    units.folder().joinpath("keeper.lock").write_text(str(stranger))
    with somebody_looks(units):
        assert units.facts().keeper_pid == 0
        units.stop()
    assert is_alive(stranger)


# --- stopping ------------------------------------------------------------------------------------------------


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(units: UnitHost) -> None:
    before = units.start_ready(units.unit(argv=STUBBORN, stop_grace_s=0.2))
    units.stop()
    assert not is_alive(before.pid)
    assert not is_alive(before.keeper_pid)
    facts = units.facts()
    assert (facts.state, facts.last_exit) == (UnitState.STOPPED, "killed by SIGKILL")
    assert "keeper: did not end within 0.2 s of SIGTERM\n" in units.log()


def test_a_child_has_its_whole_grace_to_end_in_order(units: UnitHost) -> None:
    source = """if True:
        import signal, sys, time
        def end(*_):
            print("saving", flush=True); time.sleep(0.5); print("saved", flush=True); sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("ready", flush=True)
        time.sleep(300)"""
    units.start_ready(units.unit(argv=program(source), stop_grace_s=30.0))
    units.stop()
    assert units.log().endswith("saving\nsaved\n")
    assert units.facts().last_exit == "exited with status 0"


def test_stop_ends_the_slow_ones_side_by_side(units: UnitHost) -> None:
    names = ["a", "b", "c"]
    before = [units.start_ready(units.unit(name, STUBBORN, stop_grace_s=0.2)) for name in names]
    units.stop(*names)
    assert not [facts.pid for facts in before if is_alive(facts.pid) or is_alive(facts.keeper_pid)]


def test_a_stopped_unit_stays_stopped(units: UnitHost) -> None:
    units.start_ready()
    units.stop()
    assert units.keepers() == []
    assert "starting again" not in units.log()


# --- process ids are used again ------------------------------------------------------------------------------


@pytest.mark.parametrize("clue", ["start time", "boot"])
def test_a_reused_pid_is_not_taken_for_the_child(units: UnitHost, stranger: int, clue: str) -> None:
    kill(orphan(units))
    ticks, boot = keeper.start_ticks(stranger), keeper.boot_id()
    assert ticks > 0
    rewrite_state(
        units,
        pid=stranger,
        start_ticks=ticks - 1 if clue == "start time" else ticks,
        boot_id="of another boot" if clue == "boot" else boot,
    )
    facts = units.facts()
    assert (facts.state, facts.pid) == (UnitState.STOPPED, 0)

    units.stop()
    assert is_alive(stranger)

    after = units.start_ready()
    assert after.pid != stranger
    assert "adopted" not in units.log()
    units.stop()
    assert is_alive(stranger)


def test_the_lock_file_of_a_dead_keeper_names_nobody(units: UnitHost, stranger: int) -> None:
    units.start_ready()
    units.stop()
    units.folder().joinpath("keeper.lock").write_text(str(stranger))
    assert units.facts().keeper_pid == 0
    units.stop()
    assert is_alive(stranger)
