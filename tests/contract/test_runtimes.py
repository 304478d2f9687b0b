"""What every Runtime does alike: a small real program under a keeper, one in a container, and the Units in memory."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from unit_host import SLEEP, UnitHost

from docker_bed import BASE_IMAGE, DockerBed
from redisforge.fleet.docker import DockerHost, DockerRuntime
from redisforge.fleet.fake import FakeRuntime
from redisforge.fleet.runtime import Runtime
from redisforge.fleet.transport import LocalTransport
from redisforge.model.facts import UnitFacts, UnitState
from redisforge.model.secret import Secret
from redisforge.model.unit import Container, Unit, UnitFile
from redisforge.render.container import FOLDER_LABEL


class Subject(NamedTuple):
    """A runtime, and a maker of Units (name, argument that changes the Unit) for it."""

    runtime: Runtime
    unit: Callable[..., Unit]
    own_keeper: bool = True
    """Whether a process beside the Unit's own keeps it."""


@pytest.fixture
def units(tmp_path: Path) -> Iterator[UnitHost]:
    host = UnitHost(tmp_path / "main")
    yield host
    host.close()


OBEDIENT = ("/bin/sh", "-c", "trap 'exit 0' TERM; echo ready; sleep 300 & wait")
"""As PID 1 of a container: the kernel keeps signals from it that it does not ask for."""


@pytest.fixture
def containers(request: pytest.FixtureRequest, units: UnitHost) -> Iterator[Subject]:
    """Containers of a plain image: PID 1 is the Unit's program, and Docker its keeper."""
    engine: DockerBed = request.getfixturevalue("docker")
    prefix = f"redisforge-test-{os.getpid()}-{request.node.name.partition('[')[0][-40:]}-"
    image = Container(BASE_IMAGE, (units.layout.tls,))

    def unit(name: str = "one", variant: str = "") -> Unit:
        files = (UnitFile("settings.conf", variant),)
        return units.unit(name, (*OBEDIENT, variant), files=files, container=image, open_files=0)

    yield Subject(DockerRuntime(LocalTransport(), units.layout, DockerHost("main", prefix)), unit, own_keeper=False)
    left = engine.docker("ps", "--all", "--quiet", "--filter", f"label={FOLDER_LABEL}={units.path}").split()
    if left:
        engine.docker("rm", "--force", "--volumes", *left)


@pytest.fixture(params=["process", "docker", "fake"])
def subject(request: pytest.FixtureRequest, units: UnitHost) -> Subject:
    if request.param == "docker":
        made: Subject = request.getfixturevalue("containers")
        return made

    def unit(name: str = "one", variant: str = "") -> Unit:
        return units.unit(name, (*SLEEP, variant), files=(UnitFile("settings.conf", variant),))

    return Subject(units.runtime if request.param == "process" else FakeRuntime(), unit)


async def running(runtime: Runtime, *names: str) -> dict[str, UnitFacts]:
    """The facts, once each of `names` runs: a process needs a moment between its keeper's start and its own."""
    deadline = time.monotonic() + 30.0
    while True:
        facts = await runtime.observe()
        if all(name in facts and facts[name].state is UnitState.RUNNING for name in names):
            return facts
        assert time.monotonic() < deadline, f"not running: {facts}"
        await asyncio.sleep(0.01)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


async def test_at_first_nothing_is_known(subject: Subject) -> None:
    assert await subject.runtime.observe() == {}


async def test_a_started_unit_runs_with_the_hash_of_its_configuration(subject: Subject) -> None:
    unit = subject.unit()
    await subject.runtime.start([unit])
    facts = (await running(subject.runtime, "one"))["one"]
    assert facts.name == "one"
    assert facts.config_hash == unit.config_hash
    assert facts.pid > 0
    assert facts.keeper_pid > 0
    assert (facts.keeper_pid != facts.pid) is subject.own_keeper
    assert (facts.restart_count, facts.reason) == (0, "")
    assert not facts.has_cluster_config


async def test_a_unit_that_nothing_is_in_the_way_of_passes_the_check_and_does_not_start(subject: Subject) -> None:
    await subject.runtime.check([subject.unit()])
    assert await subject.runtime.observe() == {}
    await subject.runtime.start([subject.unit()])
    await running(subject.runtime, "one")
    await subject.runtime.check([subject.unit()])  # itself is nobody else


