"""The load tool itself: it sees what goes wrong. A tool that never complains proves nothing."""

from __future__ import annotations

import os
import signal
import time

import pytest
from cluster_tool import Cluster, is_alive, kill
from load import Load

from waiting import until

pytestmark = pytest.mark.integration

HANG_S = 0.6


def key_of_kind(load: Load, kind: str) -> str:
    """A key of this load that has been acknowledged several times."""
    return f"load:{kind}:{load.settings.run}:w1:1"


def test_a_healthy_cluster_gives_no_error_and_loses_nothing(shared: Cluster) -> None:
    with Load(shared.url(), keep_keys=False) as load:
        load.await_writes(1500)
        assert load.verify() == ()
        report = load.stop()

    report.check()
    assert report.reads > 500
    assert report.longest_gap_s >= 1 / load.settings.rate_per_s
    kinds = {key.split(":")[1] for key in report.acknowledged}
    assert kinds == {"value", "counter", "list"}
    assert any("{" in key for key in report.acknowledged)
    with shared.client() as client:
        assert not client.exists(*list(report.acknowledged)[:50])


def test_readers_may_use_the_reader_endpoint(shared: Cluster) -> None:
    with Load(shared.url(), writers=1, readers=2, reader_url=shared.url("reader"), keep_keys=False) as load:
        load.await_writes(200)
        report = load.stop()

    report.check()
    assert report.reads > 100


@pytest.mark.parametrize(
    ("kind", "command", "sign"),
    [
        ("value", "DEL", "is missing"),
        ("counter", "DEL", "acknowledged was"),
        ("list", "LPOP", "lost elements [1]"),
        ("counter", "INCR", "more than"),
        ("value", "APPEND", "another content"),
    ],
)
def test_a_write_that_is_gone_or_changed_is_named(shared: Cluster, kind: str, command: str, sign: str) -> None:
    with Load(shared.url(), writers=2, readers=0, keys_per_writer=100_000, keep_keys=False) as load:
        load.await_writes(400)
        os.kill(load.pid, signal.SIGSTOP)  # else a later write would cover the damage
        key = key_of_kind(load, kind)
        with shared.client() as client:
            client.execute_command(command, key, *(["x"] if command == "APPEND" else []))
            if command == "INCR":
                client.incrby(key, 1000)
        os.kill(load.pid, signal.SIGCONT)
        report = load.stop()

    assert any(text.startswith(f"{key}:") and sign in text for text in report.lost), str(report)
    with pytest.raises(AssertionError, match="lost"):
        report.check_nothing_lost()


def test_a_hanging_envoy_is_a_gap_and_no_error(fresh: Cluster) -> None:
    pid = fresh.pid("envoy-1")
    with Load(fresh.url()) as load:
        load.await_writes(100)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(HANG_S)  # the hang is what is tested, not a wait for something
        os.kill(pid, signal.SIGCONT)
        load.await_writes(100)
        report = load.stop()

    assert HANG_S * 0.8 < report.longest_gap_s < 10 * HANG_S, str(report)
    report.check()


def test_a_killed_envoy_is_errors_within_a_window_and_loses_nothing(fresh: Cluster) -> None:
    pid = fresh.pid("envoy-1")
    with Load(fresh.url()) as load:
        load.await_writes(100)
        kill(pid)
        fresh.await_restart("envoy-1", pid)
        until(lambda: load.so_far().error_count, "an error")
        load.await_writes(400)
        report = load.stop()

    assert report.error_count > 0, str(report)
    assert 0 < len(report.errors) <= 20
    assert " s writer-" in "\n".join(report.errors) or " s reader-" in "\n".join(report.errors)
    assert report.error_window_s <= report.seconds
    report.check_nothing_lost()
    with pytest.raises(AssertionError):
        report.check()


def test_a_load_that_ends_by_itself_says_so(shared: Cluster) -> None:
    with Load(shared.url(), writers=1, readers=0, limit_ops=50, keep_keys=False) as load:
        until(lambda: load.so_far().limit_reached, "its limit", 20)
        report = load.stop()

    with pytest.raises(AssertionError, match="ended by itself"):
        report.check()


def test_a_load_without_anybody_to_talk_to_does_not_begin(shared: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("load.START_LIMIT_S", 1.0)
    url = shared.url().replace(f":{shared.ports.first + 100}/", f":{shared.ports.first + 99}/")

    with pytest.raises(AssertionError, match="refused"), Load(url):
        pytest.fail("it began")


def test_the_load_ends_with_its_test(shared: Cluster) -> None:
    load = Load(shared.url(), writers=1, readers=1)
    with pytest.raises(RuntimeError), load:
        raise RuntimeError("the test failed")
    until(lambda: not is_alive(load.pid), "its end", 5)
