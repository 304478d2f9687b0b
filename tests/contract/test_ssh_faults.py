"""What an operator meets when a host cannot be reached, or not any more: on a real sshd, with the real fault."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from redisforge.errors import HostError, HostKeyError, UnreachableError
from redisforge.fleet.ssh import SshTransport
from redisforge.fleet.ssh_connection import SshLimits
from redisforge.fleet.transport import LocalTransport
from redisforge.model.secret import Secret
from redisforge.model.unit import UnitFile
from ssh_server import ADDRESS, SshServer, free_port, new_key, running, write_key
from waiting import until

LIMIT_S = 20.0
TRUE = ("true",)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    """A server of the test's own, to be broken."""
    with running(tmp_path / "sshd") as started:
        yield started


@pytest.fixture
async def far(ssh_server: SshServer) -> AsyncIterator[SshTransport]:
    transport = ssh_server.transport()
    yield transport
    await transport.close()


async def failure(transport: SshTransport) -> HostError:
    """The error of a command that must not succeed."""
    with pytest.raises(HostError) as caught:
        await transport.run(TRUE, timeout_s=LIMIT_S)
    await transport.close()
    assert caught.value.next_step
    assert caught.value.where.startswith("far")
    return caught.value


async def until_async(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(until, condition, what)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


async def test_a_host_that_nobody_has_trusted_yet_shows_its_fingerprint(ssh_server: SshServer, tmp_path: Path) -> None:
    error = await failure(ssh_server.transport(known_hosts_path=str(tmp_path / "none")))
    assert isinstance(error, HostKeyError)
    assert ssh_server.host_key.get_fingerprint("sha256") in error.why
    assert error.next_step.endswith("redisforge host trust far")


async def test_a_changed_host_key_is_refused_with_both_fingerprints(server: SshServer) -> None:
    old = server.host_key.get_fingerprint("sha256")
    transport = server.transport()
    await transport.run(TRUE, timeout_s=LIMIT_S)
    await asyncio.to_thread(server.renew_host_key)
    await transport.close()
    error = await failure(transport)
    assert isinstance(error, HostKeyError)
    assert "not the known one" in error.what
    assert old in error.why
    assert server.host_key.get_fingerprint("sha256") in error.why


async def test_a_host_key_of_another_kind_is_a_changed_one(server: SshServer) -> None:
    old = server.host_key.get_fingerprint("sha256")
    server.stop()
    server.host_key = new_key("ecdsa-sha2-nistp256")
    server.start()
    error = await failure(server.transport())
    assert isinstance(error, HostKeyError)
    assert old in error.why
    assert server.host_key.get_fingerprint("sha256") in error.why


async def test_a_revoked_host_key_is_never_trusted(ssh_server: SshServer, tmp_path: Path) -> None:
    line = ssh_server.known_hosts.read_text()
    revoking = tmp_path / "known_hosts"
    revoking.write_text(f"{line}@revoked {line}")
    error = await failure(ssh_server.transport(known_hosts_path=str(revoking)))
    assert isinstance(error, HostKeyError)
    assert "revoked" in error.why


async def test_a_damaged_line_in_known_hosts_shuts_nobody_out(ssh_server: SshServer, tmp_path: Path) -> None:
    damaged = tmp_path / "known_hosts"
    damaged.write_text("@\n\x00half a li\n" + ssh_server.known_hosts.read_text())
    transport = ssh_server.transport(known_hosts_path=str(damaged))
    assert (await transport.run(("echo", "in"), timeout_s=LIMIT_S)).stdout == "in\n"
    await transport.close()


async def test_a_key_that_the_host_does_not_take(ssh_server: SshServer, tmp_path: Path) -> None:
    write_key(tmp_path / "other", new_key())
    error = await failure(ssh_server.transport(key_path=str(tmp_path / "other")))
    assert isinstance(error, UnreachableError)
    assert "refuses the login" in error.what
    assert str(tmp_path / "other") in error.why
    assert "authorized_keys" in error.next_step


async def test_a_server_that_takes_passwords_only(tmp_path: Path) -> None:
    with running(tmp_path / "sshd", "PubkeyAuthentication no", "PasswordAuthentication yes") as server:
        error = await failure(server.transport())
    assert "takes no keys" in error.what
    assert "only: password" in error.why


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file or directory"), (b"not a key\n", "nvalid private key"), (b"", "nvalid private key")],
)
async def test_a_private_key_that_cannot_be_used(
    ssh_server: SshServer, tmp_path: Path, content: bytes | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    error = await failure(ssh_server.transport(key_path=str(tmp_path / "key")))
    assert "key cannot be used" in error.what
    assert why in error.why


async def test_an_encrypted_private_key_without_an_agent(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    write_key(tmp_path / "key", new_key(), "swordfish")
    error = await failure(ssh_server.transport(key_path=str(tmp_path / "key")))
    assert "encrypted" in error.why
    assert "ssh-add" in error.next_step


async def test_a_port_that_nobody_listens_on(ssh_server: SshServer) -> None:
    error = await failure(ssh_server.transport(port=free_port()))
    assert isinstance(error, UnreachableError)
    assert "refuses the connection" in error.what


async def test_a_name_that_nobody_knows(ssh_server: SshServer) -> None:
    error = await failure(ssh_server.transport(address="no-such-host.invalid"))
    assert isinstance(error, UnreachableError)
    assert "name is not known" in error.what


async def test_a_server_that_never_answers_is_given_up(ssh_server: SshServer) -> None:
    with socket.create_server((ADDRESS, 0)) as silent:
        transport = ssh_server.transport(port=silent.getsockname()[1], limits=SshLimits(connect_s=0.5))
        error = await failure(transport)
    assert "does not answer" in error.what
    assert "0.5 s" in error.why


async def test_a_server_of_another_kind(ssh_server: SshServer) -> None:
    async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)
        writer.close()

    web = await asyncio.start_server(speak_http, ADDRESS, 0)
    async with web:
        error = await failure(ssh_server.transport(port=web.sockets[0].getsockname()[1]))
    assert isinstance(error, UnreachableError)


async def test_a_connection_that_is_lost_in_mid_command_and_the_next_command(server: SshServer, tmp_path: Path) -> None:
    pid_path = tmp_path / "pid"
    transport = server.transport()
    hang = asyncio.create_task(transport.run(("sh", "-c", f"echo $$ > {pid_path}; exec sleep 60"), timeout_s=LIMIT_S))
    await until_async(lambda: pid_path.exists() and pid_path.read_text(), "the command runs")
    for pid in server.connections():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(UnreachableError, match="connection was lost") as caught:
        await hang
    assert "sh" in caught.value.why
    assert (await transport.run(("echo", "again"), timeout_s=LIMIT_S)).stdout == "again\n"
    assert transport.connection.opened_count == 2
    await transport.close()
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid_path.read_text()), signal.SIGKILL)


