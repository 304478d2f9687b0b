"""Every printed form is read back by a parser of its own language and must give exactly what went in."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
import redis.connection
from hypothesis import given, settings
from hypothesis import strategies as st

from redisforge.errors import UsageError
from redisforge.model.secret import Secret
from redisforge.model.topology import Endpoint, EndpointKind, Listener, Protocol
from redisforge.render.connect import FORMATS, ClientCertificate, connection, redis_url

PARSE_URL: Any = vars(redis.connection)["parse_url"]  # it has no complete annotations

# A password or path in UTF-8 without NUL, which neither a file name nor an environment can hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
CLIENT = ClientCertificate("/tls/my client.crt", "/tls/my client.key")


def endpoint(user: str = "app_user", protocol: Protocol = "RESP2") -> Endpoint:
    return Endpoint(
        name="primary",
        kind=EndpointKind.COMMANDS,
        protocol=protocol,
        user=user,
        prefer_replicas=False,
        listeners=(),
    )


def listener(address: str = "127.0.0.1") -> Listener:
    return Listener(envoy="envoy-1", address=address, port=6380)


def printed(output_format: str, password: str, ca_path: str = "/tls/ca.crt", **changes: Any) -> str:
    return connection(endpoint(**changes), listener(), Secret(password), ca_path, output_format).reveal()


@settings(deadline=None)
@given(user=TEXT, password=TEXT, path=TEXT)
def test_redis_py_reads_back_what_went_into_the_url(user: str, password: str, path: str) -> None:
    url = redis_url(endpoint(user), listener(), Secret(password), f"/{path}").reveal()
    parsed = PARSE_URL(url)
    assert (parsed["username"], parsed["password"]) == (user, password)
    assert (parsed["host"], parsed["port"], parsed["db"]) == ("127.0.0.1", 6380, 0)
    assert parsed["ssl_ca_certs"] == f"/{path}"
    assert (parsed["ssl_cert_reqs"], parsed["protocol"]) == ("required", 2)


def test_the_url_in_full() -> None:
    url = redis_url(endpoint(protocol="RESP3"), listener(), Secret("a/b@c"), "/my tls/ca.crt").reveal()
    assert url == (
        "rediss://app_user:a%2Fb%40c@127.0.0.1:6380/0?ssl_ca_certs=/my%20tls/ca.crt"
        "&ssl_cert_reqs=required&ssl_check_hostname=true&protocol=3"
    )


def test_an_ipv6_address_is_bracketed_where_a_port_follows() -> None:
    for output_format, expected in (("url", "@[::1]:6380/"), ("go-redis", '"[::1]:6380"')):
        text = connection(endpoint(), listener("::1"), Secret("x"), "/ca", output_format).reveal()
        assert expected in text


@settings(deadline=None)
@given(password=TEXT, path=TEXT)
def test_the_redis_cli_line_keeps_the_password_out_of_the_arguments(password: str, path: str) -> None:
    words = shlex.split(printed("redis-cli", password, f"/{path}"))
    assert words[0] == f"REDISCLI_AUTH={password}"
    assert words[1:] == [
        *("redis-cli", "-h", "127.0.0.1", "-p", "6380", "--tls", "--cacert", f"/{path}", "--user", "app_user")
    ]


def test_redis_cli_speaks_the_endpoints_protocol() -> None:
    assert printed("redis-cli", "x", protocol="RESP3").endswith(" -3")


@settings(deadline=None)
@given(password=TEXT, path=TEXT)
def test_the_exports_read_back(password: str, path: str) -> None:
    words = shlex.split(printed("env", password, f"/{path}"))
    assert words[0::2] == ["export"] * (len(words) // 2)
    values = dict(word.split("=", 1) for word in words[1::2])
    assert values["REDIS_PASSWORD"] == password
    assert values["REDIS_CA_FILE"] == f"/{path}"
    assert values["REDIS_URL"] == printed("url", password, f"/{path}")
    assert (values["REDIS_HOST"], values["REDIS_TLS_PORT"]) == ("127.0.0.1", "6380")
    assert (values["REDIS_USERNAME"], values["REDIS_TLS"]) == ("app_user", "true")


@settings(deadline=None)
@given(password=TEXT, path=TEXT)
def test_string_literals_of_the_snippets_read_back(password: str, path: str) -> None:
    for output_format, password_field in (("ioredis", "password: "), ("go-redis", "Password:  ")):
        text = printed(output_format, password, f"/{path}")
        literals = dict(re.findall(r'(ReadFile|readFileSync|[pP]assword: +)\(?("(?:[^"\\]|\\.)*")', text))
        assert json.loads(literals[password_field]) == password
        assert json.loads(literals.get("ReadFile") or literals["readFileSync"]) == f"/{path}"


@pytest.mark.parametrize("password", ["@ADDRESS@", "@CA@", "@PASSWORD@", "{}", "%s"])
def test_no_password_is_taken_for_a_placeholder(password: str) -> None:
    assert f'"{password}"' in printed("go-redis", password)


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_client_certificate_is_in_every_format(output_format: str) -> None:
    with_it = connection(endpoint(), listener(), Secret("x"), "/ca", output_format, CLIENT).reveal()
    without = connection(endpoint(), listener(), Secret("x"), "/ca", output_format).reveal()
    name = "my%20client" if output_format == "url" else "my client"
    assert with_it.count(f"{name}.crt") >= 1
    assert with_it.count(f"{name}.key") >= 1
    assert name not in without


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_result_is_a_secret(output_format: str) -> None:
    result = connection(endpoint(), listener(), Secret("hidden-word"), "/ca", output_format)
    assert "hidden-word" not in f"{result} {result!r}"
    assert "hidden-word" in result.reveal()


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no such format: jedis") as refused:
        connection(endpoint(), listener(), Secret("x"), "/ca", "jedis")
    assert refused.value.next_step == "use one of url, redis-cli, ioredis, go-redis, env"
