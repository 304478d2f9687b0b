"""Versions: what rules mean, and what engines, Envoy and Debian print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.fleet.binaries.versions import (
    parse_debian_version,
    parse_envoy_banner,
    parse_rule,
    parse_server_banner,
    parse_version,
    series_of,
    show,
)

NUMBERS = st.tuples(*[st.integers(0, 99)] * 3)


@pytest.mark.parametrize(
    ("rule", "version", "fits"),
    [
        ("newest", "8.6.3", True),
        ("newest", "8.8.0", True),
        ("newest", "9.0.0", True),
        ("newest", "8.5.9", False),
        ("8.6", "8.6.0", True),
        ("8.6", "8.6.12", True),
        ("8.6", "8.60.1", False),
        ("8.6", "8.8.0", False),
        ("8.6.3", "8.6.3", True),
        ("8.6.3", "8.6.4", False),
        ("8", "8.2.1", True),
        ("8", "7.2.1", False),
        (">=8.2", "8.2.0", True),
        (">=8.2", "10.0.0", True),
        (">=8.2", "8.1.99", False),
        (">= 8.2", "8.2.1", True),
        (">=8.2.3", "8.2.2", False),
        ("  8.6 ", "8.6.1", True),
    ],
)
def test_rule(rule: str, version: str, fits: bool) -> None:
    assert parse_rule(rule, "8.6").matches(parse_version(version)) is fits


@pytest.mark.parametrize("text", ["", "latest", "8.", ".8", "8.6.3.1", ">8.2", "<=8", "8.x", "-8", ">=", "8 6", "٨.٦"])
def test_not_a_rule(text: str) -> None:
    with pytest.raises(ValueError, match="not a version"):
        parse_rule(text, "8.6")


@given(NUMBERS, NUMBERS)
def test_a_floor_admits_exactly_what_is_not_lower(floor: tuple[int, ...], version: tuple[int, ...]) -> None:
    assert parse_rule(f">={show(floor)}", "8.6").matches(version) is (version >= floor)


@given(NUMBERS)
def test_a_version_reads_back_and_fits_its_own_series(version: tuple[int, ...]) -> None:
    text = show(version)
    assert parse_version(text) == version
    assert parse_rule(series_of(text), "8.6").matches(version)


@given(st.text())
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    try:
        rule = parse_rule(text, "8.6")
    except ValueError:
        return
    assert rule.numbers


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("Redis server v=8.6.3 sha=00000000:0 malloc=jemalloc-5.3.1 bits=64 build=8cac74f1\n", ("redis", "8.6.3")),
        ("Valkey server v=9.1.2 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n", ("valkey", "9.1.2")),
        ("some warning\nRedis server v=7.0.15 sha=0 malloc=libc bits=64 build=0\n", ("redis", "7.0.15")),
        ("redis-cli 8.6.3\n", None),
        ("Redis server v=unstable\n", None),
        ("", None),
    ],
)
def test_server_banner(output: str, found: tuple[str, str] | None) -> None:
    assert parse_server_banner(output) == found


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("\nenvoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n", "1.40.0"),
        ("envoy  version: 9e55809337/1.41.0-dev/Modified/RELEASE/BoringSSL", "1.41.0"),
        ("envoy 1.40.0", None),
        ("", None),
    ],
)
def test_envoy_banner(output: str, found: str | None) -> None:
    assert parse_envoy_banner(output) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5:8.6.3-1", "8.6.3"),
        ("9.1.2-1", "9.1.2"),
        ("5:7.0.15-1~deb12u5", "7.0.15"),
        ("6:8.2.2-1rl1~bookworm1", "8.2.2"),
        ("5:8.0.2+dfsg-1ubuntu3", "8.0.2"),
        ("", None),
        ("(none)", None),
    ],
)
def test_debian_version(text: str, found: str | None) -> None:
    assert parse_debian_version(text) == found
