"""The programs that look at a host, run for real: this machine in the place of several hosts, and one over SSH."""

from __future__ import annotations

import os
import platform
import random
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from redisforge.errors import HostError
from redisforge.fleet.fake import FakeTransport
from redisforge.fleet.host_look import Place, look_at
from redisforge.fleet.ports import is_privileged, unprivileged_from
from redisforge.fleet.transport import CommandResult, LocalTransport, Transport
from redisforge.model.host_facts import HostFacts
from ssh_server import SshServer

ADDRESSES = ("127.0.0.31", "127.0.0.32", "127.0.0.33")
TOOLS = (
    *("sh", "bash", "sed", "awk", "tr", "cat", "cut", "id", "uname", "date", "df", "dd", "ls", "dirname", "readlink"),
    *("rm", "getconf", "grep", "tail", "timeout", "sleep"),
)


SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text())


class WithPath(LocalTransport):
    """This machine as if only what lies in `folder` were installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def run(self, argv: Sequence[str], *, timeout_s: float, check: bool = True) -> CommandResult:
        return await super().run(("env", f"PATH={self.folder}", *argv), timeout_s=timeout_s, check=check)


class Dead(LocalTransport):
    """A host that cannot be reached."""

    async def run(self, argv: Sequence[str], *, timeout_s: float, check: bool = True) -> CommandResult:
        raise HostError("the host does not answer", where="dead", why="no SSH login", next_step="Is it up?")


@pytest.fixture
def ports() -> tuple[int, int]:
    """Two that nobody has; another one for each run, below those that the kernel gives out."""
    while True:
        first = random.randrange(12000, 19000)
        if not any(_is_taken(address, port) for address in ADDRESSES for port in (first, first + 1)):
            return first, first + 1


def _is_taken(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


@pytest.fixture
def bare(tmp_path: Path) -> WithPath:
    """This machine without python3, and with dash or whatever `sh` is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return WithPath(folder)


def place(name: str, transport: Transport, address: str, ports: Sequence[int], folder: Path) -> Place:
    here = tuple((address, port) for port in ports)
    return Place(name, transport, str(folder), here, here)


@pytest_asyncio.fixture(params=["local", "ssh"])
async def one_host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Transport]:
    if request.param == "local":
        yield LocalTransport()
        return
    server = SshServer(tmp_path / "sshd")
    transport = server.transport()
    try:
        yield transport
    finally:
        await transport.close()
        server.close()


async def test_a_probe_says_what_the_machine_is_like(
    one_host: Transport, tmp_path: Path, ports: tuple[int, int]
) -> None:
    with socket.create_server((ADDRESSES[0], ports[0])):
        settings = tmp_path / "settings.conf"
        settings.write_text("a = 1\n\n# b\n")
        asked = place("one", one_host, ADDRESSES[0], ports, tmp_path / "not" / "yet there")
        look = await look_at([asked], [str(settings), str(tmp_path / "absent")], time.time)
    facts = look.hosts[0].facts
    assert facts is not None, look
    assert (facts.host, facts.system, facts.architecture) == ("one", "Linux", platform.machine())
    assert facts.cores == os.cpu_count()
    assert facts.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert facts.is_root == (os.getuid() == 0)
    assert facts.is_privileged == is_privileged()
    assert facts.folder.existing == str(tmp_path)
    assert facts.folder.is_writable
    assert abs(facts.folder.free_bytes - shutil.disk_usage(tmp_path).free) < 2**30
    assert facts.folder.write_bytes_per_s
    assert facts.sysctls["net.core.somaxconn"] == SOMAXCONN
    assert facts.sysctls["net.ipv4.ip_unprivileged_port_start"] == unprivileged_from()
    assert facts.files == {str(settings): "a = 1\n\n# b\n"}
    assert facts.missing_tools == ()
    assert [(s.address, s.port, s.pid) for s in facts.listeners] == [(ADDRESSES[0], ports[0], os.getpid())]
    assert facts.listeners[0].folder == str(Path.cwd())
    assert Path(sys.executable).name in facts.listeners[0].command or "pytest" in facts.listeners[0].command
    assert facts.clock is not None
    assert abs(facts.clock.offset_s) <= facts.clock.uncertainty_s + 0.01
    assert hidden_in(tmp_path) == [], "the trial is removed"


def hidden_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


async def test_a_skewed_clock_is_seen(tmp_path: Path) -> None:
    asked = place("one", LocalTransport(), ADDRESSES[0], (), tmp_path)
    look = await look_at([asked], [], lambda: time.time() - 3600)
    facts = look.hosts[0].facts
    assert facts is not None
    assert facts.clock is not None
    assert facts.clock.offset_s == pytest.approx(3600, abs=facts.clock.uncertainty_s + 0.01)


