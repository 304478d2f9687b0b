"""The likely cause of a failed check, from the words of the failure."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.redis.connection import explain
from redisforge.runbooks.smoke import likely_cause


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        ("WRONGPASS invalid username-password pair or user is disabled.", "wrong user or password"),
        ("NOAUTH Authentication required.", "REDIS_ACL_USER"),
        ("NOPERM this user has no permissions to run the 'set' command", "ACL user"),
        ("no upstream host", "Envoy knows no node"),
        ("upstream failure", "does not answer"),
        ("CLUSTERDOWN The cluster is down", "no living master"),
        ("MOVED 3999 127.0.0.1:7003", "not a proxy"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "not a proxy"),
        ("cluster_state:fail, 10923 of 16384 slots ok", "slots are missing"),
    ],
)
def test_what_a_server_says_has_a_cause(why: str, cause: str) -> None:
    assert cause in likely_cause(why)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "does not run"),
        (TimeoutError(), "hangs"),
        (EOFError("the server closed the connection"), "its log says why"),
    ],
)
def test_how_a_connection_fails_has_a_cause(error: BaseException, cause: str) -> None:
    """The words of redis/connection.py are the ones that are looked for here."""
    assert cause in likely_cause(explain(error, 5.0))


def test_a_server_without_tls_has_a_cause() -> None:
    """A real error of a handshake that is answered in plain text."""
    received = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(received, ssl.MemoryBIO(), server_hostname="redis")
    received.write(b"-ERR Protocol error: unbalanced quotes in request\r\n")
    with pytest.raises(ssl.SSLError) as error:
        client.do_handshake()
    assert "speaks TLS" in likely_cause(explain(error.value, 5.0))


def test_a_certificate_of_another_ca_has_a_cause() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate in certificate chain"
    assert "CA file" in likely_cause(explain(error, 5.0))


@given(st.text(alphabet="abcdefgh 0123456789", max_size=40))
def test_an_unknown_failure_has_no_invented_cause(why: str) -> None:
    assert likely_cause(why) == ""
