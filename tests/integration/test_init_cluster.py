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
from cluster_tool import ADDRESS, environment, run_command
from foreign_nodes import PASSWORD, Nodes

from redisforge.fleet.binaries import EngineBinary, cache_folder, ensure_engine
from redisforge.model.topology import Engine
from waiting import until

pytestmark = pytest.mark.integration

KILLS_IN_A_ROW = 4

MakeNodes = Callable[..., Nodes]


def engine_of(version: str) -> EngineBinary:
    return ensure_engine(Engine(version=version), cache_folder(os.environ), print, os.environ)


def await_nothing_to_do(nodes: Nodes) -> None:
    """Run it until it finds all done: nodes that were changed by others learn of it by gossip, which takes a moment."""
    until(lambda: "was formed already, nothing changed" in nodes.form().stdout, "nothing left to do", 15)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    made = run_command(
        "generate-certs", str(folder), "--san", ADDRESS, folder=tmp_path, variables=environment(tmp_path / "home")
    )
    assert made.status == 0, str(made)
    return folder


@pytest.fixture
def make_nodes(tmp_path: Path) -> Iterator[MakeNodes]:
    made: list[Nodes] = []

    def make(version: str = "newest", **options: Any) -> Nodes:
        made.append(Nodes(tmp_path / f"nodes-{len(made)}", engine_of(version).server_path, **options))
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
    assert not (nodes.folder / "home").exists()


def test_it_forms_a_cluster_over_tls(make_nodes: MakeNodes, certificates: Path) -> None:
    nodes = make_nodes(tls=certificates, auth_clients="yes")
    client = ("--cert-file", str(certificates / "client.crt"), "--key-file", str(certificates / "client.key"))
    refused = nodes.form("--wait", "0")
    assert refused.status == 12, str(refused)  # the nodes ask for a certificate
    nodes.assert_untouched()

    formed = nodes.form(*client, "--json")

    assert formed.status == 0, str(formed)
    assert len(formed.json()["nodes"]) == 6
    nodes.assert_formed()


def test_unusable_tls_options_are_told_and_the_password_never_leaves_in_plain_text(
    make_nodes: MakeNodes, certificates: Path, tmp_path: Path
) -> None:
    nodes = make_nodes()
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate\n")
    ca, certificate, key = ("--ca-file", "--cert-file", "--key-file")
    files = {name: str(certificates / name) for name in ("ca.crt", "ca.key", "server.crt", "server.key")}
    own = (certificate, files["server.crt"], key, files["server.key"])

    for options, status, words in (
        ((ca, str(tmp_path / "nowhere")), 2, "nowhere"),
        (own, 2, "--ca-file"),
        ((ca, files["ca.crt"], key, files["server.key"]), 2, "--cert-file"),
        ((ca, str(garbage)), 5, "garbage.pem"),
        ((ca, files["ca.crt"], certificate, files["server.crt"]), 5, "server.crt"),
        ((ca, files["ca.crt"], certificate, files["server.crt"], key, files["ca.key"]), 5, "key values mismatch"),
        ((ca, files["ca.crt"], *own), 12, "this port speaks plain Redis, without TLS"),
        ((ca, files["ca.crt"], *own), 12, "give the nodes' tls-port"),
    ):
        result = nodes.form(*options, "--wait", "0")
        assert result.status == status, f"{options}: {result}"
        assert words in result.stderr

    nodes.assert_untouched()


def test_nodes_of_another_ca_or_without_tls_asked_for_are_not_used(
    make_nodes: MakeNodes, certificates: Path, tmp_path: Path
) -> None:
    nodes = make_nodes(tls=certificates)
    variables = environment(tmp_path / "home", REDIS_REQUIREPASS=PASSWORD)
    run_command("generate-certs", "other", folder=tmp_path, variables=variables)

    for options, words in (((), "onnection"), (("--ca-file", "other/ca.crt"), "its certificate is not accepted")):
        result = run_command(
            "init-cluster", ",".join(nodes.names), "--wait", "0", *options, folder=tmp_path, variables=variables
        )
        assert result.status == 12, str(result)
        assert words in result.stderr, str(result)
        assert "speaks plain Redis" not in result.stderr, str(result)
        assert "Traceback" not in result.stderr, str(result)

    nodes.assert_untouched()


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
    with nodes.start_forming("--wait", "60") as waiting:
        assert waiting.stdout
        told = waiting.stdout.readline()
        assert "still waiting, for at most" in told
        assert f"{ADDRESS}:{nodes.ports[3]}: " in told
        nodes.start(nodes.ports[3])
        said, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == 0, said
    nodes.assert_formed()


