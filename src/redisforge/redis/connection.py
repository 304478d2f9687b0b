"""A Redis connection for probes, gates and formation: one socket, an explicit deadline, no hidden retry.

RESP in one paragraph: a request is an array of bulk strings; a reply is typed by its first byte (`+` status,
`-` error, `:` integer, `$` bulk, `*` array; RESP3 adds maps, sets, doubles and pushes after `HELLO 3`). hiredis
packs and parses both. Source: Redis serialization protocol specification.

Why not redis-py here: its retries with backoff hide and stretch failures by seconds, which is right for an
application and wrong for a gate, and importing it takes half of the time that `status` may take
(docs/decisions/0003-own-connection-on-hiredis.md).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import hiredis
import msgspec

from redisforge.errors import CertificateError, NodeError
from redisforge.model.secret import Secret

_READ_SIZE_BYTES = 65536
_END_PATIENCE_S = 1.0
_INCOMPLETE = object()

Reply = Any
"""What hiredis returns: str, int, list, dict, None, or a ReplyError inside a pipeline's result."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Who connects and how the server is verified. Empty paths: no TLS; an empty user: no AUTH."""

    ca_path: str = ""
    certificate_path: str = ""
    key_path: str = ""
    user: str = ""
    password: Secret = Secret("")
    check_hostname: bool = True

    def ssl_context(self) -> ssl.SSLContext | None:
        """A client context for this login, or None for plain text. Raises CertificateError for unusable files."""
        if not self.ca_path:
            return None
        files = (self.ca_path,)
        try:
            context = ssl.create_default_context(cafile=self.ca_path)
            if self.certificate_path:
                files = tuple(path for path in (self.certificate_path, self.key_path) if path)
                # With any password at all OpenSSL does not ask for one at the terminal.
                context.load_cert_chain(self.certificate_path, self.key_path or None, password="")
        except OSError as error:  # ssl.SSLError is one
            reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise CertificateError(
                "TLS files cannot be used",
                where=", ".join(files),
                why=reason.replace("_", " ").lower() if reason else f"no PEM, no such key, or a passphrase ({error})",
                next_step="give PEM files: a CA, or a certificate and its own key without a passphrase",
            ) from error
        context.check_hostname = self.check_hostname
        return context


class ReplyError(NodeError):
    """The server answered with an error; `code` is its first word (NOAUTH, WRONGPASS, MOVED, …)."""

    def __init__(self, what: str, *, where: str, why: str) -> None:
        super().__init__(what, where=where, why=why)
        self.code = why.partition(" ")[0]


class Connection:
    """One authenticated connection. Use `async with await Connection.open(...)`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, timeout_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        # A marker of our own for "not all here yet": hiredis's default is False, which RESP3 also has as a value.
        self._parser = hiredis.Reader(encoding="utf-8", errors="surrogateescape", notEnoughData=_INCOMPLETE)
        self.where = where
        self.timeout_s = timeout_s

    @classmethod
    async def open(
        cls,
        address: tuple[str, int],
        login: Login,
        *,
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
        protocol: int = 2,
    ) -> Connection:
        """Connect and log in within `timeout_s` seconds; the same limit then holds for every request.

        `tls` shares one context among many connections (loading a CA costs milliseconds).

        Raises:
            NodeError: no connection, no TLS, or a wrong password (ReplyError).
        """
        host, port = address
        where = f"{host}:{port}"
        context = tls or login.ssl_context()
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=context, server_hostname=host if context else None
                )
        except (OSError, TimeoutError) as error:
            raise NodeError("cannot connect", where=where, why=explain(error, timeout_s)) from error
        connection = cls(reader, writer, where, timeout_s)
        try:
            await connection._login(login, protocol)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _login(self, login: Login, protocol: int) -> None:
        if protocol == 3:
            credentials = ("AUTH", login.user, login.password.reveal()) if login.user else ()
            await self.call("HELLO", "3", *credentials)
        elif login.user:
            await self.call("AUTH", login.user, login.password.reveal())
        elif login.password:
            await self.call("AUTH", login.password.reveal())

    async def call(self, *command: str | int | bytes) -> Reply:
        """Send one command and return its reply.

        Raises:
            ReplyError: the server refused the command.
            NodeError: the connection broke or the answer did not come in time.
        """
        reply = (await self.pipeline([command]))[0]
        if isinstance(reply, hiredis.ReplyError):
            name = " ".join(str(word) for word in command[: 2 if command[0] == "CLUSTER" else 1])
            raise ReplyError(f"{name} failed", where=self.where, why=str(reply))
        return reply

    async def pipeline(self, commands: Sequence[Sequence[str | int | bytes]]) -> list[Reply]:
        """Send all commands at once; error replies are returned in their places as `hiredis.ReplyError`."""
        try:
            async with asyncio.timeout(self.timeout_s):
                self._writer.write(b"".join(_packed(command) for command in commands))
                await self._writer.drain()
                return [await self._reply() for _ in commands]
        except (OSError, TimeoutError, EOFError, hiredis.ProtocolError) as error:
            self.abort()
            await self._collect_end(error)
            raise NodeError("no answer", where=self.where, why=explain(error, self.timeout_s)) from error

    async def next_message(self) -> Reply:
        """Wait for a message that the server sends of itself (pub/sub), at most `timeout_s` seconds."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._reply()
        except (OSError, TimeoutError, EOFError, hiredis.ProtocolError) as error:
            await self._collect_end(error)
            raise NodeError("no message", where=self.where, why=explain(error, self.timeout_s)) from error

    async def _reply(self) -> Reply:
        while (reply := self._parser.gets()) is _INCOMPLETE:
            chunk = await self._reader.read(_READ_SIZE_BYTES)
            if not chunk:
                raise EOFError("the server closed the connection")
            self._parser.feed(chunk)
        return reply

    async def _collect_end(self, error: BaseException) -> None:
        """Take the error that ended the connection from asyncio too, which else may print it with a traceback."""
        if isinstance(error, ConnectionError):
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_END_PATIENCE_S):
                    await self._writer.wait_closed()

    def abort(self) -> None:
        """Close without waiting."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close; an error on the way is of no interest any more."""
        self._writer.close()
        try:
            async with asyncio.timeout(_END_PATIENCE_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort()


async def speaks_plain_text(address: tuple[str, int], timeout_s: float) -> bool:
    """Whether Redis answers there without TLS. Asks with a bare PING, so that no password leaves in plain text.

    A Redis that waits for a line of text does not answer a TLS handshake at all: the handshake alone shows nothing.
    Redis replies to PING with `+PONG`, or with an error before a login; a TLS server with an alert, or by closing.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(b"PING\r\n")
                return (await reader.read(1)) in (b"+", b"-")
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return False


def _packed(command: Sequence[str | int | bytes]) -> bytes:
    return hiredis.pack_command(tuple(command))  # pyright: ignore  # its stub knows one-tuples only


def explain(error: BaseException, timeout_s: float) -> str:
    """Say in words why a connection failed."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection: {error.reason or error}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