async def test_a_connection_that_died_while_nobody_used_it_is_made_again(server: SshServer) -> None:
    transport = server.transport()
    await transport.run(TRUE, timeout_s=LIMIT_S)
    open_now = await transport.connection.get()
    for pid in server.connections():
        os.kill(pid, signal.SIGKILL)
    await open_now.wait_closed()
    assert (await transport.run(("echo", "again"), timeout_s=LIMIT_S)).stdout == "again\n"
    await transport.close()


async def test_a_command_over_its_time_is_killed_with_all_its_children(far: SshTransport, tmp_path: Path) -> None:
    """Grandchildren, and one that does not listen to SIGTERM."""
    script = f"trap '' TERM; sh -c 'echo $$ >> {tmp_path}/pids; exec sleep 60' & echo $$ >> {tmp_path}/pids; sleep 60"
    with pytest.raises(HostError, match="did not end"):
        await far.run(("sh", "-c", script), timeout_s=2.0)
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    await until_async(lambda: all(map(is_gone, pids)), "the end of all processes")
    assert (await far.run(("echo", "next"), timeout_s=LIMIT_S)).stdout == "next\n"


async def test_a_command_that_is_cancelled_is_killed(far: SshTransport, tmp_path: Path) -> None:
    pid_path = tmp_path / "pid"
    hang = asyncio.create_task(far.run(("sh", "-c", f"echo $$ > {pid_path}; exec sleep 60"), timeout_s=LIMIT_S))
    await until_async(lambda: pid_path.exists() and pid_path.read_text(), "the command runs")
    hang.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hang
    await until_async(lambda: is_gone(int(pid_path.read_text())), "the end of the command")


async def test_a_command_that_is_cancelled_before_it_was_heard_of_does_not_take_that_for_the_end_of_its_input(
    far: SshTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("redisforge.fleet.ssh._gather", never)
    started, ended = tmp_path / "started", tmp_path / "ended"
    endless = itertools.repeat(b"x" * 1000)
    argv = ("sh", "-c", f"echo $$ >{started}; cat >/dev/null; echo whole >{ended}")
    feeding = asyncio.create_task(far.feed(argv, endless, timeout_s=LIMIT_S))
    await until_async(lambda: started.exists() and started.read_text().endswith("\n"), "the command runs")
    feeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeding
    await until_async(lambda: is_gone(int(started.read_text())), "the end of the command")
    assert not ended.exists()


async def test_many_commands_at_once_share_one_connection(server: SshServer) -> None:
    """Twice as many as sshd's MaxSessions allows at a time."""
    transport = server.transport()
    results = await asyncio.gather(*(transport.run(("echo", str(number)), timeout_s=LIMIT_S) for number in range(20)))
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(20)]
    assert transport.connection.opened_count == 1
    assert len(server.connections()) == 1
    await transport.close()


