"""The hand-off around a real child: before its stop, between its death and its restart, and without the program.

The child is a small program; the nodes that the keeper asks are fake_node.FakeNode. With Redis: tests/integration.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from fake_node import FakeNode, a_master, a_replica, remember_masters
from fake_peer import PASSWORD, USER, node_line, running
from guard_case import WHOLE_AOF, issue_tls, make_guard, write_data
from unit_host import PYTHON, SLEEP, UnitHost, is_alive, kill

from redisforge.fleet.runtime import KEEPER_PROGRAMS
from redisforge.model import unit
from redisforge.model.facts import UnitState
from redisforge.model.unit import Unit
from waiting import until

MASTER_OF_SLOTS = node_line("a" * 40, 7001, "myself,master", "0-5460")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issue_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def units(tmp_path: Path) -> Iterator[UnitHost]:
    host = UnitHost(tmp_path / "main")
    yield host
    host.close()


class Shard(NamedTuple):
    """A Unit whose child stands for a master; the master that its keeper asks, and the replica."""

    unit: Unit
    master: FakeNode
    replica: FakeNode
    close: Callable[[], None]
    """The master's port is closed, as that of a dead process is."""


@pytest.fixture
def shard(units: UnitHost, tls: Path) -> Iterator[Shard]:
    replica, others = a_replica(tls), [FakeNode(tls), FakeNode(tls)]
    master = a_master(tls, (replica, 5000))
    folder = units.folder()
    guard = make_guard(tls, folder / "data")
    (folder / "handoff.password").write_text(f"{PASSWORD}\n")
    declared = unit.Handoff(
        enabled=True, max_lag_bytes=1000, stop_limit_s=2.0, linger_s=0.1, election_pause_s=0.0,
        address=master.address[0], port=master.address[1], data_path=guard.data_path, ca_path=guard.ca_path,
        certificate_path=guard.certificate_path, key_path=guard.key_path, user=USER,
        password_path=str(folder / "handoff.password"),
    )  # fmt: skip
    remember_masters(folder / "data", MASTER_OF_SLOTS, *others)
    write_data(folder / "data", aof=WHOLE_AOF)
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as child:
        for node in (replica, *others):
            stack.enter_context(running(node))
        child.enter_context(running(master))
        yield Shard(units.unit(guard=guard, handoff=declared), master, replica, child.close)


def with_handoff(declared: Unit, **changes: Any) -> Unit:
    """The Unit with other settings of its hand-off."""
    assert declared.handoff
    return msgspec.structs.replace(declared, handoff=msgspec.structs.replace(declared.handoff, **changes))


def sampled(shard: Shard) -> None:
    """Wait until the keeper has looked at its child twice: then the first look is over."""
    until(lambda: [c[0] for c in shard.master.commands].count("INFO") >= 2, "two samples")


def test_a_master_hands_over_before_it_is_stopped(units: UnitHost, shard: Shard) -> None:
    before = units.start_ready(shard.unit)
    alive_at_order: list[bool] = []

    def reply(command: tuple[str, ...]) -> bytes:
        if command[:2] == ("CLUSTER", "FAILOVER"):
            alive_at_order.append(is_alive(before.pid))
        return shard.replica.answer(command)

    shard.replica.reply = reply
    units.stop()
    assert shard.replica.orders == [("CLUSTER", "FAILOVER")]
    assert alive_at_order == [True]
    assert not is_alive(before.pid)
    assert units.facts().state is UnitState.STOPPED
    assert f"keeper: handed off to {shard.replica.place} in " in units.log()


def test_after_a_death_the_replica_takes_over_before_the_child_starts_again(units: UnitHost, shard: Shard) -> None:
    before = units.start_ready(shard.unit)
    sampled(shard)
    said_at_order: list[int] = []

    def reply(command: tuple[str, ...]) -> bytes:
        if command[:2] == ("CLUSTER", "FAILOVER"):
            said_at_order.append(units.log().count("ready\n"))
        return shard.replica.answer(command)

    shard.replica.reply = reply
    shard.close()
    kill(before.pid)
    units.await_log("ready\n", count=2)
    assert shard.replica.orders == [("CLUSTER", "FAILOVER", "FORCE")], units.log()
    assert said_at_order == [1]
    assert "killed by SIGKILL; starting again in 0.1 s\n" in units.log()