@pytest.mark.parametrize("subject", ["process", "docker"], indirect=True)
async def test_nobody_else_on_the_host_reads_what_a_unit_writes(subject: Subject, units: UnitHost) -> None:
    await subject.runtime.place([subject.unit()])
    units.folder("one").chmod(0o755)
    await subject.runtime.start([subject.unit()])
    await running(subject.runtime, "one")
    assert stat.S_IMODE(units.folder("one").stat().st_mode) == 0o700


async def test_starting_nothing_is_fine(subject: Subject) -> None:
    await subject.runtime.start([])
    assert await subject.runtime.observe() == {}


async def test_a_running_unit_is_left_alone(subject: Subject) -> None:
    await subject.runtime.start([subject.unit()])
    before = await running(subject.runtime, "one")
    await subject.runtime.start([subject.unit()])
    assert await subject.runtime.observe() == before


async def test_a_running_unit_keeps_the_hash_that_it_was_started_with(subject: Subject) -> None:
    """So drift is seen: the files are the new ones, the process is the old one."""
    await subject.runtime.start([subject.unit()])
    before = await running(subject.runtime, "one")
    changed = subject.unit(variant="changed")
    await subject.runtime.start([changed])
    placed = msgspec.structs.replace(before["one"], placed_hash=changed.placed_hash)
    assert await subject.runtime.observe() == {"one": placed}


async def test_placed_files_are_known_and_leave_the_process_alone(subject: Subject) -> None:
    await subject.runtime.start([subject.unit()])
    before = (await running(subject.runtime, "one"))["one"]
    assert before.placed_hash == subject.unit().placed_hash
    changed = subject.unit(variant="changed")

    await subject.runtime.place([changed])

    after = (await subject.runtime.observe())["one"]
    assert after.placed_hash == changed.placed_hash != before.placed_hash
    assert msgspec.structs.replace(after, placed_hash=before.placed_hash) == before


async def test_what_a_running_process_was_told_of_is_known_until_it_ends(subject: Subject) -> None:
    unit, changed = subject.unit(), subject.unit(variant="changed")
    await subject.runtime.start([unit])
    before = (await running(subject.runtime, "one"))["one"]

    await subject.runtime.note_applied(changed, before)

    told = (await subject.runtime.observe())["one"]
    assert told.config_hash == changed.config_hash != before.config_hash
    assert told.applied_at_s >= before.started_at_s
    await subject.runtime.stop(["one"])
    await subject.runtime.start([unit])
    after = (await running(subject.runtime, "one"))["one"]
    assert (after.config_hash, after.applied_at_s) == (unit.config_hash, 0.0)


async def test_a_process_that_has_ended_meanwhile_was_told_of_nothing(subject: Subject) -> None:
    unit, changed = subject.unit(), subject.unit(variant="changed")
    await subject.runtime.start([unit])
    before = (await running(subject.runtime, "one"))["one"]
    await subject.runtime.stop(["one"])
    await subject.runtime.start([unit])
    await running(subject.runtime, "one")

    await subject.runtime.note_applied(changed, before)

    assert (await subject.runtime.observe())["one"].config_hash == unit.config_hash


async def test_several_units_are_started_and_stopped_at_once_and_one_alone(subject: Subject) -> None:
    names = ("one", "two", "three")
    await subject.runtime.start([subject.unit(name) for name in names])
    before = await running(subject.runtime, *names)
    assert set(before) == set(names)
    pids, keepers = ({getattr(facts, kind) for facts in before.values()} for kind in ("pid", "keeper_pid"))
    assert (len(pids), len(keepers), len(pids | keepers)) == (3, 3, 6 if subject.own_keeper else 3)

    await subject.runtime.stop(["two"])
    after = await subject.runtime.observe()
    assert after["two"].state is UnitState.STOPPED
    assert (after["one"], after["three"]) == (before["one"], before["three"])

    await subject.runtime.stop(names)
    assert {facts.state for facts in (await subject.runtime.observe()).values()} == {UnitState.STOPPED}


