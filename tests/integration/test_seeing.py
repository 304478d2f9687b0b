"""Looking at a running cluster: status, url, cli, logs, test-cluster, and redis-py on the printed URLs."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
from cluster_tool import ADDRESS, NODE_NAMES, SLOT_COUNT, Cluster, kill

from conftest import MakeCluster
from waiting import until

pytestmark = pytest.mark.integration

SCHEMAS = Path(__file__).parents[2] / "docs" / "reference"
NODE_FIELDS = {
    "id", "name", "host", "port", "zone", "role", "shard", "slots", "pid", "version", "keys", "used_memory_bytes",
    "lag_bytes", "state",
}  # fmt: skip
ENDPOINT_FIELDS = {"name", "host", "port", "protocol", "user", "state"}
CHECKS = {
    "PING", "SET/GET", "MSET over many slots", "pipeline", "transaction on one hash tag", "pub/sub", "reader endpoint",
    "CLUSTER INFO", "server version",
}  # fmt: skip


def assert_valid(document: Any, schema_name: str) -> None:
    schema = json.loads((SCHEMAS / schema_name).read_text())
    jsonschema.validate(document, schema)


def key_count(cluster: Cluster) -> int:
    return sum(node["keys"] for node in cluster.nodes().values())


# --- status ---


def test_status_as_json_has_every_documented_field(shared: Cluster) -> None:
    report = shared.run("status", "--json").json()

    assert report["cluster"] | {"engine": "", "envoy": ""} == {
        "name": "main", "state": "ok", "slots_ok": SLOT_COUNT, "engine": "", "envoy": "", "maintenance": [],
        "changed_by": "", "cut_off": "",
    }  # fmt: skip
    assert {node["name"] for node in report["nodes"]} == set(NODE_NAMES)
    for node in report["nodes"]:
        assert node.keys() >= NODE_FIELDS
        assert len(node["id"]) == 40
        assert node["pid"] == shared.pid(node["name"])
        assert (node["lag_bytes"] is None) == (node["role"] == "master")
    for door in report["endpoints"]:
        assert door.keys() >= ENDPOINT_FIELDS
        assert door["state"] == "ok"
    assert report["problems"] == []
    assert_valid(report, "status.schema.json")


def test_status_as_a_table_names_every_node_and_endpoint(shared: Cluster) -> None:
    result = shared.run("status")

    assert result.status == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    for name, node in shared.nodes().items():
        assert node["role"] in lines[name]
        assert f" {node['port']} " in lines[name]
        assert node["id"][:8] in lines[name]
    for door in ("primary", "primary-resp3", "reader", "pubsub"):
        assert lines[door].endswith("ok")
    assert "16384 of 16384 slots" in result.stdout
    assert "Problems" not in result.stdout
    assert shared.run("status", "--check").status == 0


def test_status_without_a_cluster_says_how_to_raise_one(shared: Cluster, tmp_path: Path) -> None:
    result = shared.run("status", REDISFORGE_HOME=str(tmp_path / "nothing"))

    assert result.status == 14
    assert "redisforge up" in result.stderr
    assert not (tmp_path / "nothing").exists()


def test_status_watch_shows_it_again_until_ctrl_c(shared: Cluster) -> None:
    with shared.start("status", "--watch", "--interval", "0.2") as process:
        assert process.stdout
        seen = 0
        for line in process.stdout:
            seen += "of 16384 slots" in line
            if seen == 3:
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130


def test_problems_are_told_in_words_and_make_check_fail(fresh: Cluster) -> None:
    master, replica = fresh.pair()
    kill(fresh.keeper_pid("envoy-1"))
    assert "envoy-1: runs without its keeper: nothing would restart it" in fresh.problems()
    kill(fresh.pid("envoy-1"))
    kill(fresh.keeper_pid(replica), fresh.pid(replica))

    checked = fresh.run("status", "--check")

    assert checked.status == 13, str(checked)
    problems = fresh.problems()
    assert "envoy-1: does not run" in problems
    assert f"{replica}: does not run" in problems
    assert f"{master}: has 0 of 1 replicas: its shard is less protected" in problems
    assert any("connection refused" in problem for problem in problems if problem.startswith("primary at"))
    assert "`redisforge up -c main` starts it" in fresh.run("status").stdout
    report = fresh.run("status", "--json").json()
    assert report["cluster"]["state"] == "fail"  # no endpoint serves
    assert report["cluster"]["slots_ok"] == SLOT_COUNT
    assert {door["state"] for door in report["endpoints"]} != {"ok"}
    assert_valid(report, "status.schema.json")
    fresh.up()
    assert fresh.is_healthy()


# --- url and cli ---


def test_redis_py_with_its_default_settings_works_on_the_printed_url(shared: Cluster) -> None:
    with shared.client("primary-resp3") as client:
        assert client.ping()
        client.set("seeing:default", "value")
        assert client.get("seeing:default") == b"value"
        client.delete("seeing:default")


def test_redis_py_with_resp2_works_on_the_printed_url(shared: Cluster) -> None:
    url = shared.url("primary")

    assert "protocol=2" in url
    with shared.client("primary") as client:
        client.mset({f"seeing:{number}": number for number in range(20)})
        assert client.mget([f"seeing:{number}" for number in range(20)]) == [b"%d" % number for number in range(20)]
        client.delete(*(f"seeing:{number}" for number in range(20)))


def test_the_reader_reads_and_does_not_write(shared: Cluster) -> None:
    with shared.client() as writer, shared.client("reader", retry=None) as reader:
        writer.set("seeing:read", "me")
        until(lambda: reader.get("seeing:read") == b"me", "the copy at the replica", 5)
        with pytest.raises(redis.RedisError, match=r"(?i)perm"):
            reader.set("seeing:read", "you")
        writer.delete("seeing:read")


def test_a_published_message_is_received_at_the_pubsub_endpoint(shared: Cluster) -> None:
    with shared.client("pubsub") as listener, shared.client() as sender, listener.pubsub() as subscription:
        subscription.subscribe("seeing:news")
        assert subscription.get_message(timeout=5)["type"] == "subscribe"
        sender.publish("seeing:news", "hello")
        assert subscription.get_message(timeout=5)["data"] == b"hello"


def test_url_prints_what_clients_connect_with(shared: Cluster) -> None:
    printed = shared.run("url", "reader", "--cluster", shared.name)

    assert (printed.status, printed.stdout) == (0, f"{shared.url('reader')}\n"), str(printed)
    client: Any = redis.Redis.from_url(printed.stdout.strip())  # pyright: ignore[reportUnknownMemberType]
    with contextlib.closing(client):
        assert client.ping()


@pytest.mark.parametrize(
    ("output_format", "sign"),
    [("redis-cli", "--tls"), ("ioredis", "require("), ("go-redis", "redis.NewClient"), ("env", "export REDIS_URL=")],
)
def test_url_prints_other_clients_forms(shared: Cluster, output_format: str, sign: str) -> None:
    printed = shared.run("url", "primary", "--format", output_format).stdout

    assert sign in printed
    assert shared.passwords()["REDIS_ACL_PASS"] in printed
    assert str(shared.path / "tls" / "ca.crt") in printed


def test_url_of_nothing_known_names_what_there_is(shared: Cluster) -> None:
    endpoint, wrong_format = shared.run("url", "secondary"), shared.run("url", "--format", "jdbc")

    assert endpoint.status == 14
    assert "primary, primary-resp3, reader, pubsub" in endpoint.stderr
    assert wrong_format.status == 2
    assert "ioredis" in wrong_format.stderr


def test_cli_runs_redis_cli_logged_in(shared: Cluster) -> None:
    assert shared.run("cli", "--", "PING").stdout.strip() == "PONG"
    assert shared.run("cli", "--endpoint", "primary-resp3", "--", "PING").stdout.strip() == "PONG"
    as_operator = shared.run("cli", "--node", "redis-2", "--", "ACL", "WHOAMI")
    assert as_operator.stdout.strip() == "operator_user"
    assert shared.run("cli", "--node", "redis-9", "--", "PING").status == 14
    assert not [result for result in shared.transcript[-4:] if "Warning" in result.shown]


def test_an_endpoint_that_is_denied_to_read_is_a_problem_unless_it_is_the_monitors(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.declare(endpoints={"watch": {"port": cluster.ports.first + 104, "user_role": "monitor"}})
    cluster.up()
    assert cluster.is_healthy()
    assert cluster.run("test-cluster").status == 0
    for name in NODE_NAMES:
        with cluster.node_client(name) as client:
            client.execute_command("ACL", "SETUSER", "app_user", "-get")

    problems = cluster.problems()
    result = cluster.run("test-cluster", "--json")

    denied = {problem.partition(" ")[0] for problem in problems if "NOPERM" in problem}
    assert denied == {"primary", "primary-resp3"}
    assert len(problems) == len(denied), problems
    assert result.status == 13, str(result)
    checks = {check["name"]: check for check in result.json()["checks"]}
    assert checks["endpoint watch"]["passed"]
    assert not checks["endpoint primary-resp3"]["passed"]
    assert "ACL" in checks["endpoint primary-resp3"]["likely_cause"]


# --- logs ---


def test_logs_prints_the_end_of_one_unit_or_of_all(shared: Cluster) -> None:
    one, every = shared.run("logs", "redis-1", "--lines", "3"), shared.run("logs", "-n", "1")

    assert one.status == every.status == 0
    assert len(one.stdout.splitlines()) == 3
    assert {line.split()[0] for line in every.stdout.splitlines()} >= set(NODE_NAMES)


def test_logs_follow_prints_new_lines(shared: Cluster) -> None:
    with shared.start("logs", "redis-1", "--follow", "--lines", "0") as process:
        assert process.stdout
        with shared.node_client("redis-1") as client:
            old = client.config_get("loglevel")["loglevel"]
            client.config_set("loglevel", "verbose")
            # It writes a line for each accepted connection: the follower may start late and still sees some.
            until(lambda: any_line(process.stdout, client), "a followed line", 20)
            client.config_set("loglevel", old)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130


def any_line(stream: Any, client: Any) -> bool:
    import select

    client.connection_pool.disconnect()
    client.ping()
    return bool(select.select([stream], [], [], 0.1)[0]) and bool(stream.readline().strip())


def test_logs_of_an_unknown_unit_names_the_units(shared: Cluster) -> None:
    result = shared.run("logs", "redis-7")

    assert result.status == 14
    assert "redis-6, envoy-1" in result.stderr


# --- test-cluster ---


def test_test_cluster_passes_and_leaves_no_key_behind(shared: Cluster) -> None:
    before = key_count(shared)

    text, document = shared.run("test-cluster"), shared.run("test-cluster", "--json")

    assert (text.status, document.status) == (0, 0), f"{text}{document}"
    report = document.json()
    checks = {check["name"]: check for check in report["checks"]}
    assert checks.keys() >= CHECKS
    assert all(check["passed"] and not check["skipped"] for check in checks.values())
    assert all(check["seconds"] > 0 for check in checks.values())
    for name in CHECKS:
        assert name in text.stdout
    assert_valid(report, "test-cluster.schema.json")
    until(lambda: key_count(shared) == before, "no key left, at replicas neither", 5)


def test_test_cluster_at_the_address_of_a_known_endpoint(shared: Cluster) -> None:
    result = shared.run("test-cluster", "localhost", str(shared.ports.first + 100), "--json")

    assert result.status == 0, str(result)
    assert not [check["name"] for check in result.json()["checks"] if check["skipped"]]


def test_test_cluster_at_an_unknown_address_takes_the_environments_password(shared: Cluster, tmp_path: Path) -> None:
    port, ca = str(shared.ports.first + 100), str(shared.path / "tls" / "ca.crt")
    elsewhere = {"REDISFORGE_HOME": str(tmp_path / "another"), "REDIS_ACL_USER": "app_user"}
    good = {**elsewhere, "REDIS_ACL_PASS": shared.passwords()["REDIS_ACL_PASS"]}

    passed = shared.run("test-cluster", ADDRESS, port, "--ca-file", ca, "--json", **good)
    wrong = shared.run("test-cluster", ADDRESS, port, "--ca-file", ca, **elsewhere, REDIS_ACL_PASS="wrong-Password-123")
    plain = shared.run("test-cluster", ADDRESS, port, **good)

    assert passed.status == 0, str(passed)
    skipped = {check["name"] for check in passed.json()["checks"] if check["skipped"]}
    assert skipped == {"pub/sub", "reader endpoint"}
    assert wrong.status == 13
    assert "wrong user or password" in wrong.stdout
    assert plain.status == 13, str(plain)
    assert "TLS" in plain.stdout
    assert not (tmp_path / "another").exists()


def test_test_cluster_at_a_wrong_port_names_the_likely_cause(shared: Cluster) -> None:
    result = shared.run("test-cluster", ADDRESS, str(shared.ports.first + 99), "--json")

    assert result.status == 13, str(result)
    ping = result.json()["checks"][0]
    assert not ping["passed"]
    assert "port is another one" in ping["likely_cause"]
    assert shared.run("test-cluster", ADDRESS).status == 2
    assert shared.run("test-cluster", ADDRESS, "1", "--ca-file", "/nowhere/ca.crt").status == 5


def test_test_cluster_with_its_envoy_down_names_the_likely_cause(fresh: Cluster) -> None:
    kill(fresh.keeper_pid("envoy-1"))
    kill(fresh.pid("envoy-1"))

    result = fresh.run("test-cluster")

    assert result.status == 13, str(result)
    assert "FAIL" in result.stdout
    assert "likely cause: the endpoint does not run" in result.stdout
