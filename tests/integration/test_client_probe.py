"""The probe of verbs: what it sees, and that it neither disturbs nor outlives the verb."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cluster_tool import SOURCE, Cluster, environment, is_alive, kill

from redisforge.errors import AbortedError
from redisforge.redis.probe_messages import ProbeSettings
from redisforge.runbooks import client_probe
from redisforge.runbooks.client_probe import KEY_PREFIX, ClientProbe, probe_settings
from redisforge.runbooks.cluster import Cluster as OpenCluster
from redisforge.runbooks.cluster import open_cluster
from waiting import until

pytestmark = pytest.mark.integration

HANG_S = 0.5


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of the probe is found where the tests find the code."""
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


def opened(cluster: Cluster) -> OpenCluster:
    return open_cluster(cluster.home, cluster.name)


def probe_keys(cluster: Cluster) -> set[str]:
    """The probe's keys on all masters."""
    found: set[str] = set()
    for name in cluster.masters():
        with cluster.node_client(name) as client:
            found |= set(client.scan_iter(f"{KEY_PREFIX}*", count=1000))
    return found


async def seen(probe: ClientProbe, least_writes: int) -> None:
    async with asyncio.timeout(20):
        while probe.writes < least_writes:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_an_untroubled_cluster(shared: Cluster) -> None:
    async with ClientProbe(opened(shared)) as probe:
        await seen(probe, 100)
        during = await asyncio.to_thread(probe_keys, shared)
        with_expiry = {key: await asyncio.to_thread(expiry_s, shared, key) for key in list(during)[:5]}
        report = await probe.finish()
        probe.check_budget(10_000)

    assert report == await probe.finish()
    assert report.notices == ()
    assert (report.errors, report.lost, report.first_errors) == (0, 0, ())
    assert report.writes >= 100
    assert report.reads > 20
    assert 1 < report.longest_gap_ms < 2000
    assert during
    assert all(0 < seconds <= 900 for seconds in with_expiry.values())
    assert await asyncio.to_thread(probe_keys, shared) == set()


def expiry_s(cluster: Cluster, key: str) -> int:
    with cluster.client() as client:
        return client.ttl(key)


async def test_a_hang_is_a_gap_while_it_lasts_and_exceeds_the_budget(fresh: Cluster) -> None:
    pid = fresh.pid("envoy-1")
    async with ClientProbe(opened(fresh)) as probe:
        assert not probe.over_budget(1000 * HANG_S)
        os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                while not probe.over_budget(1000 * HANG_S):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            os.kill(pid, signal.SIGCONT)
        with pytest.raises(AbortedError, match="500 ms were allowed") as caught:
            probe.check_budget(1000 * HANG_S)
        report = await probe.finish()

    assert caught.value.exit_status == 15
    assert "0 errors" in caught.value.why
    assert "the same command goes on from here" in caught.value.next_step
    assert report.longest_gap_ms >= 1000 * HANG_S
    assert (report.errors, report.lost) == (0, 0)


async def test_errors_are_counted_and_told(fresh: Cluster) -> None:
    pid = fresh.pid("envoy-1")
    async with ClientProbe(opened(fresh)) as probe:
        await asyncio.to_thread(kill, pid)
        await asyncio.to_thread(fresh.await_restart, "envoy-1", pid)
        await seen(probe, probe.writes + 50)
        report = await probe.finish()

    assert report.errors > 0
    assert 0 < len(report.first_errors) <= 10
    assert report.error_window_ms > 0
    assert report.lost == 0
    assert report.longest_gap_ms > 20


async def test_a_lost_write_is_found(shared: Cluster) -> None:
    async with ClientProbe(opened(shared)) as probe:
        await seen(probe, 300)
        pid = probe.pid
        assert pid
        os.kill(pid, signal.SIGSTOP)  # else the next write of the key would cover the loss
        try:
            gone, old, *_ = sorted(await asyncio.to_thread(probe_keys, shared))
            await asyncio.to_thread(damage, shared, gone, old)
        finally:
            os.kill(pid, signal.SIGCONT)
            finishing = asyncio.create_task(probe.finish())
        report = await finishing

    # A key may have been written again between SIGCONT and `finish`; with 256 keys per writer not both.
    assert report.lost in {1, 2}
    assert {text.split(": write")[0] for text in report.first_lost} <= {gone, old}


