"""How every Transport runs commands, and what only a real host can show.

The commands are few; the host in memory answers them from a table, this machine and a host over SSH run them.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from redisforge.errors import HostError
from redisforge.fleet.fake import FakeTransport
from redisforge.fleet.transport import CommandResult, LocalTransport, Transport
from ssh_server import SshServer
from waiting import until

SPEAKS = ("sh", "-c", "echo said; echo grumbled >&2")
FAILS = ("sh", "-c", "echo half done; echo no space left >&2; exit 3")
QUOTED = ("printf", "%s|", "two words", "$HOME", "a'b", "*")
MISSING = ("no-such-program-of-redisforge", "--version")
LIMIT_S = 20.0

ANSWERS: dict[tuple[str, ...], CommandResult] = {
    SPEAKS: CommandResult(SPEAKS, 0, "said\n", "grumbled\n"),
    FAILS: CommandResult(FAILS, 3, "half done\n", "no space left\n"),
    QUOTED: CommandResult(QUOTED, 0, "two words|$HOME|a'b|*|", ""),
}


def answer(argv: tuple[str, ...]) -> CommandResult:
    if argv not in ANSWERS:
        raise HostError(f"cannot run {argv[0]}", where="fake", why="No such file or directory")
    return ANSWERS[argv]


def number_in(path: Path) -> int:
    return int(path.read_text())


@pytest.fixture(params=["local", "ssh"])
async def real(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    if request.param == "local":
        yield LocalTransport()
        return
    server: SshServer = request.getfixturevalue("ssh_server")
    transport = server.transport()
    yield transport
    await transport.close()


@pytest.fixture(params=["local", "ssh", "fake"])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    if request.param == "fake":
        yield FakeTransport(answer)
    elif request.param == "local":
        yield LocalTransport()
    else:
        server: SshServer = request.getfixturevalue("ssh_server")
        transport = server.transport()
        yield transport
        await transport.close()


async def test_a_command_that_ends_well_returns_both_streams(host: Transport) -> None:
    result = await host.run(SPEAKS, timeout_s=LIMIT_S)
    assert result == CommandResult(SPEAKS, 0, "said\n", "grumbled\n")


async def test_a_failing_command_is_an_error_that_names_host_status_and_cause(host: Transport) -> None:
    with pytest.raises(HostError, match="sh failed with exit status 3") as caught:
        await host.run(FAILS, timeout_s=LIMIT_S)
    assert caught.value.where == host.host
    assert "no space left" in caught.value.why


async def test_a_failing_command_without_check_is_an_answer(host: Transport) -> None:
    result = await host.run(FAILS, timeout_s=LIMIT_S, check=False)
    assert (result.exit_status, result.stdout, result.stderr) == (3, "half done\n", "no space left\n")


@pytest.mark.parametrize("check", [True, False])
async def test_a_program_that_is_not_there_is_an_error_even_without_check(host: Transport, check: bool) -> None:
    with pytest.raises(HostError, match=f"cannot run {MISSING[0]}") as caught:
        await host.run(MISSING, timeout_s=LIMIT_S, check=check)
    assert caught.value.where == host.host
    assert caught.value.why == "No such file or directory"


async def test_arguments_arrive_as_they_are_and_no_shell_reads_them(host: Transport) -> None:
    assert (await host.run(list(QUOTED), timeout_s=LIMIT_S)) == ANSWERS[QUOTED]


async def test_what_a_command_is_given_is_taken_once_and_its_end_is_checked(host: Transport) -> None:
    pieces = iter([b"first ", b"second"])
    assert (await host.feed(SPEAKS, pieces, timeout_s=LIMIT_S)).stdout == "said\n"
    with pytest.raises(HostError, match="sh failed with exit status 3"):
        await host.feed(FAILS, [b"piece"], timeout_s=LIMIT_S)
    assert (await host.feed(FAILS, [], timeout_s=LIMIT_S, check=False)).exit_status == 3


async def test_the_host_in_memory_keeps_what_a_command_was_given() -> None:
    fake = FakeTransport(answer)
    await fake.feed(SPEAKS, [b"first ", b"second"], timeout_s=LIMIT_S)
    assert fake.fed == {SPEAKS: b"first second"}
    assert fake.commands == [SPEAKS]


async def test_the_host_in_memory_records_every_command() -> None:
    fake = FakeTransport(answer)
    await fake.run(SPEAKS, timeout_s=LIMIT_S)
    with pytest.raises(HostError):
        await fake.run(FAILS, timeout_s=LIMIT_S)
    assert fake.commands == [SPEAKS, FAILS]


# Only on real hosts: the host in memory answers at once, has no processes, no signals and no standard input.


async def test_a_command_over_its_time_is_killed(real: Transport, tmp_path: Path) -> None:
    pid_path = tmp_path / "pid"
    hang = (
        sys.executable,
        "-c",
        f"import os, time; open({str(pid_path)!r}, 'w').write(str(os.getpid())); time.sleep(99)",
    )
    with pytest.raises(HostError, match="did not end") as caught:
        await real.run(hang, timeout_s=2.0)
    assert "no end within 2 s" in caught.value.why
    with pytest.raises(ProcessLookupError):
        os.kill(number_in(pid_path), 0)


async def test_the_time_limit_holds_when_a_grandchild_keeps_the_streams_open(real: Transport) -> None:
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(HostError, match="did not end"):
            await real.run(("sh", "-c", "sleep 60 & sleep 60"), timeout_s=0.2)


async def test_a_command_killed_by_a_signal_has_failed(real: Transport) -> None:
    with pytest.raises(HostError, match="failed with exit status -9"):
        await real.run(("sh", "-c", "kill -9 $$"), timeout_s=LIMIT_S)


async def test_a_command_gets_no_standard_input(real: Transport) -> None:
    assert (await real.run(("cat",), timeout_s=LIMIT_S)).stdout == ""


async def test_output_that_is_no_text_is_replaced(real: Transport) -> None:
    result = await real.run(("printf", r"a\377b"), timeout_s=LIMIT_S)
    assert result.stdout == "a\N{REPLACEMENT CHARACTER}b"


async def test_output_larger_than_a_pipe_arrives_whole(real: Transport) -> None:
    many = (sys.executable, "-c", "import sys; sys.stdout.write('o' * 300000); sys.stderr.write('e' * 300000)")
    result = await real.run(many, timeout_s=LIMIT_S)
    assert (result.stdout, result.stderr) == ("o" * 300000, "e" * 300000)


async def test_a_long_complaint_is_cut_to_its_end(real: Transport) -> None:
    with pytest.raises(HostError) as caught:
        await real.run((sys.executable, "-c", "import sys; sys.exit('x' * 5000 + 'the end')"), timeout_s=LIMIT_S)
    assert caught.value.why.strip().endswith("the end")
    assert len(caught.value.why) <= 2000


class Endless:
    """Pieces without an end, and how many were taken."""

    size_bytes = 1 << 18

    def __init__(self) -> None:
        self.taken_count = 0

    def __iter__(self) -> Iterator[bytes]:
        for self.taken_count in itertools.count(1):
            yield b"x" * self.size_bytes


async def test_a_command_reads_all_that_it_is_given(real: Transport) -> None:
    pieces = (bytes([number]) * 70_000 for number in range(200))
    assert (await real.feed(("sha256sum",), pieces, timeout_s=LIMIT_S)).stdout.startswith(
        hashlib.sha256(b"".join(bytes([number]) * 70_000 for number in range(200))).hexdigest()
    )


async def test_a_command_that_ends_early_is_not_given_the_rest(real: Transport) -> None:
    given = Endless()
    assert (await real.feed(("head", "-c", "3"), given, timeout_s=LIMIT_S)).stdout == "xxx"
    assert given.taken_count * given.size_bytes < 64 << 20


async def test_pieces_wait_until_there_is_room(real: Transport) -> None:
    given = Endless()
    with pytest.raises(HostError, match="did not end"):
        await real.feed(("sleep", "60"), given, timeout_s=2.0)
    assert 0 < given.taken_count * given.size_bytes < 64 << 20


async def test_a_command_whose_pieces_stop_coming_is_killed(real: Transport, tmp_path: Path) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    script = 'echo $$ >"$0"; cat; echo whole >"$1"'
    argv = ("sh", "-c", script, str(started), str(ended))
    feeding = asyncio.create_task(real.feed(argv, Endless(), timeout_s=LIMIT_S))
    await asyncio.to_thread(until, lambda: has_text(started), "the command runs")
    feeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeding
    await asyncio.to_thread(until, lambda: not is_alive(number_in(started)), "it is gone")
    assert not ended.exists()


def has_text(path: Path) -> bool:
    return path.exists() and path.read_text().endswith("\n")


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