def test_a_server_that_is_no_cluster_node_is_named(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()
    lonely = nodes.ports[2]
    nodes.stop(lonely)
    nodes.start(lonely, "--cluster-enabled", "no")
    until(lambda: nodes.answers(lonely), "it answers")

    result = nodes.form()

    assert result.status == 12, str(result)
    assert f"{ADDRESS}:{lonely}: ERR This instance has cluster support disabled" in result.stderr
    nodes.stop(lonely)
    nodes.assert_untouched()


def test_a_named_user_forms_it(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()
    for port in nodes.ports:
        nodes.ask(port, "ACL SETUSER", "former", "on", ">Another-good-one-17", "~*", "&*", "+@all")

    refused = nodes.form("--user", "former")
    formed = nodes.form("--user", "former", password="Another-good-one-17")

    assert (refused.status, formed.status) == (12, 0), f"{refused}{formed}"
    nodes.assert_formed()


# --- killed, at once, afterwards ---


def test_killed_at_every_stage_it_goes_on_from_there(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()
    ids = nodes.ids()

    def all_of(field: str, value: str) -> bool:
        return all(nodes.ask(port, "CLUSTER INFO")[field] == value for port in nodes.ports)

    for stage, reached in (
        ("some slots given out", lambda: not all_of("cluster_slots_assigned", "0")),
        ("all introduced", lambda: all_of("cluster_known_nodes", "6")),
        ("a replica attached", lambda: "slave" in nodes.roles().values()),
    ):
        with nodes.start_forming() as process:
            until(reached, stage)
            process.send_signal(signal.SIGKILL)

    formed = nodes.form()

    assert formed.status == 0, str(formed)
    assert nodes.ids() == ids
    nodes.assert_formed()


def test_killed_again_and_again_it_ends_in_one_cluster(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()
    for _ in range(KILLS_IN_A_ROW):
        with nodes.start_forming() as process:
            try:
                process.wait(random.uniform(0.3, 1.2))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)

    formed = nodes.form()

    assert formed.status == 0, str(formed)
    nodes.assert_formed()


def test_two_at_once_never_make_two_clusters(make_nodes: MakeNodes) -> None:
    """Nothing that they share could hold a lock: one may be refused by a node, and then says so."""
    nodes = make_nodes()
    ids = nodes.ids()

    with nodes.start_forming() as one, nodes.start_forming() as other:
        said = {process: process.communicate(timeout=90)[0] for process in (one, other)}

    for process, text in said.items():
        assert process.returncode == 0 or (process.returncode == 12 and "run the command again" in text), text
    again = nodes.form()
    assert again.status == 0, str(again)
    assert nodes.ids() == ids
    nodes.assert_formed()
    assert "was formed already, nothing changed" in nodes.form().stdout


def test_a_cluster_that_redis_cli_made_is_left_as_it_is_with_its_keys(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()
    subprocess.run(
        (engine_of("newest").cli_path, "--cluster", "create", *nodes.names, "--cluster-replicas", "1", "--cluster-yes"),
        env={**os.environ, "REDISCLI_AUTH": PASSWORD}, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    until(lambda: all(nodes.ask(port, "CLUSTER INFO")["cluster_state"] == "ok" for port in nodes.ports), "state ok")
    client: Any = redis.RedisCluster(host=ADDRESS, port=nodes.ports[0], password=PASSWORD)
    with client:
        for number in range(60):
            client.set(f"precious:{number}", "value")
    before = {port: (nodes.ask(port, "CLUSTER MYID"), role) for port, role in nodes.roles().items()}

    again = nodes.form(nodes=nodes.names[::-1])
    other_size = nodes.form("--replicas", "0")

    assert again.status == 0, str(again)
    assert "give out" not in again.stderr  # while gossip goes on it may introduce nodes once more, and no more
    await_nothing_to_do(nodes)
    assert other_size.status == 9, str(other_size)
    assert "a cluster already, with 3 masters" in other_size.stderr
    assert "6 nodes with --replicas 0 would make 6 masters" in other_size.stderr
    assert "with --replicas 1 the command checks that it is complete" in other_size.stderr
    assert "up`" not in other_size.stderr
    assert nodes.form("--replicas", "0", "--dry-run").stderr == other_size.stderr
    assert {port: (nodes.ask(port, "CLUSTER MYID"), role) for port, role in nodes.roles().items()} == before
    assert sum(nodes.ask(port, "DBSIZE") for port, (_, role) in before.items() if role == "master") == 60
    nodes.assert_formed()


def test_a_formed_cluster_after_a_failover_is_left_as_it_is(make_nodes: MakeNodes) -> None:
    nodes = make_nodes()
    assert nodes.form().status == 0
    replica = next(port for port, role in nodes.roles().items() if role == "slave")
    nodes.ask(replica, "CLUSTER FAILOVER")
    until(lambda: nodes.ask(replica, "ROLE")[0] == "master", "the failover")

    await_nothing_to_do(nodes)

    assert nodes.ask(replica, "ROLE")[0] == "master"
    nodes.assert_formed()