def damage(cluster: Cluster, gone: str, old: str) -> None:
    with cluster.client() as client:
        client.delete(gone)
        client.set(old, 0)


async def test_it_says_that_no_endpoint_could_be_reached_and_does_not_fail(fresh: Cluster) -> None:
    kill(fresh.keeper_pid("envoy-1"), fresh.pid("envoy-1"))

    async with ClientProbe(opened(fresh)) as probe:
        report = await probe.finish()

    text = "\n".join(report.notices)
    assert "could not reach the endpoint" in text
    assert "connection refused" in text
    assert report.lost == 0


async def test_a_probe_that_is_killed_or_cannot_start_is_a_notice(
    shared: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ClientProbe(opened(shared)) as probe:
        assert probe.pid
        await asyncio.to_thread(kill, probe.pid)
        killed = await probe.finish()
    monkeypatch.setattr(client_probe, "PROGRAM", ("/nowhere/python",))
    async with ClientProbe(opened(shared)) as probe:
        absent = await probe.finish()
    monkeypatch.setattr(client_probe, "PROGRAM", (sys.executable, "-c", "import sys; sys.exit('it broke')"))
    async with ClientProbe(opened(shared)) as probe:
        broken = await probe.finish()

    assert "ended early" in "\n".join(killed.notices)
    assert "could not be started" in "\n".join(absent.notices)
    assert "it broke" in "\n".join(broken.notices)


async def test_without_a_right_to_write_it_says_so(shared: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = probe_settings(opened(shared))
    assert settings
    reader_only = msgspec.structs.replace(settings, primary=settings.reader)

    def settings_without_a_right(_: OpenCluster) -> ProbeSettings:
        return reader_only

    monkeypatch.setattr(client_probe, "probe_settings", settings_without_a_right)

    async with ClientProbe(opened(shared)) as probe:
        report = await probe.finish()

    assert "may not do what writer-1 does" in "\n".join(report.notices)
    assert (report.errors, report.writes) == (0, 0)


VERB_THAT_HANGS = """
import asyncio, os, sys
from pathlib import Path
from redisforge.runbooks.client_probe import ClientProbe
from redisforge.runbooks.cluster import open_cluster

async def main():
    async with ClientProbe(open_cluster(Path(sys.argv[1]), "main")) as probe:
        print(probe.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def test_it_ends_with_a_verb_that_is_killed(shared: Cluster, tmp_path: Path) -> None:
    command = (sys.executable, "-c", VERB_THAT_HANGS, str(shared.home))
    with subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as verb:
        assert verb.stdout
        pid = int(verb.stdout.readline())
        seen = Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text()
        verb.kill()

    until(lambda: not is_alive(pid), "the end of the probe", 10)
    assert "probe_process" in seen
    assert shared.passwords()["REDIS_ACL_PASS"] not in seen


def test_a_verb_reports_what_clients_noticed(shared: Cluster) -> None:
    result = shared.run("restart", "redis-6", "--probe", "--json")

    assert result.status == 0, str(result)
    probe = result.json()["probe"]
    assert (probe["errors"], probe["lost"], probe["notices"]) == (0, 0, [])
    assert probe["writes"] > 0


def test_a_verb_stops_at_a_safe_point_when_the_budget_is_exceeded(fresh: Cluster) -> None:
    """A budget of a millisecond is exceeded by every client; the nodes are left as they are between two phases."""
    result = fresh.run("restart", "--abort-over", "1")

    assert result.status == 15, str(result)
    assert "1 ms were allowed" in result.stderr
    assert "clients: longest gap" in result.stderr
    assert fresh.is_healthy()
    assert fresh.run("restart", "redis-4", "--abort-over", "60000").status == 0
    assert fresh.is_healthy()
