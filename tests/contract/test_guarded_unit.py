"""A guarded Unit under a real keeper: held, freed by a takeover or by a permit, never held while it runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from fake_peer import PASSWORD, FakePeer, bulk, node_line, running
from guard_case import (
    EXPECTING,
    MASTER_OF_SLOTS,
    MY_ID,
    OTHER,
    PORT,
    TAKEN_OVER,
    WHOLE_AOF,
    issue_tls,
    make_guard,
    remember,
    write_data,
)
from unit_host import UnitHost, kill

from redisforge.model.facts import UnitState
from redisforge.model.unit import Unit
from waiting import until

Guarded = Callable[[], Unit]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issue_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def peer(tls: Path) -> Iterator[FakePeer]:
    with running(FakePeer(tls)) as serving:
        yield serving


@pytest.fixture
def units(tmp_path: Path) -> Iterator[UnitHost]:
    host = UnitHost(tmp_path / "main")
    yield host
    host.close()


@pytest.fixture
def guarded(units: UnitHost, tls: Path, peer: FakePeer) -> Generator[Guarded]:
    """A Unit of whose data nothing is there, and whose peer expects slots of it."""
    peer.view = EXPECTING
    password_name = "operator.password"

    def make() -> Unit:
        return units.unit(guard=make_guard(tls, units.folder() / "data", peer.address))

    yield make
    told = [path for path in units.folder().iterdir() if path.is_file() and path.name != password_name]
    assert not [path for path in told if PASSWORD in path.read_text()]


def permit(units: UnitHost) -> Path:
    return units.folder() / "permit-blank"


def test_a_held_unit_says_why_and_starts_by_itself_after_a_takeover(
    units: UnitHost, guarded: Guarded, peer: FakePeer
) -> None:
    units.start(guarded())
    held = units.reach(UnitState.HELD)
    assert "still expects slots 0-5460 of it" in held.reason
    assert held.pid == 0
    assert (held.has_cluster_config, held.node_id) == (False, "")
    asked = len(peer.commands)
    until(lambda: len(peer.commands) >= asked + 4, "the keeper asks again")
    assert units.log().count("held: ") == 1

    peer.view = TAKEN_OVER
    units.await_log("ready\n")
    after = units.reach(UnitState.RUNNING)
    assert (after.reason, after.keeper_pid) == ("", held.keeper_pid)


def test_the_reason_follows_what_the_peers_say(units: UnitHost, guarded: Guarded, peer: FakePeer) -> None:
    units.start(guarded())
    units.await_log("still expects slots 0-5460")
    peer.view = (OTHER, node_line(MY_ID, PORT, "master", "0-100"))
    units.await_log("still expects slots 0-100 of it")
    until(lambda: " 0-100 " in units.reach(UnitState.HELD).reason, "the state follows the log")


def test_a_held_unit_is_stopped_at_once(units: UnitHost, guarded: Guarded) -> None:
    units.start(guarded())
    units.reach(UnitState.HELD)
    units.stop()
    facts = units.facts()
    assert (facts.state, facts.keeper_pid, facts.reason) == (UnitState.STOPPED, 0, "")
    assert "ready" not in units.log()


def test_a_permit_starts_a_blank_node_once(units: UnitHost, guarded: Guarded, peer: FakePeer) -> None:
    before = units.start_ready(guarded(), permit_blank=["worker"])
    assert peer.commands == []
    assert not permit(units).exists()
    kill(before.pid)
    assert "still expects slots" in units.reach(UnitState.HELD).reason


def test_a_permit_frees_a_held_unit(units: UnitHost, guarded: Guarded) -> None:
    units.start(guarded())
    held = units.reach(UnitState.HELD)
    after = units.start_ready(guarded(), permit_blank=["worker"])
    assert after.keeper_pid == held.keeper_pid
    assert not permit(units).exists()


def test_a_permit_for_one_is_none_for_another(units: UnitHost, guarded: Guarded) -> None:
    other = units.unit("other")
    units.start(guarded(), other, permit_blank=["other"])
    units.reach(UnitState.RUNNING, "other")
    units.reach(UnitState.HELD)


def test_a_permit_for_a_unit_that_runs_already_does_not_wait_for_its_death(units: UnitHost, guarded: Guarded) -> None:
    """Or the accepted start of today would be the empty master of next month."""
    before = units.start_ready(guarded(), permit_blank=["worker"])
    units.start(guarded(), permit_blank=["worker"])
    kill(before.pid)
    assert "still expects slots" in units.reach(UnitState.HELD).reason


def test_a_permit_that_was_not_used_ends_with_the_stop(units: UnitHost, guarded: Guarded, peer: FakePeer) -> None:
    """The next start is another one."""
    units.start_ready(guarded(), permit_blank=["worker"])
    permit(units).write_text("granted while it ran\n")
    units.stop()
    assert not permit(units).exists()
    units.start(guarded())
    assert "still expects slots" in units.reach(UnitState.HELD).reason


def test_a_permit_of_an_interrupted_start_is_none_for_the_next(units: UnitHost, guarded: Guarded) -> None:
    """`up` was killed between placing it and starting the keeper."""
    unit = guarded()
    units.folder().mkdir(parents=True, exist_ok=True)
    permit(units).write_text("granted by redisforge\n")
    units.start(unit)
    assert "still expects slots" in units.reach(UnitState.HELD).reason
    assert not permit(units).exists()


def test_a_permit_is_used_up_by_a_start_that_has_its_data(units: UnitHost, guarded: Guarded) -> None:
    unit, data = guarded(), units.folder() / "data"
    remember(data, MASTER_OF_SLOTS, OTHER)
    write_data(data, aof=WHOLE_AOF)
    running = units.start_ready(unit, permit_blank=["worker"])
    assert not permit(units).exists()
    assert running.was_member
    shutil.rmtree(data)
    kill(running.pid)
    assert "still expects slots" in units.reach(UnitState.HELD).reason


def test_a_node_with_its_data_is_restarted_without_asking(units: UnitHost, guarded: Guarded, peer: FakePeer) -> None:
    before = units.start_ready(guarded(), permit_blank=["worker"])
    data = units.folder() / "data"
    remember(data, MASTER_OF_SLOTS)
    write_data(data, aof=WHOLE_AOF)
    kill(before.pid)
    units.await_log("ready\n", count=2)
    facts = units.reach(UnitState.RUNNING)
    assert facts.restart_count == 1
    assert (facts.has_cluster_config, facts.node_id) == (True, MY_ID)
    assert peer.commands == []


def test_that_it_was_a_member_is_known_after_its_data_folder_is_gone(
    units: UnitHost, guarded: Guarded, peer: FakePeer
) -> None:
    """However it ends: kept, killed with its keeper, stopped, held; and until it starts as a blank node."""
    running, data = units.start_ready(guarded(), permit_blank=["worker"]), units.folder() / "data"
    remember(data, MASTER_OF_SLOTS)
    write_data(data, aof=WHOLE_AOF)
    kill(running.pid)  # its keeper looks again
    units.await_log("ready\n", count=2)
    facts = units.reach(UnitState.RUNNING)
    assert (facts.has_cluster_config, facts.was_member) == (True, False), "what knows itself alone is no member"
    remember(data, MASTER_OF_SLOTS, OTHER)
    until(lambda: units.facts().was_member, "its keeper sees that it has met another")

    shutil.rmtree(data)
    peer.view = EXPECTING
    facts = units.facts()
    kill(facts.keeper_pid)
    kill(facts.pid)
    assert (units.facts().state, units.facts().was_member) == (UnitState.STOPPED, True)
    units.start(guarded())
    held = units.reach(UnitState.HELD)
    assert (held.has_cluster_config, held.was_member) == (False, True)
    units.stop()
    assert units.facts().was_member
    units.start_ready(guarded(), permit_blank=["worker"])
    assert not units.facts().was_member


def test_an_adopted_node_is_not_held(units: UnitHost, guarded: Guarded, peer: FakePeer) -> None:
    """It runs; to ask whether it may start would be to stop it."""
    before = units.start_ready(guarded(), permit_blank=["worker"])
    kill(before.keeper_pid)
    units.start(guarded())
    units.await_log("adopted process")
    assert units.reach(UnitState.RUNNING).pid == before.pid
    assert peer.commands == []


def test_a_guard_with_a_peer_of_nonsense_holds_and_lives(units: UnitHost, guarded: Guarded, peer: FakePeer) -> None:
    """A keeper that died of a peer's answer would leave its Unit without anybody."""
    peer.reply = lambda command: peer.answer(command) if command[0] == "AUTH" else bulk("nonsense\nof one word\n")
    units.start(guarded())
    asked = len(peer.commands)
    until(lambda: len(peer.commands) >= asked + 4, "the keeper asks again")
    assert units.reach(UnitState.HELD).keeper_pid > 0
