"""`redisforge init-cluster` over plain servers that the test itself started, as somebody else would have."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cluster_tool import ADDRESS, COMMAND, Ports, Result, environment, run_command, until

from redisforge.fleet.binaries import cache_folder, ensure_engine
from redisforge.model.topology import Engine

pytestmark = pytest.mark.integration

PASSWORD = "Formed-by-somebody-else-42"
KILLS_IN_A_ROW = 4
CONFIGURATION = """\
bind {address}
port {plain_port}
tls-port {tls_port}
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 2000
cluster-port {bus_port}
repl-diskless-sync-delay 0
repl-ping-replica-period 1
requirepass {password}
masterauth {password}
dir {folder}
logfile {folder}/log
save ""
"""
TLS = """\
tls-cert-file {tls}/server.crt
tls-key-file {tls}/server.key
tls-ca-cert-file {tls}/ca.crt
tls-auth-clients optional
tls-cluster yes
tls-replication yes
"""


class Nodes:
    """Servers of one version on ports of their own."""

    def __init__(self, folder: Path, server: str, *, count: int = 6, tls: Path | None = None) -> None:
        self.folder, self.tls = folder, tls
        self._server = server
        self._ports = Ports()
        self.ports = [self._ports.first + number for number in range(count)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for port in self.ports:
            self.start(port)
        until(lambda: all(self.answers(port) for port in self.ports), "the servers answer")

    @property
    def names(self) -> list[str]:
        return [f"{ADDRESS}:{port}" for port in self.ports]

    def start(self, port: int) -> None:
        folder = self.folder / str(port)
        folder.mkdir(parents=True, exist_ok=True)
        text = CONFIGURATION.format(
            address=ADDRESS, plain_port=0 if self.tls else port, tls_port=port if self.tls else 0,
            bus_port=port + 50, password=PASSWORD, folder=folder,
        )  # fmt: skip
        (folder / "redis.conf").write_text(text + (TLS.format(tls=self.tls) if self.tls else ""))
        self._processes[port] = subprocess.Popen((self._server, str(folder / "redis.conf")))

    def stop(self, port: int) -> None:
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def client(self, port: int) -> Any:
        tls = {"ssl": True, "ssl_ca_certs": str(self.tls / "ca.crt")} if self.tls else {}
        return redis.Redis(host=ADDRESS, port=port, password=PASSWORD, decode_responses=True, retry=None, **tls)  # type: ignore[arg-type]

    def answers(self, port: int) -> bool:
        try:
            with self.client(port) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def ask(self, port: int, *command: str) -> Any:
        with self.client(port) as client:
            return client.execute_command(*command)

    def command(self, *options: str, nodes: list[str] | None = None) -> tuple[str, ...]:
        ca = ("--ca-file", str(self.tls / "ca.crt")) if self.tls else ()
        return ("init-cluster", ",".join(nodes or self.names), *ca, *options)

    def variables(self, password: str = PASSWORD) -> dict[str, str]:
        return environment(self.folder / "home", REDIS_REQUIREPASS=password)

    def form(self, *options: str, nodes: list[str] | None = None, password: str = PASSWORD) -> Result:
        return run_command(*self.command(*options, nodes=nodes), folder=self.folder, variables=self.variables(password))

    def assert_formed(self, masters: int = 3) -> None:
        """Every node sees the same cluster: all slots, `masters` owners, everybody else a replica in sync."""
        views: set[frozenset[str]] = set()
        for port in self.ports:
            info = self.ask(port, "CLUSTER INFO")
            assert (info["cluster_state"], info["cluster_slots_ok"], info["cluster_size"]) == (
                "ok", "16384", str(masters),
            ), f"{port}: {info}"  # fmt: skip
            views.add(frozenset(node["node_id"] for node in self.ask(port, "CLUSTER NODES").values()))
            with self.client(port) as client:
                replication = client.info("replication")
            if replication["role"] == "slave":
                assert replication["master_link_status"] == "up"
        assert len(views) == 1
        assert len(next(iter(views))) == len(self.ports)

    def assert_untouched(self) -> None:
        """No node was introduced to another, and none got a slot."""
        for port in self.ports:
            if port in self._processes:
                info = self.ask(port, "CLUSTER INFO")
                assert (info["cluster_known_nodes"], info["cluster_slots_assigned"]) == ("1", "0"), f"{port}: {info}"

    def close(self) -> None:
        for port in list(self._processes):
            self.stop(port)
        self._ports.close()


MakeNodes = Callable[..., Nodes]


@pytest.fixture
def make_nodes(tmp_path: Path) -> Iterator[MakeNodes]:
    made: list[Nodes] = []

    def make(version: str = "newest", **options: Any) -> Nodes:
        engine = ensure_engine(Engine(version=version), cache_folder(os.environ), print, os.environ)
        made.append(Nodes(tmp_path / f"nodes-{len(made)}", engine.server_path, **options))
        return made[-1]

    yield make
    for nodes in made:
        nodes.close()


@pytest.mark.parametrize("version", ["newest", "7.0"])
def test_it_forms_a_cluster_and_then_changes_nothing(make_nodes: MakeNodes, version: str) -> None:
    nodes = make_nodes(version)
    planned = nodes.form("--dry-run")
    assert planned.status == 0, str(planned)
    assert "CLUSTER ADDSLOTSRANGE 0 5460" in planned.stdout
    nodes.assert_untouched()

    formed = nodes.form()

    assert formed.status == 0, str(formed)
    assert "cluster of 6 nodes, 3 masters: formed" in formed.stdout
    nodes.assert_formed()
    before = [nodes.ask(port, "CLUSTER NODES").keys() for port in nodes.ports]
    again = nodes.form()
    assert again.status == 0, str(again)
    assert "was formed already, nothing changed" in again.stdout
    assert [nodes.ask(port, "CLUSTER NODES").keys() for port in nodes.ports] == before
    assert "Nothing to do" in nodes.form("--dry-run").stdout
    assert PASSWORD not in formed.stdout + formed.stderr + again.stdout + again.stderr
    assert not (nodes.folder / "home").exists()


def test_it_forms_a_cluster_over_tls(make_nodes: MakeNodes, tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    made = run_command(
        "generate-certs", str(tls), "--san", ADDRESS, folder=tmp_path, variables=environment(tmp_path / "home")
    )
    assert made.status == 0, str(made)
    nodes = make_nodes(tls=tls)

    formed = nodes.form("--json")

    assert formed.status == 0, str(formed)
    assert len(formed.json()["nodes"]) == 6
    nodes.assert_formed()
    plain = run_command(
        "init-cluster", ",".join(nodes.names), "--wait", "0", folder=tmp_path, variables=nodes.variables()
    )
    assert plain.status == 12, str(plain)


def test_masters_and_replicas_of_named_zones_are_kept_apart(make_nodes: MakeNodes) -> None:
    nodes = make_nodes(count=9)
    zoned = [f"{name}@{'abc'[number % 3]}" for number, name in enumerate(nodes.names)]

    formed = nodes.form("--replicas", "2", "--json", nodes=zoned)

    assert formed.status == 0, str(formed)
    nodes.assert_formed()
    zone_of = {node["port"]: node["zone"] for node in formed.json()["nodes"]}
    table = nodes.ask(nodes.ports[0], "CLUSTER NODES")
    port_of = {entry["node_id"]: int(address.rpartition(":")[2]) for address, entry in table.items()}
    shards: dict[str, set[str]] = {}
    for entry in table.values():
        master = entry["node_id"] if "master" in entry["flags"] else entry["master_id"]
        shards.setdefault(master, set()).add(zone_of[port_of[entry["node_id"]]])
    assert list(shards.values()) == [{"a", "b", "c"}] * 3


def test_too_few_or_unreadable_nodes_are_a_usage_error(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()

    for names, word in (
        (nodes.names[:5], "5 nodes"),
        ([*nodes.names[:5], nodes.names[0]], "named twice"),
        ([*nodes.names[:5], "no-port"], "no-port"),
    ):
        result = nodes.form(nodes=names)
        assert result.status == 2, str(result)
        assert word in result.stderr
    many = nodes.form("--replicas", "2")
    assert many.status == 2
    assert "2 masters" in many.stderr
    nodes.assert_untouched()


def test_a_node_with_data_is_refused_with_what_it_holds(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()
    full = nodes.ports[4]
    nodes.ask(full, "CLUSTER ADDSLOTSRANGE", "0", "16383")  # a node of a cluster takes no key without a slot
    until(lambda: nodes.ask(full, "CLUSTER INFO")["cluster_state"] == "ok", "the lonely node takes keys")
    for number in range(7):
        nodes.ask(full, "SET", f"precious:{number}", "value")
    nodes.ask(full, "CLUSTER DELSLOTSRANGE", "0", "16383")

    result = nodes.form()

    assert result.status == 9, str(result)
    assert "already holds data" in result.stderr
    assert f"{ADDRESS}:{full}" in result.stderr
    assert "7 keys" in result.stderr
    for port in nodes.ports:
        assert nodes.ask(port, "CLUSTER INFO")["cluster_known_nodes"] == "1"
    assert nodes.ask(full, "DBSIZE") == 7


def test_nodes_of_another_cluster_are_refused(make_nodes: MakeNodes) -> None:
    theirs, ours = make_nodes(), make_nodes()
    assert theirs.form().status == 0

    result = ours.form(nodes=[*ours.names[:5], theirs.names[0]])

    assert result.status == 9, str(result)
    assert "not declared" in result.stderr
    assert theirs.names[0] in result.stderr
    ours.assert_untouched()
    theirs.assert_formed()


def test_a_wrong_password_is_told_and_nothing_is_touched(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()

    wrong, none = nodes.form(password="Not-the-password-43"), nodes.form(password="")

    assert (wrong.status, none.status) == (12, 12), f"{wrong}{none}"
    assert "WRONGPASS" in wrong.stderr
    assert "NOAUTH" in none.stderr
    assert "REDIS_REQUIREPASS" in wrong.stderr
    nodes.assert_untouched()


def test_a_dead_node_is_named_and_one_that_comes_late_is_waited_for(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()
    nodes.stop(nodes.ports[3])

    dead = nodes.form("--wait", "0.5")

    assert dead.status == 12, str(dead)
    assert f"{ADDRESS}:{nodes.ports[3]}" in dead.stderr
    assert "connection refused" in dead.stderr
    nodes.assert_untouched()
    command = (*COMMAND, *nodes.command("--wait", "30"))
    with subprocess.Popen(command, cwd=nodes.folder, env=nodes.variables()) as waiting:
        nodes.start(nodes.ports[3])
        assert waiting.wait(60) == 0
    nodes.assert_formed()


def test_killed_again_and_again_it_ends_in_one_cluster(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()
    for _ in range(KILLS_IN_A_ROW):
        with subprocess.Popen((*COMMAND, *nodes.command()), cwd=nodes.folder, env=nodes.variables()) as process:
            try:
                process.wait(random.uniform(0.3, 1.2))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)

    formed = nodes.form()

    assert formed.status == 0, str(formed)
    nodes.assert_formed()


def test_a_formed_cluster_after_a_failover_is_left_as_it_is(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()
    assert nodes.form().status == 0
    replica = next(port for port in nodes.ports if "slave" in nodes.ask(port, "ROLE")[0])
    nodes.ask(replica, "CLUSTER FAILOVER")
    until(lambda: nodes.ask(replica, "ROLE")[0] == "master", "the failover")

    def settled() -> bool:
        return "nothing changed" in nodes.form().stdout

    until(settled, "no difference that would be acted upon", 10)
    assert nodes.ask(replica, "ROLE")[0] == "master"
    nodes.assert_formed()
