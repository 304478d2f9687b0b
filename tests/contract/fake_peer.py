"""Another node of the cluster, as far as a keeper's guard asks it: AUTH and CLUSTER NODES, over real TLS.

A real node cannot be made to lie, to hang or to answer with an error on demand; this one can.
"""

from __future__ import annotations

import contextlib
import io
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Generator
from pathlib import Path

USER = "operator_user"
PASSWORD = "swordfish-%é-*1"

Reply = Callable[[tuple[str, ...]], bytes]


def bulk(text: str) -> bytes:
    """A RESP bulk string."""
    encoded = text.encode()
    return b"$%d\r\n%s\r\n" % (len(encoded), encoded)


def node_line(node_id: str, port: int, flags: str = "master", slots: str = "", *, address: str = "127.0.0.1") -> str:
    """One line of CLUSTER NODES (and of nodes.conf, which has the same form)."""
    master = "-" if "slave" not in flags else "c" * 40
    return (
        f"{node_id} {address}:{port}@{port + 10000},host {flags} {master} 0 1700000000000 3 connected {slots}".strip()
    )


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        peer = self.server
        assert isinstance(peer, FakePeer)
        with contextlib.suppress(OSError):  # the keeper hung up, or does not trust us
            self.request.settimeout(10)
            with peer.tls.wrap_socket(self.request, server_side=True) as stream, stream.makefile("rb") as received:
                while command := _read_command(received):
                    peer.commands.append(command)
                    stream.sendall(peer.reply(command))


def _read_command(stream: io.BufferedReader) -> tuple[str, ...]:
    header = stream.readline()
    words: list[str] = []
    for _ in range(int(header[1:] or b"0")):
        size = int(stream.readline()[1:])
        words.append(stream.read(size + 2)[:size].decode())
    return tuple(words)


class FakePeer(socketserver.ThreadingTCPServer):
    """A node that answers AUTH by its password and CLUSTER NODES by `view`; `commands` are those it received.

    It asks for a client certificate, as the cluster's nodes do. `reply` may be replaced.
    """

    daemon_threads = True

    def __init__(self, tls_folder: Path, name: str = "peer") -> None:
        self.view: tuple[str, ...] = ()
        self.commands: list[tuple[str, ...]] = []
        self.reply: Reply = self.answer
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls_folder / "ca.crt"))
        self.tls.verify_mode = ssl.CERT_REQUIRED
        self.tls.load_cert_chain(tls_folder / f"{name}.crt", tls_folder / f"{name}.key")
        super().__init__(("127.0.0.1", 0), _Connection)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.socket.getsockname()[1]

    def answer(self, command: tuple[str, ...]) -> bytes:
        """What a node says."""
        if command[0] == "AUTH":
            return b"+OK\r\n" if command[1:] == (USER, PASSWORD) else b"-WRONGPASS invalid username-password pair\r\n"
        return bulk("".join(f"{line}\n" for line in self.view))


@contextlib.contextmanager
def running(peer: FakePeer) -> Generator[FakePeer]:
    """Serve until the end of a `with` block."""
    thread = threading.Thread(target=peer.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield peer
    finally:
        peer.shutdown()
        thread.join()
        peer.server_close()


@contextlib.contextmanager
def deaf_port() -> Generator[tuple[str, int]]:
    """An address at which connections are accepted by the kernel, and nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


def closed_port() -> tuple[str, int]:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address: tuple[str, int] = listener.getsockname()
        return address
