"""Many hosts side by side, jump hosts, and how a host's key becomes known; on real sshds."""

from __future__ import annotations

from pathlib import Path

import pytest

from redisforge.errors import HostError, UnreachableError
from redisforge.fleet.host_keys import known_hosts_name, trust
from redisforge.fleet.ssh import SshTransport
from redisforge.fleet.ssh_connection import jump_access
from redisforge.fleet.ssh_pool import over_hosts, transports
from redisforge.model.hosts import SshAccess
from ssh_server import ADDRESS, SshServer, free_port, running

LIMIT_S = 20.0


async def said(transport: SshTransport) -> str:
    return (await transport.run(("echo", transport.host), timeout_s=LIMIT_S)).stdout


async def test_a_dead_host_is_one_answer_among_the_others(ssh_server: SshServer) -> None:
    hosts = {"a": ssh_server.access(), "dead": ssh_server.access(port=free_port()), "b": ssh_server.access()}
    async with transports(hosts) as made:
        first, dead, second = await over_hosts(said, made.values(), limit=2)
    assert (first, second) == ("a\n", "b\n")
    assert isinstance(dead, UnreachableError)
    assert dead.where.startswith("dead")


async def test_a_defect_is_not_taken_for_a_dead_host() -> None:
    async def fail(host: str) -> str:
        raise RuntimeError(host)

    with pytest.raises(RuntimeError, match="only"):
        await over_hosts(fail, ["only"])


async def test_hosts_behind_a_jump_host_share_the_connection_to_it(ssh_server: SshServer, tmp_path: Path) -> None:
    with running(tmp_path / "jump") as jump:
        (jump.folder / "authorized_keys").write_bytes(ssh_server.key.export_public_key())
        both = tmp_path / "known_hosts"
        both.write_text(jump.known_hosts.read_text() + ssh_server.known_hosts.read_text())
        through = f"{jump.user}@{ADDRESS}:{jump.port}"
        access = ssh_server.access(jump=through, known_hosts_path=str(both))
        async with transports({"a": access, "b": access}) as made:
            assert await over_hosts(said, made.values()) == ["a\n", "b\n"]
            assert len(jump.connections()) == 1


async def test_a_dead_jump_host_is_named(ssh_server: SshServer) -> None:
    through = f"{ADDRESS}:{free_port()}"
    async with transports({"a": ssh_server.access(jump=through)}) as made:
        with pytest.raises(UnreachableError) as caught:
            await said(made["a"])
    assert through in caught.value.where


async def test_a_trusted_key_lets_in_and_others_entries_stay(ssh_server: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "redisforge" / "known_hosts"
    async with transports({"a": ssh_server.access(known_hosts_path=str(known))}) as made:
        keys = await made["a"].connection.host_keys()
        assert [key.fingerprint for key in keys] == [ssh_server.host_key.get_fingerprint("sha256")]
        with pytest.raises(HostError, match="not known yet"):
            await said(made["a"])
        known.parent.mkdir()
        known.write_text("# mine\nother ssh-ed25519 AAAA\n")
        name = known_hosts_name(ADDRESS, ssh_server.port)
        assert trust(known, name, keys) == keys
        assert trust(known, name, keys) == ()
        assert known.read_text().startswith("# mine\nother ssh-ed25519 AAAA\n")
        assert await said(made["a"]) == "a\n"


@pytest.mark.parametrize(
    ("jump", "expected"),
    [
        ("gate", ("", "gate", 0)),
        ("me@gate:2222", ("me", "gate", 2222)),
        ("me@[::1]:2222", ("me", "::1", 2222)),
        ("[fe80::1]", ("", "fe80::1", 0)),
    ],
)
def test_a_jump_host_is_read_from_one_word(jump: str, expected: tuple[str, str, int]) -> None:
    access = jump_access(SshAccess(jump=jump, user="app"))
    assert (access.user, access.address, access.port) == expected