async def test_a_stopped_unit_is_known_and_has_no_process(subject: Subject) -> None:
    await subject.runtime.start([subject.unit()])
    await running(subject.runtime, "one")
    await subject.runtime.stop(["one"])
    facts = (await subject.runtime.observe())["one"]
    assert (facts.state, facts.pid, facts.keeper_pid, facts.config_hash) == (UnitState.STOPPED, 0, 0, "")


async def test_stopping_twice_and_stopping_nobody_is_fine(subject: Subject) -> None:
    await subject.runtime.start([subject.unit()])
    await running(subject.runtime, "one")
    await subject.runtime.stop(["one"])
    before = await subject.runtime.observe()
    await subject.runtime.stop(["one"])
    await subject.runtime.stop(["nobody"])
    await subject.runtime.stop([])
    assert await subject.runtime.observe() == before


async def test_a_unit_started_after_a_stop_is_a_new_process_of_the_new_configuration(subject: Subject) -> None:
    await subject.runtime.start([subject.unit()])
    before = (await running(subject.runtime, "one"))["one"]
    await subject.runtime.stop(["one"])
    changed = subject.unit(variant="changed")
    await subject.runtime.start([changed])
    after = (await running(subject.runtime, "one"))["one"]
    assert after.pid != before.pid
    assert after.config_hash == changed.config_hash != before.config_hash


async def test_a_removed_unit_is_unknown_and_can_be_started_anew(subject: Subject) -> None:
    await subject.runtime.start([subject.unit("one"), subject.unit("two")])
    await running(subject.runtime, "one", "two")
    await subject.runtime.stop(["one"])
    await subject.runtime.remove(["one", "nobody"])
    assert set(await subject.runtime.observe()) == {"two"}
    await subject.runtime.start([subject.unit("one")])
    assert set(await running(subject.runtime, "one", "two")) == {"one", "two"}


async def test_observing_changes_nothing(subject: Subject) -> None:
    await subject.runtime.start([subject.unit()])
    before = await running(subject.runtime, "one")
    before_copy = dict(before)
    before.clear()  # what is handed out is the caller's own
    assert await subject.runtime.observe() == before_copy == await subject.runtime.observe()


async def test_every_unit_has_a_log_of_its_own(subject: Subject) -> None:
    paths = [subject.runtime.log_path(name) for name in ("one", "two")]
    assert all(paths)
    assert len(set(paths)) == 2


@pytest.mark.parametrize("subject", ["process", "docker"], indirect=True)
async def test_the_command_that_an_operator_is_told_stops_a_unit_for_good(subject: Subject) -> None:
    await subject.runtime.start([subject.unit("one"), subject.unit("two")])
    before = await running(subject.runtime, "one", "two")

    stray = subject.runtime.as_stray(before["one"])
    await asyncio.to_thread(subprocess.run, stray.stop_command, check=True, timeout=60, capture_output=True)

    assert (stray.unit, stray.host) == (before["one"], "this machine")
    after = await subject.runtime.observe()
    assert (after["one"].state, after["one"].pid, after["one"].keeper_pid) == (UnitState.STOPPED, 0, 0)
    assert after["two"] == before["two"]


# Only processes: Units in memory have no files and no programs.


async def test_the_files_of_a_unit_are_placed_before_it_starts(units: UnitHost) -> None:
    reader = "cat settings.conf users.acl; echo; exec sleep 300"
    unit = units.unit(
        argv=(*SLEEP[:-1], reader),
        files=(UnitFile("settings.conf", "plain "), UnitFile("users.acl", Secret("swordfish"), 0o600)),
    )
    await units.runtime.start([unit])
    await running(units.runtime, "worker")
    await asyncio.to_thread(units.await_log, "plain swordfish\n")
    assert modes(units.folder())["users.acl"] == 0o600
    assert "swordfish" not in units.folder().joinpath("unit.json").read_text()
    await units.runtime.stop(["worker"])
    await units.runtime.remove(["worker"])
    assert not units.folder().exists()


async def test_the_files_of_a_running_unit_are_the_new_ones(units: UnitHost) -> None:
    await units.runtime.start([units.unit(files=(UnitFile("settings.conf", "old"),))])
    await running(units.runtime, "worker")
    await units.runtime.start([units.unit(files=(UnitFile("settings.conf", "new"),))])
    assert units.folder().joinpath("settings.conf").read_text() == "new"
