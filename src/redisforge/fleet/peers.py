"""How a keeper speaks with Redis nodes: TLS, a login, one command at a time.

Of the standard library alone, like keeper.py, which loads it from its own folder when it first has to speak.

RESP2 in one paragraph: a command is `*<number of words>` and for each word `$<bytes>` and the word, every line ended
by CR LF. A reply begins with `+` (a status), `-` (an error), `:` (a number) or `$<bytes>` (a text of that length).
Source: redis.io "Redis serialization protocol specification".
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

AT_A_TIME = 64

Login = dict[str, Any]
"""ca_path, certificate_path, key_path, user, password_path: as in unit.json's guard and in handoff.json."""


def tls_context(login: Login) -> ssl.SSLContext:
    """A context that shows the node's own certificate and accepts peers of the cluster's CA only."""
    context = ssl.create_default_context(cafile=login["ca_path"])
    context.load_cert_chain(login["certificate_path"], login["key_path"])
    return context


def encode(*words: str) -> bytes:
    """A command as RESP2."""
    encoded = [word.encode() for word in words]
    return b"".join((b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)))


class Line:
    """One connection to a node, logged in. Every wait for the node ends after `timeout_s` seconds.

    Raises OSError (no connection, no trust, an error reply) or ValueError (it answers, but not as a node does).
    """

    def __init__(
        self, login: Login, address: str, port: int, timeout_s: float = 1.0, tls: ssl.SSLContext | None = None
    ) -> None:
        context = tls or tls_context(login)
        plain = socket.create_connection((address, port), timeout_s)
        try:
            self._stream = context.wrap_socket(plain, server_hostname=address)
        except BaseException:
            plain.close()
            raise
        self._replies = self._stream.makefile("rb")
        try:
            self.ask("AUTH", login["user"], Path(login["password_path"]).read_text().strip())
        except BaseException:
            self.close()
            raise

    def ask(self, *command: str) -> str:
        """One command; a status, a number or a text comes back as text."""
        self._stream.sendall(encode(*command))
        header = self._replies.readline().rstrip(b"\r\n")
        if not header:
            raise OSError("the connection was closed")
        kind, rest = header[:1], header[1:].decode(errors="replace")
        if kind == b"$":
            return self._replies.read(int(rest) + 2)[:-2].decode()
        if kind not in (b"+", b":"):
            raise OSError(rest)
        return rest

    def close(self) -> None:
        """Hang up."""
        self._replies.close()
        self._stream.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def refuses(address: str, port: int, timeout_s: float = 0.3) -> bool:
    """Whether it is certain that nothing listens there. Silence is not: a node that hangs is silent too."""
    try:
        socket.create_connection((address, port), timeout_s).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def do_answer(addresses: Sequence[tuple[str, int]], wanted: int, timeout_s: float = 0.2) -> bool:
    """Whether at least `wanted` of these nodes accept a connection now. Asks no more of them than needed."""
    for first in range(0, len(addresses), AT_A_TIME):
        if wanted <= 0:
            break
        wanted -= _accepting(addresses[first : first + AT_A_TIME], timeout_s)
    return wanted <= 0


def _accepting(addresses: Sequence[tuple[str, int]], timeout_s: float) -> int:
    with contextlib.ExitStack() as stack:
        poller, accepted = select.poll(), 0
        waiting: dict[int, socket.socket] = {}
        for address, port in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            trying = stack.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            trying.connect_ex((address, port))
            waiting[trying.fileno()] = trying
            poller.register(trying, select.POLLOUT)
        deadline = time.monotonic() + timeout_s
        while waiting and (left_s := deadline - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left_s * 1000):
                poller.unregister(descriptor)
                accepted += not waiting.pop(descriptor).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return accepted
