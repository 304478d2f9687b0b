"""Who has a port: by the address that is asked for, not by the number alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from redisforge.fleet.ports import bind_problem, is_in_the_way

LISTENS = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def stranger(address: str, port: int = 0) -> Generator[tuple[int, int]]:
    """Another process that listens there: its pid, and the port."""
    command = (sys.executable, "-c", LISTENS, address, str(port))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.pid, int(process.stdout.readline())
        process.communicate("")


@pytest.mark.parametrize("asked_first", [True, False])
def test_who_listens_on_the_same_port_of_another_address_is_not_blamed(asked_first: bool) -> None:
    asked, other = "127.0.0.17", "127.0.0.11"
    first, second = (asked, other) if asked_first else (other, asked)
    with stranger(first) as (pid, port), stranger(second, port) as (later_pid, _):
        guilty = pid if asked_first else later_pid
        assert f"process {guilty} " in bind_problem(asked, port)


@pytest.mark.skipif(sys.byteorder == "big", reason="the addresses are written as a little-endian kernel has them")
@pytest.mark.parametrize(
    ("listens_on", "address", "is_in_way"),
    [
        ("0B00007F", "127.0.0.11", True),
        ("0B00007F", "127.0.0.17", False),
        ("0B00007F", "::", True),
        ("00000000", "127.0.0.17", True),
        ("00000000000000000000000000000000", "127.0.0.17", True),
        ("0000000000000000FFFF00000B00007F", "127.0.0.11", True),
        ("0000000000000000FFFF00000B00007F", "127.0.0.17", False),
        ("B80D0120000000000000000001000000", "2001:db8::1", True),
        ("B80D0120000000000000000001000000", "2001:db8::2", False),
    ],
)
def test_addresses_as_the_kernel_writes_them(listens_on: str, address: str, is_in_way: bool) -> None:
    assert is_in_the_way(listens_on, address) is is_in_way


def test_one_who_would_listen_on_all_addresses_is_told_of_anybody() -> None:
    with socket.create_server(("127.0.0.11", 0)) as listener:
        port = listener.getsockname()[1]
        assert f"process {os.getpid()} " in bind_problem("0.0.0.0", port)
        assert bind_problem("127.0.0.17", port) == ""
