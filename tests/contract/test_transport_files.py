"""How every Transport places, reads and removes files, and what only a real host can show."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from redisforge.errors import HostError
from redisforge.fleet.fake import FakeTransport
from redisforge.fleet.transport import CommandResult, LocalTransport, Transport
from redisforge.model.secret import Secret
from redisforge.model.unit import UnitFile
from ssh_server import SshServer


class Host(NamedTuple):
    """A transport, an empty folder on its host, and a look at the permission bits of a file there."""

    transport: Transport
    folder: str
    mode: Callable[[str], int]


def refuse(argv: tuple[str, ...]) -> CommandResult:
    raise AssertionError(f"no command is needed for files: {argv}")


def local_mode(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def written(folder: str, name: str) -> str:
    return Path(folder, name).read_text()


def spoil(folder: str, name: str, content: bytes) -> None:
    Path(folder, name).write_bytes(content)


def open_to_all(folder: str, name: str) -> None:
    Path(folder, name).chmod(0o644)


def add_link(folder: str, name: str, target: str, *, hard: bool) -> None:
    link, path = Path(folder, name), Path(folder, target)
    if hard:
        link.hardlink_to(path)
    else:
        link.symlink_to(path)


def inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


@pytest.fixture(params=["local", "ssh"])
async def real(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    if request.param == "local":
        yield Host(LocalTransport(), str(tmp_path), local_mode)
        return
    server: SshServer = request.getfixturevalue("ssh_server")
    transport = server.transport()
    yield Host(transport, str(tmp_path), local_mode)
    await transport.close()


@pytest.fixture(params=["local", "ssh", "fake"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    if request.param == "fake":
        fake = FakeTransport(refuse)

        def mode(path: str) -> int:
            return fake.files[path].mode

        yield Host(fake, "/srv/folder", mode)
    elif request.param == "local":
        yield Host(LocalTransport(), str(tmp_path), local_mode)
    else:
        server: SshServer = request.getfixturevalue("ssh_server")
        transport = server.transport()
        yield Host(transport, str(tmp_path), local_mode)
        await transport.close()


@pytest.fixture
def narrow_umask() -> Iterator[None]:
    previous = os.umask(0o077)
    yield
    os.umask(previous)


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


# Only on real hosts: the host in memory has no inodes, links, umask or folders that could be in the way.


async def test_nothing_but_the_files_is_left_behind(real: Host) -> None:
    folder = Path(real.folder)
    await real.transport.place(real.folder, FILES)
    await real.transport.place(real.folder, [UnitFile("redis.conf", "changed\n")])
    assert names_below(folder) == {"secret", *(file.path for file in FILES)}


async def test_a_file_is_replaced_and_never_written_in_place(real: Host) -> None:
    """Whoever has the old file open (here: a second name for it) keeps the whole old text."""
    await real.transport.place(real.folder, FILES)
    add_link(real.folder, "witness", "redis.conf", hard=True)
    await real.transport.place(real.folder, [UnitFile("redis.conf", "changed\n")])
    assert written(real.folder, "witness") == FILES[0].text()


async def test_an_unchanged_file_is_not_touched(real: Host) -> None:
    await real.transport.place(real.folder, FILES)
    before = inode(Path(real.folder, "redis.conf"))
    await real.transport.place(real.folder, FILES)
    assert inode(Path(real.folder, "redis.conf")) == before


@pytest.mark.usefixtures("narrow_umask")
async def test_the_mode_is_the_declared_one_whatever_the_umask(real: Host) -> None:
    await real.transport.place(real.folder, FILES)
    assert [real.mode(f"{real.folder}/{file.path}") for file in FILES] == [file.mode for file in FILES]


async def test_a_file_with_a_secret_that_was_opened_to_others_is_closed_again(real: Host) -> None:
    await real.transport.place(real.folder, FILES)
    open_to_all(real.folder, "secret/users.acl")
    assert await real.transport.place(real.folder, FILES) == ("secret/users.acl",)
    assert real.mode(f"{real.folder}/secret/users.acl") == 0o600


async def test_damaged_text_is_replaced(real: Host) -> None:
    spoil(real.folder, "redis.conf", b"\xff\xfe\x00")
    assert await real.transport.read(f"{real.folder}/redis.conf") == "\N{REPLACEMENT CHARACTER}" * 2 + "\0"
    assert await real.transport.place(real.folder, FILES[:1]) == ("redis.conf",)


@pytest.mark.parametrize(("in_the_way", "wanted"), [("redis.conf/x", "redis.conf"), ("secret", "secret/users.acl")])
async def test_what_is_in_the_way_is_an_error_and_stays(real: Host, in_the_way: str, wanted: str) -> None:
    await real.transport.place(real.folder, [UnitFile(in_the_way, "mine")])
    before = names_below(Path(real.folder))
    with pytest.raises(HostError, match="cannot write a file") as caught:
        await real.transport.place(real.folder, [UnitFile(wanted, Secret("swordfish"))])
    assert wanted in caught.value.where
    assert "swordfish" not in str(caught.value)
    assert names_below(Path(real.folder)) == before
    assert await real.transport.read(f"{real.folder}/{in_the_way}") == "mine"


async def test_a_folder_is_no_file_to_read(real: Host) -> None:
    with pytest.raises(HostError, match="cannot read a file") as caught:
        await real.transport.read(real.folder)
    assert real.folder in caught.value.where


async def test_removing_a_link_leaves_what_it_points_to(real: Host) -> None:
    await real.transport.place(real.folder, [UnitFile("data/precious", "kept")])
    add_link(real.folder, "link", "data", hard=False)
    await real.transport.remove(f"{real.folder}/link")
    assert names_below(Path(real.folder)) == {"data", "data/precious"}
