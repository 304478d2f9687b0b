"""From redisforge.yaml to a Unit's handoff.json: what the keeper is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from redisforge.config.load import load
from redisforge.fleet.binaries import EngineBinary, EnvoyBinary
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.topology import Credentials, EngineKind, Topology, UserRole
from redisforge.model.unit import Unit
from redisforge.render.envoy_clusters import READS_CHECK_S
from redisforge.runbooks.units import Programs, build_units


def topology_of(folder: Path, text: str) -> Topology:
    (folder / "redisforge.yaml").write_text(text)
    return load(None, {}, folder).topology


def first_unit(topology: Topology, kind: EngineKind = "redis", version: str = "8.6.3") -> Unit:
    engine = EngineBinary(kind, version, "/usr/bin/redis-server", "/usr/bin/redis-cli", "path")
    programs = Programs(engine, EnvoyBinary("1.40.0", "/usr/bin/envoy", "path"))
    credentials = Credentials({user.name: Secret(f"password of {user.name}") for user in topology.users})
    return build_units(topology, ClusterLayout("/var/lib/cluster"), credentials, programs)["redis-1"]


def test_what_the_keeper_is_told(tmp_path: Path) -> None:
    unit = first_unit(topology_of(tmp_path, "node_timeout_ms: 3000\nhandoff_max_lag_bytes: 5\nenvoy: {refresh_s: 2}\n"))
    told, guard = unit.handoff, unit.guard
    assert told is not None
    assert guard is not None
    assert (told.enabled, told.max_lag_bytes, told.user) == (True, 5, "handoff_user")
    assert (told.stop_limit_s, told.linger_s, told.election_pause_s) == (8.0, 2.5, 12.0)
    assert (told.address, told.port, told.data_path) == (guard.address, guard.port, guard.data_path)
    password = next(file for file in unit.files if file.path == "handoff.password")
    assert told.password_path == f"{unit.folder}/handoff.password"
    assert (password.text(), password.mode) == ("password of handoff_user", 0o600)
    assert "password of" not in msgspec.json.encode(told).decode()


@pytest.mark.parametrize(
    ("kind", "version", "users"),
    [
        ("redis", "7.0.15", ()),  # it would close the connections of all clients
        ("redis", "8.0.2", ("readonly_user",)),
        ("redis", "8.6.3", ("readonly_user",)),
        ("valkey", "8.0.1", ()),
        ("valkey", "9.1.2", ("readonly_user",)),
    ],
)
def test_reads_are_refused_where_an_acl_file_is_loaded_without_harm(
    tmp_path: Path, kind: EngineKind, version: str, users: tuple[str, ...]
) -> None:
    told = first_unit(topology_of(tmp_path, "shards: 3\n"), kind, version).handoff
    assert told is not None
    assert told.drained_users == users
    assert told.drain_s > READS_CHECK_S
    assert told.longest_s == 2 * told.stop_limit_s + told.linger_s + told.drain_s


@pytest.mark.parametrize("text", ["handoff: false\n", "handoff_max_lag_bytes: 0\n", "envoy: {refresh_s: 5}\n"])
def test_its_settings_are_none_of_the_process(tmp_path: Path, text: str) -> None:
    """A changed one must not restart Redis. (Envoy's refresh is Envoy's own setting.)"""
    before, after = first_unit(topology_of(tmp_path, "shards: 3\n")), first_unit(topology_of(tmp_path, text))
    assert before.handoff != after.handoff
    assert before.config_hash == after.config_hash


@pytest.mark.parametrize(
    ("kind", "version", "timeout_ms", "pause_s"),
    [
        ("redis", "7.0.15", 5000, 20.0),
        ("redis", "8.6.3", 5000, 20.0),
        ("redis", "8.6.3", 500, 4.0),
        ("valkey", "8.0.1", 5000, 20.0),
        ("valkey", "8.1.0", 5000, 0.0),
        ("valkey", "9.1.2", 5000, 0.0),
    ],
)
def test_how_long_elections_lie_apart(
    tmp_path: Path, kind: EngineKind, version: str, timeout_ms: int, pause_s: float
) -> None:
    """Four node timeouts, 4 s at the least, where the engine needs it."""
    told = first_unit(topology_of(tmp_path, f"node_timeout_ms: {timeout_ms}\n"), kind, version).handoff
    assert told is not None
    assert told.election_pause_s == pause_s


def test_proxies_that_rarely_refresh_are_not_waited_for(tmp_path: Path) -> None:
    told = first_unit(topology_of(tmp_path, "envoy: {refresh_s: 600}\n")).handoff
    assert told is not None
    assert told.linger_s == 5.5


def test_a_topology_recorded_before_there_was_a_user_for_it_has_none(tmp_path: Path) -> None:
    topology = topology_of(tmp_path, "shards: 3\n")
    recorded = msgspec.to_builtins(topology)
    recorded["users"] = [user for user in recorded["users"] if user["role"] != UserRole.HANDOFF]
    del recorded["handoff"]
    unit = first_unit(msgspec.convert(recorded, Topology))
    assert unit.handoff is None
    assert "handoff.password" not in {file.path for file in unit.files}
