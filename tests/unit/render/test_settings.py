"""redis.conf read back: what was quoted, what CONFIG GET spells otherwise, and what has really changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.render.redis_words import quote_word
from redisforge.render.settings import Difference, differences, gone, read_conf, taken_back


def test_a_file_is_read_line_by_line() -> None:
    text = "# maxmemory 1\n\nmaxmemory 100\nsave \"\"\nlogfile ''\nsave 3600 1\nTimeout 5\n"
    assert read_conf(text) == {"maxmemory": "100", "save": "3600 1", "logfile": "", "timeout": "5"}


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=())))
def test_what_was_written_is_read_back(word: str) -> None:
    try:
        line = quote_word(word)
    except Exception:  # a lone surrogate that is no byte: the file cannot hold it
        return
    if word == "":
        line = '""'
    assert read_conf(f"dir {line}") == {"dir": word}


@pytest.mark.parametrize(
    ("name", "wanted", "running"),
    [
        ("maxmemory", "1gb", "1073741824"),
        ("maxmemory", "1g", "1000000000"),
        ("appendonly", "YES", "yes"),
        ("notify-keyspace-events", "KEA", "AKE"),
        ("notify-keyspace-events", "Kg$lshzxetd", "AK"),
        (
            "client-output-buffer-limit",
            "replica 256mb 64mb 60",
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 1 1 1",
        ),
        ("save", "3600 1 300 100", "3600 1 300 100"),
        ("tls-protocols", "TLSv1.2 TLSv1.3", "TLSv1.2 TLSv1.3"),
    ],
)
def test_spellings_of_the_same_value(name: str, wanted: str, running: str) -> None:
    assert differences({name: wanted}, {name: running}) == ()


@pytest.mark.parametrize(
    ("name", "wanted", "running"),
    [
        ("maxmemory", "96mb", "67108864"),
        ("notify-keyspace-events", "KEx", ""),
        ("client-output-buffer-limit", "replica 1 1 60", "normal 0 0 0 slave 2 1 60"),
        ("save", "", "3600 1"),
    ],
)
def test_another_value_is_a_difference(name: str, wanted: str, running: str) -> None:
    assert differences({name: wanted}, {name: running}) == (Difference(name, wanted, running),)


def test_what_a_node_does_not_tell_is_not_compared() -> None:
    assert differences({"maxmemory": "1"}, {}) == ()


def test_of_two_spellings_of_a_name_the_later_counts() -> None:
    wanted = read_conf("replica-read-only yes\nslave-read-only no\n")
    assert differences(wanted, {"replica-read-only": "no", "slave-read-only": "no"}) == ()


def test_limits_of_several_classes_are_kept_apart() -> None:
    conf = read_conf("client-output-buffer-limit replica 2 1 60\nclient-output-buffer-limit pubsub 1kb 1kb 1\n")
    running = {"client-output-buffer-limit": "normal 0 0 0 slave 2 1 60 pubsub 1024 1024 1"}
    assert differences(conf, running) == ()


def test_what_is_no_longer_written_falls_back_to_the_default() -> None:
    placed, wanted = ("maxmemory", "hz", "slave-read-only", "io-threads"), ("maxmemory", "replica-read-only")
    assert taken_back(placed, wanted, {"hz": "10", "slave-read-only": "yes"}) == {"hz": "10"}
    assert gone(placed, wanted) == ("hz", "io-threads")