async def test_a_folder_that_cannot_be_written_is_not_tried(tmp_path: Path) -> None:
    folder = Path("/proc/1/no such folder")
    look = await look_at([place("one", LocalTransport(), ADDRESSES[0], (), folder)], [], time.time)
    facts = look.hosts[0].facts
    assert facts is not None
    assert facts.folder.write_bytes_per_s is None
    assert facts.folder.write_problem


async def test_hosts_reach_each_other_where_nothing_listens_yet(tmp_path: Path, ports: tuple[int, int]) -> None:
    transport = LocalTransport()
    asked = [place(address, transport, address, ports, tmp_path) for address in ADDRESSES]
    look = await look_at(asked, [], time.time)
    assert not look.untried
    assert not look.reach_problems
    tried = {(reach.source, reach.target, reach.port) for reach in look.reaches}
    assert tried == {(a, b, port) for a in ADDRESSES for b in ADDRESSES if a != b for port in ports}
    assert {reach.problem for reach in look.reaches} == {""}
    assert all(reach.rtt_s is not None and 0 < reach.rtt_s < 2 for reach in look.reaches)


async def test_a_port_that_is_closed_to_others_is_found(tmp_path: Path, ports: tuple[int, int]) -> None:
    """It is declared at an address where nothing answers: what listens is elsewhere."""
    transport = LocalTransport()
    asked = [place(address, transport, address, ports, tmp_path) for address in ADDRESSES[:2]]
    elsewhere = tuple(("127.0.0.39", port) for port in ports)
    listening_at = replace(asked[1], transport=Deaf(), inner_ports=elsewhere)
    look = await look_at([asked[0], listening_at], [], time.time)
    blocked = [(reach.target, reach.port, reach.problem) for reach in look.reaches if reach.problem]
    assert blocked == [(ADDRESSES[1], port, "Connection refused") for port in ports]


class Deaf(LocalTransport):
    """A host whose listeners nobody else can see: its network is another one."""

    async def run(self, argv: Sequence[str], *, timeout_s: float, check: bool = True) -> CommandResult:
        argv = tuple(word.replace('"listen": [["127', '"listen": [], "ignored": [["127') for word in argv)
        return await super().run(argv, timeout_s=timeout_s, check=check)


async def test_a_host_without_python_tries_the_others_and_says_what_it_cannot(
    bare: WithPath, tmp_path: Path, ports: tuple[int, int]
) -> None:
    first, second = ADDRESSES[:2]
    asked = [place(first, LocalTransport(), first, ports, tmp_path), place(second, bare, second, ports, tmp_path)]
    look = await look_at(asked, [], time.time)
    facts: dict[str, HostFacts] = {host.host: host.facts for host in look.hosts if host.facts is not None}
    assert facts[second].python == ""
    assert "tar" in facts[second].missing_tools
    assert look.untried == {(second, port) for port in ports}
    assert {(reach.source, reach.target, reach.problem) for reach in look.reaches} == {(second, first, "")}


async def test_a_dead_host_keeps_the_others_from_nothing(tmp_path: Path, ports: tuple[int, int]) -> None:
    asked = [place(address, LocalTransport(), address, ports, tmp_path) for address in ADDRESSES[:2]]
    look = await look_at([place("dead", Dead(), "127.0.0.34", ports, tmp_path), *asked], [], time.time)
    dead, *living = look.hosts
    assert (dead.facts, dead.problem, dead.next_step) == (None, "the host does not answer: no SSH login", "Is it up?")
    assert all(host.facts for host in living)
    assert {(reach.source, reach.target) for reach in look.reaches} == {ADDRESSES[:2], ADDRESSES[1::-1]}


async def test_two_rounds_whatever_the_number_of_hosts(tmp_path: Path) -> None:
    probe = "began=1\nsystem=Linux\npython=3.11.0\nended=2\n"

    def answer(argv: tuple[str, ...]) -> CommandResult:
        return CommandResult(argv, 0, probe if argv[0] == "sh" else "began\t1\nended\t2\n", "")

    fakes = [FakeTransport(answer) for _ in range(60)]
    asked = [place(f"h{n}", fake, f"10.0.0.{n}", (7001,), tmp_path) for n, fake in enumerate(fakes)]
    look = await look_at(asked, [], time.time)
    assert all(host.facts for host in look.hosts)
    assert {len(fake.commands) for fake in fakes} == {2}


async def test_an_answer_that_makes_no_sense_is_that_hosts_alone(tmp_path: Path) -> None:
    fake = FakeTransport(lambda argv: CommandResult(argv, 0, "Welcome to the jungle\n", ""))
    asked = [
        place("odd", fake, ADDRESSES[0], (), tmp_path),
        place("fine", LocalTransport(), ADDRESSES[1], (), tmp_path),
    ]
    odd, fine = (await look_at(asked, [], time.time)).hosts
    assert "did not finish" in odd.problem
    assert "jungle" in odd.problem
    assert fine.facts