async def test_a_server_that_allows_few_sessions_is_given_them_one_after_the_other(tmp_path: Path) -> None:
    """It also counts sessions that have just ended, until it has cleared them away."""
    with running(tmp_path / "sshd", "MaxSessions 2") as server:
        transport = server.transport()
        results = await asyncio.gather(*(transport.run(("echo", str(n)), timeout_s=LIMIT_S) for n in range(20)))
        assert [result.stdout for result in results] == [f"{number}\n" for number in range(20)]
        assert transport.connection.opened_count == 1
        await transport.close()


async def test_a_server_that_allows_no_session_is_not_asked_for_ever(tmp_path: Path) -> None:
    with running(tmp_path / "sshd", "MaxSessions 0") as server:
        transport = server.transport(limits=SshLimits(connect_s=1.0))
        with pytest.raises(UnreachableError, match="open failed"):
            await transport.run(TRUE, timeout_s=LIMIT_S)
        await transport.close()


async def test_exchanges_do_not_grow_with_the_number_of_files_or_of_commands_at_once(
    far: SshTransport, tmp_path: Path
) -> None:
    await far.run(TRUE, timeout_s=LIMIT_S)
    before = far.round_trips
    await far.place(str(tmp_path), [UnitFile(f"{number}/file", f"text {number}") for number in range(50)])
    assert far.round_trips - before == 3
    await asyncio.gather(*(far.run(TRUE, timeout_s=LIMIT_S) for _ in range(5)))
    assert far.round_trips - before == 5


async def test_what_a_users_shell_prints_is_not_the_commands(ssh_server: SshServer, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    noisy.write_text('#!/bin/sh\necho welcome; echo "have a nice day" >&2\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n')
    noisy.chmod(0o755)
    with running(tmp_path / "sshd", f"ForceCommand {noisy}") as server:
        transport = server.transport()
        result = await transport.run(("sh", "-c", "echo said; echo grumbled >&2"), timeout_s=LIMIT_S)
        await transport.close()
    assert (result.stdout, result.stderr) == ("said\n", "grumbled\n")


async def test_a_login_that_runs_no_commands(tmp_path: Path) -> None:
    with running(tmp_path / "sshd", "ForceCommand echo This account is not available.; exit 1") as server:
        error = await failure(server.transport())
    assert "does not run commands" in error.what
    assert "not available" in error.why


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB. Only a server that is started afterwards sees it: mounts may be its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder))
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system to fill")
    yield folder
    subprocess.run(["umount", folder], check=True)


def texts_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def fill(folder: Path) -> None:
    """Write until nothing fits any more."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


async def test_a_full_disk_leaves_the_old_files_whole_and_nothing_beside_them(small_disk: Path, tmp_path: Path) -> None:
    with running(tmp_path / "sshd") as server:
        transport = server.transport()
        old = [UnitFile("redis.conf", "old\n"), UnitFile("users.acl", Secret("old secret"), 0o600)]
        await transport.place(str(small_disk), old)
        new = [UnitFile("redis.conf", "new\n"), UnitFile("users.acl", Secret("swordfish" * 100_000), 0o600)]
        with pytest.raises(HostError, match="cannot write a file") as caught:
            await transport.place(str(small_disk), new)
        assert "No space left on device" in caught.value.why
        assert "swordfish" not in str(caught.value)
        assert texts_in(small_disk) == {"redis.conf": "old\n", "users.acl": "old secret"}
        fill(small_disk)
        assert await transport.place(str(small_disk), old) == ()  # nothing to write, nothing that could fail
        await transport.close()


async def test_a_stream_that_is_cut_leaves_the_old_files(server: SshServer, tmp_path: Path) -> None:
    """The connection dies while files are sent: what lay there stays, and nothing is left beside it."""
    folder = tmp_path / "placed"
    await LocalTransport().place(str(folder), [UnitFile("a", "old")])
    transport = server.transport()
    await transport.connection.get()
    large = [UnitFile("a", "new"), UnitFile("big", "x" * 300_000_000)]
    placing = asyncio.create_task(transport.place(str(folder), large))
    await until_async(lambda: any(path.name.startswith(".rf-") for path in folder.iterdir()), "files are written")
    for pid in server.connections():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(UnreachableError, match="connection was lost"):
        await placing
    await until_async(lambda: [path.name for path in folder.iterdir()] == ["a"], "nothing is left beside")
    assert (folder / "a").read_text() == "old"
    await transport.close()
