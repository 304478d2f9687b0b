"""`redisforge adopt`, and the verbs on what was adopted: clusters of plain redis-servers that redis-cli has joined."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import supervisor
import yaml
from cluster_tool import ADDRESS, SLOT_COUNT, environment, kill, run_command
from foreign_cluster import READ_ONLY, ForeignCluster
from foreign_nodes import PASSWORD, Nodes

from redisforge.fleet.binaries import EngineBinary, cache_folder, ensure_engine
from redisforge.model.topology import Engine
from waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> EngineBinary:
    return ensure_engine(Engine(), cache_folder(os.environ), print, os.environ)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, engine: EngineBinary) -> Iterator[ForeignCluster]:
    """Without TLS and without a password."""
    cluster = ForeignCluster(tmp_path_factory.mktemp("plain"), engine, password="")
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, engine: EngineBinary) -> Iterator[ForeignCluster]:
    """With TLS, certificates of clients demanded, and a password."""
    folder = tmp_path_factory.mktemp("guarded")
    tls = folder / "tls"
    made = run_command("generate-certs", str(tls), "--san", ADDRESS, folder=folder, variables=environment(folder / "h"))
    assert made.status == 0, str(made)
    cluster = ForeignCluster(folder, engine, tls=tls, auth_clients="yes")
    yield cluster
    cluster.close()


def guarded_options(cluster: ForeignCluster) -> tuple[str, ...]:
    tls, password = cluster.nodes.tls, cluster.folder / "password"
    assert tls
    password.write_text(f"{PASSWORD}\n")
    files = ("--ca", str(tls / "ca.crt"), "--cert", str(tls / "client.crt"), "--key", str(tls / "client.key"))
    return (*files, "--password-file", str(password))


def adopted(cluster: ForeignCluster) -> dict[str, Any]:
    return yaml.safe_load((cluster.folder / "redisforge.yaml").read_text())


def ensure_adopted(cluster: ForeignCluster) -> None:
    """Adopt it afresh, whatever earlier tests have left."""
    options = guarded_options(cluster) if cluster.nodes.tls else ()
    cluster.done("adopt", cluster.name(cluster.members[0]), *options, "--force")


@pytest.mark.parametrize("kind", ["plain", "guarded"])
def test_it_describes_the_cluster_and_changes_nothing_there(kind: str, request: pytest.FixtureRequest) -> None:
    cluster: ForeignCluster = request.getfixturevalue(kind)
    options = guarded_options(cluster) if kind == "guarded" else ()
    before = cluster.configuration()
    cluster.forget_commands()
    planned = cluster.done("adopt", cluster.name(cluster.members[3]), *options, "--dry-run")
    assert not (cluster.folder / "redisforge.yaml").exists()
    assert not cluster.home.exists()

    written = cluster.done("adopt", cluster.name(cluster.members[3]), *options)
    seen = cluster.commands()

    assert seen <= READ_ONLY
    assert {"config|get", "cluster|nodes"} <= seen  # the counting works
    assert cluster.configuration() == before
    text = (cluster.folder / "redisforge.yaml").read_text()
    assert text == planned.stdout
    assert PASSWORD not in text
    declared = adopted(cluster)
    assert (declared["shards"], declared["replicas"]) == (3, 1)
    assert declared["node_timeout_ms"] == 2000
    assert declared["external"]["tls"] is (kind == "guarded")
    nodes = {node["port"]: node for node in declared["external"]["nodes"]}
    assert set(nodes) == set(cluster.members)
    roles = cluster.nodes.roles()
    assert {port: node["role"] for port, node in nodes.items()} == {
        port: {"master": "master", "slave": "replica"}[roles[port]] for port in cluster.members
    }
    assert all(node["bus_port"] == port + 50 for port, node in nodes.items())
    assert sorted(node["shard"] for node in nodes.values()) == [1, 1, 2, 2, 3, 3]
    assert "repl-diskless-sync-delay 0   (default: 5)" in text
    assert ("in plain text" in written.stderr) is (kind == "plain")
    assert cluster.done("config", "check").status == 0
    secrets = cluster.home / "clusters" / "adopted" / "secrets.env"
    assert secrets.exists() is (kind == "guarded")
    if kind == "guarded":
        assert secrets.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["plain", "guarded"])
def test_the_verbs_work_on_it(kind: str, request: pytest.FixtureRequest) -> None:
    cluster: ForeignCluster = request.getfixturevalue(kind)
    ensure_adopted(cluster)
    with cluster.nodes.client(cluster.members[0]) as client:
        first = client.cluster("myid")
    keys = write_keys(cluster, 400)

    report = cluster.status()
    assert (report["cluster"]["state"], report["cluster"]["slots_ok"]) == ("ok", SLOT_COUNT), report
    assert not report["problems"]
    cluster.done("up")  # soon after it was formed not all nodes name all replicas to proxies
    assert "already as declared" in cluster.done("up").stdout

    master = next(node for node in report["nodes"] if node["role"] == "master")
    replica = next(n for n in report["nodes"] if n["role"] == "replica" and n["shard"] == master["shard"])
    cluster.done("failover", master["name"])
    after = {node["name"]: node["role"] for node in cluster.status()["nodes"]}
    assert (after[master["name"]], after[replica["name"]]) == ("replica", "master")

    spare = cluster.name(cluster.spare)
    planned = cluster.done("scale", "add", spare, "--role", "master", "--dry-run")
    assert "move 4096 slots" in planned.stdout
    cluster.done("scale", "add", spare, "--role", "master")
    assert sorted(cluster.owned().values()) == [4096] * 4
    declared = adopted(cluster)
    assert declared["shards"] == 4
    assert cluster.spare in {node["port"] for node in declared["external"]["nodes"]}
    assert read_keys(cluster, keys) == keys

    cluster.done("rebalance", "--weight", f"{spare}=0.5")
    assert cluster.owned()[cluster.spare] < 2400
    cluster.done("rebalance")
    assert cluster.owned()[cluster.spare] == 4096

    cluster.done("scale", "remove", spare, "--yes")
    assert cluster.spare not in cluster.owned()
    declared = adopted(cluster)
    assert declared["shards"] == 3
    assert cluster.spare not in {node["port"] for node in declared["external"]["nodes"]}
    assert read_keys(cluster, keys) == keys
    assert cluster.nodes.ask(cluster.spare, "CLUSTER INFO")["cluster_known_nodes"] == "1"
    assert cluster.nodes.ask(cluster.spare, "PING")  # its process is its owner's

    cluster.done("scale", "add", spare, "--role", "replica")
    until(lambda: cluster.nodes.roles()[cluster.spare] == "slave", "the spare node replicates")
    cluster.done("scale", "remove", spare, "--yes")
    assert not cluster.status()["problems"]
    assert "already as declared" in cluster.done("up").stdout
    assert cluster.nodes.ask(cluster.members[0], "CLUSTER MYID") == first


def write_keys(cluster: ForeignCluster, count: int) -> dict[str, str]:
    """Write keys through redis-cli -c, which follows redirections."""
    keys = {f"key:{number}": f"value-{number}" for number in range(count)}
    replies = cluster.cli("".join(f"SET {key} {value}\n" for key, value in keys.items()))
    assert replies == ["OK"] * count
    return keys


def read_keys(cluster: ForeignCluster, keys: dict[str, str]) -> dict[str, str]:
    replies = cluster.cli("".join(f"GET {key}\n" for key in keys))
    return dict(zip(keys, replies, strict=True))


def test_what_needs_the_processes_says_so(plain: ForeignCluster) -> None:
    ensure_adopted(plain)
    for arguments, words in (
        (("restart",), "redisforge failover"),
        (("upgrade", "--redis", "8.6"), "by what runs them, replicas first"),
        (("scale", "--shards", "4", "--yes"), "redisforge scale add HOST:PORT --role master"),
        (("test-cluster",), "test-cluster HOST PORT"),
        (("logs",), "see the logs of what runs the nodes"),
        (("logs", plain.name(plain.members[0])), "see the logs of what runs the nodes"),
    ):
        result = plain.run(*arguments)
        assert result.status == 2, f"{arguments}: {result}"
        assert words in result.stderr
    assert not plain.status()["problems"]


def test_what_cannot_be_done_is_told_with_what_there_is(plain: ForeignCluster) -> None:
    ensure_adopted(plain)
    first = plain.name(plain.members[0])
    replica = next(plain.name(port) for port, role in plain.nodes.roles().items() if role == "slave")
    for arguments, status, words, not_there in (
        (("url",), 14, "no endpoints of RedisForge's", "the endpoints are"),
        (("url", "reader"), 14, "`redisforge cli --node 127.", "the endpoints are"),
        (("scale", "add", f"{ADDRESS}:1"), 12, "listen there with cluster-enabled yes", "TLS"),
        (("scale", "remove", replica, "--yes"), 9, "scale add HOST:PORT --replica-of 127.", "--replicas N"),
    ):
        result = plain.run(*arguments)
        assert result.status == status, f"{arguments}: {result}"
        assert words in result.stderr, f"{arguments}: {result}"
        assert not_there not in result.stderr, f"{arguments}: {result}"
    assert plain.done("cli", "--node", first, "PING").stdout.strip() == "PONG"


def test_a_node_is_tested_as_a_node(plain: ForeignCluster) -> None:
    with plain.nodes.client(plain.members[0]) as client:
        before = client.dbsize()
        report = plain.done("test-cluster", ADDRESS, str(plain.members[0]), "--json").json()
        assert client.dbsize() == before
    checks = {check["name"]: check for check in report["checks"]}
    for name in ("SET/GET", "MSET over many slots", "pipeline", "transaction on one hash tag"):
        assert checks[name]["skipped"]
        assert "a node, not a proxy" in checks[name]["detail"]
    assert checks["CLUSTER INFO"]["detail"] == "16384 slots ok"
    assert checks["clean-up"]["detail"] == "nothing was written"


def test_declared_settings_are_set_and_saved_and_nothing_else(plain: ForeignCluster) -> None:
    ensure_adopted(plain)
    text = (plain.folder / "redisforge.yaml").read_text()
    before, files = plain.configuration(), {port: plain.nodes.file(port) for port in plain.members}
    texts = {port: file.read_text() for port, file in files.items()}
    assert plain.done("apply-config", "--json").json()["phases"] == []
    assert plain.configuration() == before  # what `adopt` has written is what there is

    (plain.folder / "redisforge.yaml").write_text(text.replace("tcp_backlog: 511", "tcp_backlog: 128"))
    declare(plain, "redis_conf: {hz: 20, slowlog-max-len: 77}\n")
    planned = plain.done("apply-config", "--dry-run").stdout
    assert planned.count("CONFIG SET hz 20 slowlog-max-len 77") == planned.count("CONFIG REWRITE") == 6
    assert plain.configuration() == before
    assert {port: file.read_text() for port, file in files.items()} == texts

    closed = files[plain.members[0]]
    kept = closed.rename(closed.with_name("kept"))
    closed.mkdir()  # root may write everywhere, but not put a file in a folder's place
    report = plain.done("apply-config", "--json").json()
    closed.rmdir()
    kept.rename(closed)
    assert sorted(title for title, _ in report["phases"]) == sorted(
        f"tell {plain.name(port)} its settings" for port in plain.members
    )
    notices = "\n".join(report["notices"])
    assert "hz: set on every node" in notices
    assert "tcp-backlog: 128 is declared, 511 runs on every node" in notices
    assert "by what runs them, a master after `redisforge failover`" in notices
    assert f"{plain.name(plain.members[0])}: CONFIG REWRITE was refused" in notices
    assert notices.count("CONFIG REWRITE was refused") == 1
    changed = {"hz": "20", "slowlog-max-len": "77"}
    after = plain.configuration()
    for port in plain.nodes.ports:
        was, others = before[port]
        assert after[port] == ({**was, **changed} if port in plain.members else was, others)
    for port, file in files.items():
        assert ("hz 20" in file.read_text()) is (port != plain.members[0])
        assert "cluster-node-timeout 2000" in file.read_text()

    plain.done("up")  # which does not take what is declared for what has been brought
    again = plain.done("apply-config", "--json").json()  # the file can be written now
    assert all(title.startswith("let ") for title, _ in again["phases"])
    assert "hz 20" in closed.read_text()
    assert plain.done("apply-config", "--json").json()["phases"] == []
    assert not plain.status()["problems"]
    assert "already as declared" in plain.done("up").stdout

    declare(plain, "redis_conf: {hz: 10, slowlog-max-len: many}\n")
    refused = plain.run("apply-config")
    assert refused.status == 12, str(refused)
    assert "does not take its settings" in refused.stderr
    assert "slowlog-max-len" in refused.stderr
    assert plain.configuration() == after


def declare(cluster: ForeignCluster, text: str) -> None:
    """Put it into redisforge.yaml, in place of the same option."""
    path = cluster.folder / "redisforge.yaml"
    option = text.partition(":")[0]
    others = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith(f"{option}:")]
    path.write_text("".join([*others, text]))


def test_bad_input_is_named_and_nothing_is_written(
    plain: ForeignCluster, guarded: ForeignCluster, tmp_path: Path, engine: EngineBinary
) -> None:
    tls = guarded.nodes.tls
    assert tls
    seed, guarded_seed = plain.name(plain.members[0]), guarded.name(guarded.members[0])
    ca = ("--ca", str(tls / "ca.crt"))
    client = (*ca, "--cert", str(tls / "client.crt"), "--key", str(tls / "client.key"))
    wrong = tmp_path / "wrong"
    wrong.write_text("not the password\n")
    empty = tmp_path / "empty"
    empty.write_text("")
    lonely = Nodes(tmp_path / "lonely", engine.server_path, count=1, password="")
    single = Nodes(tmp_path / "single", engine.server_path, count=1, password="", cluster=False)
    try:
        for arguments, status, words in (
            ((seed.rpartition(":")[0] + ":1",), 12, "nothing listens there"),
            (("nonsense",), 2, "host:port"),
            ((seed, "--name", "../up"), 2, "cannot be a cluster's name"),
            ((seed, "--password-file", str(wrong)), 4, "does not ask for a password"),
            ((seed, *ca), 12, "speaks plain Redis"),
            ((guarded_seed,), 12, "give its CA with --ca"),
            ((guarded_seed, *ca), 12, "--cert and --key"),
            ((guarded_seed, *client), 4, "asks for a password"),
            ((guarded_seed, *client, "--password-file", str(wrong)), 4, "does not accept the password"),
            ((guarded_seed, *client, "--password-file", str(empty)), 4, "holds no password"),
            ((guarded_seed, *client, "--password-file", str(tmp_path / "none")), 4, "does not exist"),
            ((guarded_seed, "--ca", str(tmp_path / "none")), 2, "cannot be read"),
            ((lonely.names[0],), 9, "slots without an owner: 0-16383"),
            ((single.names[0],), 12, "single server"),
            ((seed, "--out", str(tmp_path / "none" / "z.yaml")), 2, "the folder of the file does not exist"),
        ):
            folder = tmp_path / "out"
            folder.mkdir(exist_ok=True)
            result = run_command("adopt", *arguments, folder=folder, variables=environment(tmp_path / "home"))
            assert result.status == status, f"{arguments}: {result}"
            assert words in result.stderr, f"{arguments}: {result}"
            assert "Traceback" not in result.stderr
            assert not list(folder.iterdir())
            assert not (tmp_path / "home").exists()
            assert not (tmp_path / "none").exists()
    finally:
        lonely.close()
        single.close()


def test_a_file_that_is_there_is_kept(plain: ForeignCluster, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "redisforge.yaml").write_text("name: mine\n")
    variables = environment(tmp_path / "home")
    seed = plain.name(plain.members[0])

    refused = run_command("adopt", seed, folder=folder, variables=variables)
    assert refused.status == 9, str(refused)
    assert (folder / "redisforge.yaml").read_text() == "name: mine\n"
    assert not (tmp_path / "home").exists()
    elsewhere = run_command("adopt", seed, "--out", "other.yaml", folder=folder, variables=variables)
    assert elsewhere.status == 0, str(elsewhere)
    assert (folder / "redisforge.yaml").read_text() == "name: mine\n"
    again = run_command("adopt", seed, "--out", "third.yaml", folder=folder, variables=variables)
    assert again.status == 9, str(again)
    assert "adopted before" in again.stderr
    forced = run_command("adopt", seed, "--force", folder=folder, variables=variables)
    assert forced.status == 0, str(forced)
    assert "external:" in (folder / "redisforge.yaml").read_text()


def test_down_stops_nothing_and_says_so(plain: ForeignCluster) -> None:
    ensure_adopted(plain)
    folder = plain.home / "clusters" / "adopted"
    not_ours = "adopted: RedisForge does not run its nodes, so nothing"
    for arguments, words in (
        (("--dry-run",), (f"{not_ours} is stopped.",)),
        (("--dry-run", "--purge"), (f"{not_ours} is stopped.", f"It is forgotten here: {folder}")),
        ((), (f"{not_ours} was stopped; `redisforge down --purge` forgets it here.",)),
        (("--purge", "--yes"), (f"{not_ours} was stopped; it is forgotten here.", f"deleted {folder}\n")),
    ):
        assert folder.exists()
        done = plain.done("down", *arguments)
        assert all(line in done.stdout + done.stderr for line in words), str(done)
    assert not folder.exists()
    assert all(plain.nodes.ask(port, "PING") for port in plain.members)


def test_one_cluster_has_one_name_here(plain: ForeignCluster, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    variables = environment(tmp_path / "home")
    first, last = plain.name(plain.members[0]), plain.name(plain.members[5])
    assert run_command("adopt", first, folder=folder, variables=variables).status == 0

    for options in ((), ("--force",), ("--dry-run",)):
        words = ("adopt", last, "--name", "other", "--out", "other.yaml", *options)
        refused = run_command(*words, folder=folder, variables=variables)
        assert refused.status == 9, str(refused)
        assert "known here already, as 'adopted'" in refused.stderr
        assert "--name adopted --force" in refused.stderr
    record = tmp_path / "home" / "clusters" / "adopted" / "topology.json"
    topology = json.loads(record.read_text())
    record.write_text(json.dumps(topology | {"access": None}))
    refused = run_command("adopt", last, "--name", "other", "--out", "other.yaml", folder=folder, variables=variables)
    assert (refused.status, "its own file" in refused.stderr) == (9, True), str(refused)
    assert not (folder / "other.yaml").exists()
    assert [path.name for path in (tmp_path / "home" / "clusters").iterdir()] == ["adopted"]
    record.write_text(json.dumps(topology))
    assert run_command("adopt", last, "--force", folder=folder, variables=variables).status == 0

    topology["nodes"] = topology["nodes"][:3]  # ports that have been a smaller cluster's
    record.write_text(json.dumps(topology))
    words = ("adopt", last, "--name", "other", "--out", "other.yaml")
    assert run_command(*words, folder=folder, variables=variables).status == 0


def test_what_is_not_well_is_told_and_described(tmp_path: Path, engine: EngineBinary) -> None:
    """A replica that its master does not let in, and one that is dead."""
    cluster = ForeignCluster(tmp_path, engine)
    try:
        unlinked, dead, _ = (port for port in cluster.members if cluster.nodes.roles()[port] == "slave")
        assert cluster.nodes.ask(unlinked, "CONFIG SET", "masterauth", "not-the-password")
        assert cluster.nodes.ask(unlinked, "CLIENT KILL", "TYPE", "master")
        with cluster.nodes.client(unlinked) as client:
            until(lambda: client.info("replication")["master_link_status"] == "down", "the replica has lost its link")
        pid = cluster.nodes.pid(dead)
        assert pid
        kill(pid)
        until(lambda: "fail" in flags(cluster, dead), "the dead replica is known to be dead")
        done = cluster.done("adopt", cluster.name(cluster.members[0]), password=PASSWORD)
        assert f"note: {cluster.name(unlinked)} has no link to its master" in done.stderr
        assert f"note: {cluster.name(dead)} does not answer" in done.stderr
        assert {node["port"] for node in adopted(cluster)["external"]["nodes"]} == set(cluster.members)
    finally:
        cluster.close()


def flags(cluster: ForeignCluster, port: int) -> list[str]:
    """What the first member says of a node."""
    return cluster.nodes.ask(cluster.members[0], "CLUSTER NODES")[cluster.name(port)]["flags"].split(",")


def test_a_half_formed_cluster_is_refused(tmp_path: Path, engine: EngineBinary) -> None:
    nodes = Nodes(tmp_path / "nodes", engine.server_path, count=3, password="")
    try:
        ports = nodes.ports
        for port, slots in zip(ports, ((0, 5460), (5461, 10922), (10923, 16000)), strict=True):
            assert nodes.ask(port, "CLUSTER ADDSLOTSRANGE", *map(str, slots))
        for port in ports[1:]:
            assert nodes.ask(ports[0], "CLUSTER MEET", ADDRESS, str(port), str(port + 50))
        until(lambda: all(len(nodes.ask(port, "CLUSTER NODES")) == 3 for port in ports), "they know each other")
        result = run_command("adopt", nodes.names[0], folder=tmp_path, variables=environment(tmp_path / "home"))
        assert result.status == 9, str(result)
        assert "slots without an owner: 16001-16383" in result.stderr
        assert not (tmp_path / "redisforge.yaml").exists()
    finally:
        nodes.close()


def test_nodes_are_restarted_and_upgraded_by_what_runs_them(tmp_path: Path, engine: EngineBinary) -> None:
    old = ensure_engine(Engine(version="8.0"), cache_folder(os.environ), print, os.environ)
    cluster = ForeignCluster(tmp_path, old)
    servers = tmp_path / "servers"
    try:
        for port in cluster.nodes.ports:
            (servers / str(port) / "pid").write_text(str(cluster.nodes.pid(port)))
        path = supervisor.install(tmp_path / "bin", servers, old.server_path)
        cluster.done("adopt", cluster.name(cluster.members[0]), password=PASSWORD)
        text = (tmp_path / "redisforge.yaml").read_text()
        for port in cluster.members:
            text = text.replace(f"port: {port},", f"port: {port}, service: systemd:{port},")
        (tmp_path / "redisforge.yaml").write_text(text)
        cluster.done("failover", cluster.name(cluster.members[0]), **path)  # it does not put the old list back
        cluster.done("up", **path)
        keys = write_keys(cluster, 200)

        restarts(cluster, servers, path)
        assert read_keys(cluster, keys) == keys
        declare(cluster, "tcp_backlog: 128\n")
        said = cluster.done("apply-config", **path).stdout
        assert "tcp-backlog: 128 is declared, 511 runs on every node" in said
        assert "then `redisforge restart`" in said
        for port in cluster.members:
            with cluster.nodes.file(port).open("a") as file:
                file.write("tcp-backlog 128\n")

        upgrades(cluster, servers, path, engine)
        assert read_keys(cluster, keys) == keys
        assert "tcp-backlog" not in cluster.done("apply-config", **path).stdout
        assert not cluster.done("status", "--json", **path).json()["problems"]
        assert cluster.done("down", "--purge", "--yes", **path).status == 0
        assert all(cluster.nodes.ask(port, "PING") for port in cluster.members)  # they are not ours to stop
    finally:
        for pid in servers.glob("*/pid"):
            kill(*(int(word) for word in pid.read_text().split() if word != "0"))
        cluster.close()


def restarts(cluster: ForeignCluster, servers: Path, path: dict[str, str]) -> None:
    """Every node once, replicas first, by its supervisor alone."""
    before = run_ids(cluster)
    planned = cluster.done("restart", "--dry-run", **path)
    assert all(f"restart {cluster.name(port)}" in planned.stdout for port in cluster.members)
    done = cluster.done("restart", "--json", **path).json()

    titles = [title for title, _ in done["phases"]]
    assert sorted(t for t in titles if t.startswith("restart")) == sorted(
        f"restart {cluster.name(port)}" for port in cluster.members
    )
    assert len([title for title in titles if title.startswith("hand over")]) == 3
    assert not set(before.values()) & set(run_ids(cluster).values())
    assert stops(servers) == [title.rpartition(":")[2] for title in titles if title.startswith("restart")]


def upgrades(cluster: ForeignCluster, servers: Path, path: dict[str, str], engine: EngineBinary) -> None:
    """In vain before the program is there, then all nodes; who runs the version is passed over."""
    series = ".".join(engine.version.split(".")[:2])
    upgrade = ("upgrade", "--redis", series, "--yes")
    before, stopped = run_ids(cluster), stops(servers)
    vain = cluster.run(*upgrade, **path)
    assert vain.status == 10, str(vain)
    restarted = [port for port, run_id in run_ids(cluster).items() if run_id != before[port]]
    assert [str(port) for port in restarted] == stops(servers)[len(stopped) :]
    assert len(restarted) == 1
    assert f"{cluster.name(restarted[0])} was restarted and still runs redis 8.0" in vain.stderr
    assert f"install redis {series} where systemd:{restarted[0]} finds it" in vain.stderr
    assert not cluster.done("status", "--json", **path).json()["problems"]
    assert adopted(cluster)["engine"]["version"] == "8.0"

    supervisor.install_server(servers, engine.server_path)
    cluster.done("restart", cluster.name(restarted[0]), **path)  # the owner has done this one
    planned = cluster.done("upgrade", "--redis", series, "--dry-run", **path)
    done = cluster.done(*upgrade, "--json", **path).json()
    titles = [title for title, _ in done["phases"] if title.startswith(("upgrade", "hand over"))]
    assert [title.split()[0] for title in titles] == ["upgrade"] * 2 + ["hand", "upgrade"] * 3
    assert planned.stdout.count("restart 127.") == 5
    assert not any(cluster.name(restarted[0]) in title for title in titles if title.startswith("upgrade"))
    versions = {cluster.nodes.ask(port, "INFO", "server")["redis_version"] for port in cluster.members}
    assert versions == {engine.version}
    assert adopted(cluster)["engine"]["version"] == series
    assert cluster.done(*upgrade, "--json", **path).json()["phases"] == []


def run_ids(cluster: ForeignCluster) -> dict[int, str]:
    """Another one is another process."""
    return {port: cluster.nodes.ask(port, "INFO", "server")["run_id"] for port in cluster.members}


def stops(servers: Path) -> list[str]:
    """Which units the supervisor was told to stop, in this order."""
    asked = (servers / "asked").read_text().splitlines()
    return [line.removeprefix("stop ") for line in asked if line.startswith("stop")]
