"""A folder of programs on its way over SSH: whole or not at all, and never as a whole in memory."""

from __future__ import annotations

import shutil
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from redisforge.errors import HostError
from ssh_server import SshServer, running

MIB = 1 << 20
FOLDER_BYTES = 64 * MIB


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of 64 MiB with a program, a link and a script that names its own folder."""
    folder = tmp_path / "programs"
    (folder / "bin").mkdir(parents=True)
    with (folder / "bin" / "engine").open("wb") as file:
        file.truncate(FOLDER_BYTES)
    (folder / "bin" / "engine").chmod(0o755)
    (folder / "bin" / "link").symlink_to("engine")
    (folder / "run").write_text(f"#!/bin/sh\nexec {folder}/bin/engine\n")
    return folder


async def test_a_large_folder_is_carried_piece_by_piece(ssh_server: SshServer, programs: Path, tmp_path: Path) -> None:
    transport, target = ssh_server.transport(), tmp_path / "there" / "programs"
    await transport.run(("true",), timeout_s=10.0)
    tracemalloc.start()
    try:
        assert await transport.carry(str(programs), str(target))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < FOLDER_BYTES / 4, f"{peak / MIB:.0f} MiB were held at once"
    assert (target / "bin" / "engine").stat().st_size == FOLDER_BYTES
    assert (target / "bin" / "engine").stat().st_mode & 0o777 == 0o755
    assert (target / "bin" / "link").readlink() == Path("engine")
    assert (target / "run").read_text() == f"#!/bin/sh\nexec {target}/bin/engine\n"
    assert not await transport.carry(str(programs), str(target)), "what is there is left alone"
    await transport.close()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB, which a server that is started afterwards sees."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder))
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system to fill")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(
    small_disk: Path, programs: Path, tmp_path: Path
) -> None:
    with (programs / "bin" / "engine").open("r+b") as file:
        for offset in range(0, FOLDER_BYTES, 4096):  # tar leaves no holes in what it unpacks, but a zero is a zero
            file.seek(offset)
            file.write(b"x")
    with running(tmp_path / "sshd") as server:
        transport = server.transport()
        with pytest.raises(HostError, match="cannot copy a folder") as caught:
            await transport.carry(str(programs), str(small_disk / "programs"))
        assert "No space left on device" in caught.value.why
        assert "far" in caught.value.where
        assert caught.value.next_step
        assert names_in(small_disk) == []
        assert (await transport.run(("echo", "fine"), timeout_s=10.0)).stdout == "fine\n"
        await transport.close()
