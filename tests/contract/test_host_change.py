"""Changes of a host on real files below a folder of the test's own; what would change the machine is faked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from redisforge.errors import HostError
from redisforge.fleet.host_change import make_change
from redisforge.fleet.transport import CommandResult, LocalTransport
from redisforge.model.host_facts import FolderFacts, HostFacts
from redisforge.model.host_report import FileChange, HostChange

ROOT_USER = HostFacts(
    host="h", system="Linux", user="root", is_root=True, folder=FolderFacts("/x", "/", True, 1), init="systemd"
)
WITH_SUDO = replace(ROOT_USER, user="deploy", is_root=False, can_sudo=True)
WITHOUT = replace(WITH_SUDO, can_sudo=False)
CHANGE = HostChange(
    host="h",
    why="test",
    files=(
        FileChange(path="/etc/sysctl.d/60-redisforge.conf", before=None, after="vm.overcommit_memory = 1\n"),
        FileChange(path="/etc/new folder/x.conf", before=None, after="it's `here`\n"),
    ),
    commands=(("sysctl", "-p", "/etc/sysctl.d/60-redisforge.conf"), ("systemctl", "daemon-reload")),
)


class Recorder(LocalTransport):
    """This machine for files and for the copying of them; nothing else is run, but recorded. `refused` fails."""

    def __init__(self, refused: str = "") -> None:
        self.commands: list[tuple[str, ...]] = []
        self.refused = refused

    async def run(self, argv: Sequence[str], *, timeout_s: float, check: bool = True) -> CommandResult:
        self.commands.append(tuple(argv))
        if self.refused and self.refused in argv:
            raise HostError(f"{argv[0]} failed with exit status 255", where="h", why="permission denied")
        if tuple(argv[:3]) == ("sudo", "-n", "sh"):
            return await super().run(argv[2:], timeout_s=timeout_s, check=check)
        return CommandResult(tuple(argv), 0, "", "")

    @property
    def shown(self) -> list[tuple[str, ...]]:
        return [command for command in self.commands if "sh" not in command]


@pytest.mark.parametrize("facts", [ROOT_USER, WITH_SUDO], ids=["root", "sudo"])
async def test_files_and_then_commands(facts: HostFacts, tmp_path: Path) -> None:
    transport = Recorder()
    old = tmp_path / "etc/sysctl.d/60-redisforge.conf"
    old.parent.mkdir(parents=True)
    old.write_text("old\n")
    old.chmod(0o600)
    await make_change(transport, facts, CHANGE, root=str(tmp_path))
    for file in CHANGE.files:
        there = tmp_path / file.path.lstrip("/")
        assert there.read_text() == file.after
        assert there.stat().st_mode & 0o777 == 0o644
    as_root = () if facts.is_root else ("sudo", "-n")
    assert transport.shown == [(*as_root, *command) for command in CHANGE.commands]
    assert leftovers(transport, tmp_path) == []


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def leftovers(transport: Recorder, folder: Path) -> list[Path]:
    """What was placed on the way and is still there."""
    named = [Path(word) for command in transport.commands for word in command if word.startswith("/tmp/redisforge-")]
    return [path for path in (*(path.parent for path in named), *folder.rglob("*-new")) if path.exists()]


async def test_without_rights_nothing_is_touched(tmp_path: Path) -> None:
    transport = Recorder()
    with pytest.raises(HostError, match="no right to change the host") as raised:
        await make_change(transport, WITHOUT, CHANGE, root=str(tmp_path))
    assert "NOPASSWD" in raised.value.next_step
    assert transport.commands == []
    assert names_in(tmp_path) == []


async def test_a_command_that_fails_is_told_and_ends_the_change(tmp_path: Path) -> None:
    transport = Recorder(refused="sysctl")
    with pytest.raises(HostError, match="exit status 255"):
        await make_change(transport, ROOT_USER, CHANGE, root=str(tmp_path))
    assert transport.shown == [CHANGE.commands[0]]
    assert (tmp_path / "etc/sysctl.d/60-redisforge.conf").exists(), "the next run goes on from there"


async def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    transport = Recorder()
    with pytest.raises(HostError, match="sh failed"):
        await make_change(transport, WITH_SUDO, CHANGE, root="/proc")
    assert transport.shown == [], "no command without its file"
    assert leftovers(transport, tmp_path) == []