def test_a_child_that_hangs_is_left_to_redis(units: UnitHost, shard: Shard) -> None:
    before = units.start_ready(shard.unit)
    sampled(shard)
    os.kill(before.pid, signal.SIGSTOP)
    questions = len(shard.master.commands)
    until(lambda: len(shard.master.commands) >= questions + 2, "two more looks")
    os.kill(before.pid, signal.SIGCONT)
    assert shard.replica.orders == []
    assert units.facts().pid == before.pid


def test_the_setting_is_read_when_it_is_needed(units: UnitHost, shard: Shard) -> None:
    before = units.start_ready(shard.unit)
    sampled(shard)
    off = with_handoff(shard.unit, enabled=False)
    assert off.config_hash == shard.unit.config_hash
    assert asyncio.run(units.runtime.tell_keepers([off])) == ("worker",)
    assert asyncio.run(units.runtime.tell_keepers([off])) == ()
    shard.close()
    kill(before.pid)
    units.await_log("ready\n", count=2)
    units.stop()
    assert shard.replica.orders == []


def test_keepers_of_what_was_never_placed_are_told_nothing(units: UnitHost, shard: Shard) -> None:
    assert asyncio.run(units.runtime.tell_keepers([shard.unit])) == ()
    assert not (units.folder() / "handoff.json").exists()


@pytest.mark.parametrize("missing", ["handoff.py", "peers.py"])
def test_a_keeper_without_the_program_does_the_rest_of_its_work(units: UnitHost, shard: Shard, missing: str) -> None:
    """As on a host that still has the files of an older version."""
    before = units.start_ready(shard.unit)
    (units.path / missing).unlink()
    until(lambda: "no hand-off: " in units.log(), "the keeper notices")
    kill(before.pid)
    units.await_log("ready\n", count=2)
    units.run_keeper("stop", str(units.folder()))
    assert units.facts().state is UnitState.STOPPED
    assert shard.replica.orders == []


def test_the_programs_are_placed_and_leave_nothing_else_in_the_folder(units: UnitHost, shard: Shard) -> None:
    units.start_ready(shard.unit)
    sampled(shard)
    assert {path.name for path in units.path.iterdir()} == {*KEEPER_PROGRAMS, "units"}
    units.stop()


def test_forks_of_a_dead_child_end_with_it(units: UnitHost) -> None:
    """A fork that saves holds its parent's connections open: clients would wait at a dead master."""
    source = "import os, time; print('fork', os.fork(), flush=True); print('ready', flush=True); time.sleep(300)"
    before = units.start_ready(units.unit(argv=(*PYTHON, "-c", source)))
    forks = [int(line.split()[1]) for line in units.log().splitlines() if line.startswith("fork ")]
    fork = next(pid for pid in forks if pid)
    assert is_alive(fork)
    kill(before.pid)
    until(lambda: not is_alive(fork), "the end of the fork")


def test_a_unit_that_is_no_node_is_never_asked(units: UnitHost, shard: Shard) -> None:
    plain = units.unit(argv=SLEEP)
    before = units.start_ready(plain)
    kill(before.pid)
    units.await_log("ready\n", count=2)
    units.stop()
    assert shard.master.commands == []


def test_stop_waits_for_a_hand_off_that_takes_longer_than_the_grace(units: UnitHost, shard: Shard) -> None:
    slow = with_handoff(shard.unit, linger_s=1.0)
    before = units.start_ready(msgspec.structs.replace(slow, stop_grace_s=0.1))
    began = time.monotonic()
    units.stop()
    assert time.monotonic() - began >= 1.0
    assert not is_alive(before.pid)
    assert units.facts().last_exit == "killed by SIGTERM"


def test_what_a_killed_keeper_had_changed_of_the_users_is_put_back(units: UnitHost, shard: Shard) -> None:
    acl = "user readonly_user on +ping\n"
    units.folder().joinpath("users.acl").write_text(acl.replace("\n", " -ping\n"))
    units.folder().joinpath("users.acl.kept").write_text(acl)
    units.start_ready(shard.unit)
    assert units.folder().joinpath("users.acl").read_text() == acl
    assert not units.folder().joinpath("users.acl.kept").exists()
