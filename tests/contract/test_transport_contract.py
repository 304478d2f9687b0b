"""What every Transport does alike, and what only a real host can show.

The commands of the suite are few; the host in memory answers them from a table, this machine runs them.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from redisforge.errors import HostError
from redisforge.fleet.fake import FakeTransport
from redisforge.fleet.transport import CommandResult, LocalTransport, Transport
from redisforge.model.secret import Secret
from redisforge.model.unit import UnitFile

SPEAKS = ("sh", "-c", "echo said; echo grumbled >&2")
FAILS = ("sh", "-c", "echo half done; echo no space left >&2; exit 3")
QUOTED = ("printf", "%s|", "two words", "$HOME", "a'b", "*")
MISSING = ("no-such-program-of-redisforge", "--version")
LIMIT_S = 20.0

ANSWERS = {
    SPEAKS: CommandResult(SPEAKS, 0, "said\n", "grumbled\n"),
    FAILS: CommandResult(FAILS, 3, "half done\n", "no space left\n"),
    QUOTED: CommandResult(QUOTED, 0, "two words|$HOME|a'b|*|", ""),
}


class Host(NamedTuple):
    """A transport, an empty folder on its host, and a look at the permission bits of a file there."""

    transport: Transport
    folder: str
    mode: Callable[[str], int]


def answer(argv: tuple[str, ...]) -> CommandResult:
    if argv not in ANSWERS:
        raise HostError(f"cannot run {argv[0]}", where="fake", why="No such file or directory")
    return ANSWERS[argv]


def local_mode(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


@pytest.fixture(params=["local", "fake"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    if request.param == "local":
        return Host(LocalTransport(), str(tmp_path), local_mode)
    fake = FakeTransport(answer)
    return Host(fake, "/srv/folder", lambda path: fake.files[path].mode)


@pytest.fixture
def local(tmp_path: Path) -> Host:
    return Host(LocalTransport(), str(tmp_path), local_mode)


@pytest.fixture
def narrow_umask() -> Iterator[None]:
    previous = os.umask(0o077)
    yield
    os.umask(previous)


# --- commands ------------------------------------------------------------------------------------------------


async def test_a_command_that_ends_well_returns_both_streams(host: Host) -> None:
    result = await host.transport.run(SPEAKS, timeout_s=LIMIT_S)
    assert result == CommandResult(SPEAKS, 0, "said\n", "grumbled\n")


async def test_a_failing_command_is_an_error_that_names_host_status_and_cause(host: Host) -> None:
    with pytest.raises(HostError, match="sh failed with exit status 3") as caught:
        await host.transport.run(FAILS, timeout_s=LIMIT_S)
    assert caught.value.where == host.transport.host
    assert "no space left" in caught.value.why


async def test_a_failing_command_without_check_is_an_answer(host: Host) -> None:
    result = await host.transport.run(FAILS, timeout_s=LIMIT_S, check=False)
    assert (result.exit_status, result.stdout, result.stderr) == (3, "half done\n", "no space left\n")


@pytest.mark.parametrize("check", [True, False])
async def test_a_program_that_is_not_there_is_an_error_even_without_check(host: Host, check: bool) -> None:
    with pytest.raises(HostError, match=f"cannot run {MISSING[0]}") as caught:
        await host.transport.run(MISSING, timeout_s=LIMIT_S, check=check)
    assert caught.value.where == host.transport.host
    assert caught.value.why == "No such file or directory"


async def test_arguments_arrive_as_they_are_and_no_shell_reads_them(host: Host) -> None:
    assert (await host.transport.run(list(QUOTED), timeout_s=LIMIT_S)) == ANSWERS[QUOTED]


async def test_the_host_in_memory_records_every_command() -> None:
    fake = FakeTransport(answer)
    await fake.run(SPEAKS, timeout_s=LIMIT_S)
    with pytest.raises(HostError):
        await fake.run(FAILS, timeout_s=LIMIT_S)
    assert fake.commands == [SPEAKS, FAILS]


# Only on this machine: the host in memory answers at once, has no processes, no signals and no standard input.


async def test_a_command_over_its_time_is_killed(local: Host) -> None:
    pid_path = Path(local.folder, "pid")
    hang = (
        sys.executable,
        "-c",
        f"import os, time; open({str(pid_path)!r}, 'w').write(str(os.getpid())); time.sleep(99)",
    )
    with pytest.raises(HostError, match="did not end") as caught:
        await local.transport.run(hang, timeout_s=2.0)
    assert "no end within 2 s" in caught.value.why
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_path.read_text()), 0)


async def test_the_time_limit_holds_when_a_grandchild_keeps_the_streams_open(local: Host) -> None:
    started = time.monotonic()
    with pytest.raises(HostError, match="did not end"):
        await local.transport.run(("sh", "-c", "sleep 5 & sleep 5"), timeout_s=0.2)
    assert time.monotonic() - started < 4.0


async def test_a_command_killed_by_a_signal_has_failed(local: Host) -> None:
    with pytest.raises(HostError, match="failed with exit status -9"):
        await local.transport.run(("sh", "-c", "kill -9 $$"), timeout_s=LIMIT_S)


async def test_a_command_gets_no_standard_input(local: Host) -> None:
    assert (await local.transport.run(("cat",), timeout_s=LIMIT_S)).stdout == ""


async def test_output_that_is_no_text_is_replaced(local: Host) -> None:
    result = await local.transport.run(("printf", r"a\377b"), timeout_s=LIMIT_S)
    assert result.stdout == "a\N{REPLACEMENT CHARACTER}b"


async def test_output_larger_than_a_pipe_arrives_whole(local: Host) -> None:
    many = (sys.executable, "-c", "import sys; sys.stdout.write('o' * 300000); sys.stderr.write('e' * 300000)")
    result = await local.transport.run(many, timeout_s=LIMIT_S)
    assert (result.stdout, result.stderr) == ("o" * 300000, "e" * 300000)


async def test_a_long_complaint_is_cut_to_its_end(local: Host) -> None:
    with pytest.raises(HostError) as caught:
        await local.transport.run(
            (sys.executable, "-c", "import sys; sys.exit('x' * 5000 + 'the end')"), timeout_s=LIMIT_S
        )
    assert caught.value.why.strip().endswith("the end")
    assert len(caught.value.why) <= 2000


# --- files ---------------------------------------------------------------------------------------------------

FILES = (
    UnitFile("redis.conf", "port 0\ntls-port 7001\n"),
    UnitFile("secret/users.acl", Secret("user app on >swordfish\n"), 0o600),
    UnitFile("run.sh", "#!/bin/sh\n", 0o755),
    UnitFile("empty", ""),
    UnitFile("grüße.txt", "Grüße, 世界\n"),
)


async def test_files_are_placed_with_their_text_and_mode(host: Host) -> None:
    assert await host.transport.place(host.folder, FILES) == tuple(file.path for file in FILES)
    for file in FILES:
        assert await host.transport.read(f"{host.folder}/{file.path}") == file.text()
        assert host.mode(f"{host.folder}/{file.path}") == file.mode


async def test_unchanged_files_are_left_alone_and_not_reported(host: Host) -> None:
    await host.transport.place(host.folder, FILES)
    assert await host.transport.place(host.folder, FILES) == ()


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(UnitFile("redis.conf", "port 0\n"), id="shorter text"),
        pytest.param(UnitFile("redis.conf", "port 0\ntls-port 7002\n"), id="other text of the same length"),
        pytest.param(UnitFile("redis.conf", ""), id="nothing"),
        pytest.param(UnitFile("redis.conf", "port 0\ntls-port 7001\n", 0o600), id="other mode"),
    ],
)
async def test_exactly_the_changed_file_is_reported(host: Host, other: UnitFile) -> None:
    await host.transport.place(host.folder, FILES)
    assert await host.transport.place(host.folder, (other, *FILES[1:])) == ("redis.conf",)
    assert await host.transport.read(f"{host.folder}/redis.conf") == other.text()
    assert host.mode(f"{host.folder}/redis.conf") == other.mode


async def test_the_line_ends_of_a_file_count(host: Host) -> None:
    windows = UnitFile("redis.conf", "port 0\r\n")
    assert await host.transport.place(host.folder, [windows]) == ("redis.conf",)
    assert await host.transport.place(host.folder, [windows]) == ()
    assert await host.transport.place(host.folder, [UnitFile("redis.conf", "port 0\n")]) == ("redis.conf",)


async def test_a_file_that_is_not_there_reads_as_none(host: Host) -> None:
    assert await host.transport.read(f"{host.folder}/nothing") is None
    assert await host.transport.read(f"{host.folder}/no/such/folder/nothing") is None


async def test_a_removed_file_is_gone_and_placed_again_as_new(host: Host) -> None:
    await host.transport.place(host.folder, FILES)
    await host.transport.remove(f"{host.folder}/redis.conf")
    assert await host.transport.read(f"{host.folder}/redis.conf") is None
    assert await host.transport.read(f"{host.folder}/run.sh") == "#!/bin/sh\n"
    assert await host.transport.place(host.folder, FILES) == ("redis.conf",)


async def test_a_removed_folder_takes_all_in_it_and_nothing_beside_it(host: Host) -> None:
    files = [UnitFile(path, path) for path in ("unit/a", "unit/data/b", "unit-2/c")]
    await host.transport.place(host.folder, files)
    await host.transport.remove(f"{host.folder}/unit")
    left = [await host.transport.read(f"{host.folder}/{file.path}") for file in files]
    assert left == [None, None, "unit-2/c"]


async def test_removing_nothing_is_fine(host: Host) -> None:
    await host.transport.place(host.folder, FILES)
    await host.transport.remove(f"{host.folder}/nothing")
    await host.transport.remove(f"{host.folder}/no/such/folder/nothing")
    assert await host.transport.place(host.folder, FILES) == ()


async def test_free_space_is_known_before_a_folder_is_made(host: Host) -> None:
    assert await host.transport.free_bytes(host.folder) > 0
    assert await host.transport.free_bytes(f"{host.folder}/not/yet/made") > 0


# Only on this machine: the host in memory has no inodes, links, umask or folders that could be in the way.


async def test_nothing_but_the_files_is_left_behind(local: Host) -> None:
    folder = Path(local.folder)
    await local.transport.place(local.folder, FILES)
    await local.transport.place(local.folder, [UnitFile("redis.conf", "changed\n")])
    assert names_below(folder) == {"secret", *(file.path for file in FILES)}


async def test_a_file_is_replaced_and_never_written_in_place(local: Host) -> None:
    """Whoever has the old file open (here: a second name for it) keeps the whole old text."""
    await local.transport.place(local.folder, FILES)
    witness = Path(local.folder, "witness")
    witness.hardlink_to(Path(local.folder, "redis.conf"))
    await local.transport.place(local.folder, [UnitFile("redis.conf", "changed\n")])
    assert witness.read_text() == FILES[0].text()


async def test_an_unchanged_file_is_not_touched(local: Host) -> None:
    await local.transport.place(local.folder, FILES)
    before = inode(Path(local.folder, "redis.conf"))
    await local.transport.place(local.folder, FILES)
    assert inode(Path(local.folder, "redis.conf")) == before


@pytest.mark.usefixtures("narrow_umask")
async def test_the_mode_is_the_declared_one_whatever_the_umask(local: Host) -> None:
    await local.transport.place(local.folder, FILES)
    assert [local.mode(f"{local.folder}/{file.path}") for file in FILES] == [file.mode for file in FILES]


async def test_a_file_with_a_secret_that_was_opened_to_others_is_closed_again(local: Host) -> None:
    await local.transport.place(local.folder, FILES)
    Path(local.folder, "secret/users.acl").chmod(0o644)
    assert await local.transport.place(local.folder, FILES) == ("secret/users.acl",)
    assert local.mode(f"{local.folder}/secret/users.acl") == 0o600


async def test_damaged_text_is_replaced(local: Host) -> None:
    Path(local.folder, "redis.conf").write_bytes(b"\xff\xfe\x00")
    assert await local.transport.read(f"{local.folder}/redis.conf") == "\N{REPLACEMENT CHARACTER}" * 2 + "\0"
    assert await local.transport.place(local.folder, FILES[:1]) == ("redis.conf",)


@pytest.mark.parametrize(("in_the_way", "wanted"), [("redis.conf/x", "redis.conf"), ("secret", "secret/users.acl")])
async def test_what_is_in_the_way_is_an_error_and_stays(local: Host, in_the_way: str, wanted: str) -> None:
    await local.transport.place(local.folder, [UnitFile(in_the_way, "mine")])
    before = names_below(Path(local.folder))
    with pytest.raises(HostError, match="cannot write a file") as caught:
        await local.transport.place(local.folder, [UnitFile(wanted, Secret("swordfish"))])
    assert wanted in caught.value.where
    assert "swordfish" not in str(caught.value)
    assert names_below(Path(local.folder)) == before
    assert await local.transport.read(f"{local.folder}/{in_the_way}") == "mine"


async def test_a_folder_is_no_file_to_read(local: Host) -> None:
    with pytest.raises(HostError, match="cannot read a file") as caught:
        await local.transport.read(local.folder)
    assert local.folder in caught.value.where


async def test_removing_a_link_leaves_what_it_points_to(local: Host) -> None:
    await local.transport.place(local.folder, [UnitFile("data/precious", "kept")])
    link = Path(local.folder, "link")
    link.symlink_to(Path(local.folder, "data"))
    await local.transport.remove(str(link))
    assert names_below(Path(local.folder)) == {"data", "data/precious"}
