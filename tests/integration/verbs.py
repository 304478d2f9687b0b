"""What the tests of the verbs share: a verb under load, a verb that is cut off, and what must hold before and after."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import jsonschema
import redis
import yaml
from cluster_tool import ADDRESS, SLOT_COUNT, Cluster, is_alive, is_healthy, masters_in, nodes_in
from load import Load

from waiting import until

SCHEMAS = Path(__file__).parents[2] / "docs" / "reference"
COMMENT = "# Declared by hand: this line stays."
LINE_COMMENT = "# as many as there are zones"
KILL_LIMIT_S = 90.0
LOOK_PAUSE_S = 0.002
"""Between two looks at a verb that is to be cut: shorter than its steps, and the machine is left to it."""


def schema_valid(document: Any, schema_name: str) -> Any:
    """The document, if it is what its schema says. Raises jsonschema.ValidationError."""
    jsonschema.validate(document, json.loads((SCHEMAS / schema_name).read_text()))
    return document


def raise_commented(cluster: Cluster) -> None:
    """`up` of a file with comments, which the verbs that change the file must leave in it."""
    cluster.declare(shards=3, replicas=1)
    file = cluster.folder / "redisforge.yaml"
    file.write_text(f"{COMMENT}\n" + file.read_text().replace("shards: 3\n", f"shards: 3  {LINE_COMMENT}\n"))
    cluster.up()


def done(cluster: Cluster, *arguments: str) -> dict[str, Any]:
    """Run a verb to its good end; its report, which fits its schema."""
    result = cluster.run(*arguments, "--json")
    assert result.status == 0, str(result)
    return schema_valid(result.json(), "change.schema.json")


def planned(cluster: Cluster, *arguments: str) -> list[dict[str, Any]]:
    """The phases that a verb would carry out: `--dry-run` changes nothing, and both of its forms say the same.

    But for waiting until a node may be elected again: that may be over when the second one looks.
    """
    before = picture(cluster)
    result = cluster.run(*arguments, "--dry-run", "--json")
    shown = cluster.run(*arguments, "--dry-run")
    assert (result.status, shown.status) == (0, 0), f"{result}{shown}"
    phases = [p for p in schema_valid(result.json(), "plan.schema.json")["phases"] if p["gate"]["name"] != "electable"]
    assert [phase["title"] for phase in phases if phase["title"] not in shown.stdout] == []
    assert picture(cluster) == before
    return phases


def picture(cluster: Cluster) -> dict[str, Any]:
    """All that a verb could have changed: who is what with which slots, every process, and what is declared."""
    nodes = cluster.nodes()
    return {
        "nodes": {name: (node["id"], node["role"], node["slots"], node["shard"]) for name, node in nodes.items()},
        "pids": cluster.pids(),
        "topology": (cluster.path / "topology.json").read_bytes(),
        "declared": (cluster.folder / "redisforge.yaml").read_bytes(),
    }


@contextlib.contextmanager
def loaded(cluster: Cluster) -> Generator[Load]:
    """Writers and readers on the primary endpoint, readers on the reader endpoint: none may see an error, and what was
    acknowledged is there at the end."""
    primary, reader = cluster.url("primary"), cluster.url("reader")
    with Load(primary, reader_url=reader, keys_per_writer=200, keep_keys=False) as load:
        yield load
    load.stop().check()


def by_host(cluster: Cluster) -> Counter[str]:
    """How many nodes stand on each host."""
    return Counter(node["host"] for node in cluster.nodes().values())


# --- what must hold afterwards ---


def assert_declared(cluster: Cluster, shards: int, replicas: int = 1) -> None:
    """redisforge.yaml and the record declare what runs, and the comments of the file are there."""
    text = (cluster.folder / "redisforge.yaml").read_text()
    declared: dict[str, Any] = yaml.safe_load(text)
    assert (declared["shards"], declared["replicas"]) == (shards, replicas), text
    assert text.startswith(COMMENT)
    assert LINE_COMMENT in text
    recorded = json.loads((cluster.path / "topology.json").read_text())
    assert (recorded["shards"], recorded["replicas"]) == (shards, replicas)


def assert_whole(cluster: Cluster, shards: int, replicas: int = 1) -> dict[str, dict[str, Any]]:
    """The cluster is healthy, as declared, and `up` has nothing to do; returns its masters."""
    report = cluster.status()
    masters = masters_in(nodes_in(report))
    assert len(masters) == shards
    assert sum(node["slot_count"] for node in masters.values()) == SLOT_COUNT
    assert_declared(cluster, shards, replicas)
    assert report["problems"] == []
    assert is_healthy(report)
    assert cluster.finds_nothing_to_do()
    return masters


def even(masters: dict[str, dict[str, Any]]) -> bool:
    """Whether all have as many slots, but for what cannot be divided."""
    counts = [node["slot_count"] for node in masters.values()]
    return max(counts) - min(counts) <= 1


def ids_of(cluster: Cluster) -> dict[str, str]:
    """Node ids by name."""
    return {name: node["id"] for name, node in cluster.nodes().items()}


def peers_of(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """CLUSTER NODES of every node, by name: entries by id."""
    seen: dict[str, dict[str, Any]] = {}
    for node in json.loads(cluster.record())["nodes"]:
        name = node["name"]
        with cluster.node_client(name) as client:
            seen[name] = {entry["node_id"]: entry for entry in client.execute_command("CLUSTER NODES").values()}
    return seen


def assert_forgotten(cluster: Cluster, ids: Iterable[str]) -> None:
    """No node lists the ids, and gossip does not bring them back: every node has heard every other one more than two
    node timeouts after this began."""
    gone = set(ids)
    assert gone
    since_ms = time.time() * 1000 + 2 * cluster.options["node_timeout_ms"]

    def all_have_gossiped() -> bool:
        views = peers_of(cluster)
        back = {name: gone & view.keys() for name, view in views.items() if gone & view.keys()}
        assert not back, f"came back: {back}"
        others = [entry for view in views.values() for entry in view.values() if "myself" not in entry["flags"]]
        return all(int(entry["last_pong_rcvd"]) > since_ms for entry in others)

    until(all_have_gossiped, "everybody has heard everybody for two node timeouts")


def assert_removed(cluster: Cluster, *units: str) -> None:
    """No folder and no process is left of the Units."""
    assert not set(units) & set(cluster.unit_names())
    folders = [str(cluster.path / "units" / unit) + "/" for unit in units]
    left = {pid: line for pid, line in cluster.processes().items() if any(folder in line for folder in folders)}
    assert not left


def strays(cluster: Cluster) -> dict[str, tuple[str, ...]]:
    """What `status` says runs where the cluster does not have it, with the command that it names, by Unit."""
    told = [
        problem for problem in cluster.status()["problems"] if "the cluster does not have it there" in problem["what"]
    ]
    return {problem["where"]: tuple(shlex.split(problem["next_step"].split("`")[1])) for problem in told}


def open_slots(cluster: Cluster) -> list[str]:
    """Slots that are on their way, as the nodes list them."""
    found: list[str] = []
    for name in cluster.masters():
        with cluster.node_client(name) as client:
            table = client.execute_command("CLUSTER NODES")
        found += [f"{name}: {entry['migrations']}" for entry in table.values() if entry.get("migrations")]
    return found


def reads_from(cluster: Cluster, port: int) -> bool:
    """Whether the Envoy would send reads to the node at this port: it lists it, and has not found it unhealthy."""
    admin = f"http://{ADDRESS}:{cluster.options['envoy']['admin_port']}/clusters?format=json"
    with urllib.request.urlopen(admin, timeout=5) as answer:
        hosts = [host for group in json.load(answer)["cluster_statuses"] for host in group.get("host_statuses", ())]
    here = [host for host in hosts if host["address"].get("socket_address", {}).get("port_value") == port]
    return any(not host.get("health_status", {}).get("failed_active_health_check") for host in here)


def owned(cluster: Cluster, name: str) -> int:
    """How many slots a node says it owns; 0 while it is not there."""
    topology = json.loads((cluster.path / "topology.json").read_text())
    if name not in {node["name"] for node in topology["nodes"]}:
        return 0
    try:
        with cluster.node_client(name) as client:
            table = client.execute_command("CLUSTER NODES")
    except (redis.RedisError, OSError):
        return 0
    myself = next(entry for entry in table.values() if "myself" in entry["flags"])
    return sum(int(slots[-1]) - int(slots[0]) + 1 for slots in myself["slots"])


# --- cut off ---


def journal_of(cluster: Cluster, pid: int) -> list[str]:
    """The whole lines of the journal that the process with this id wrote."""
    with contextlib.suppress(OSError):
        lines = (cluster.path / "journal.jsonl").read_text().splitlines(keepends=True)
        return [line for line in lines if f'"pid":{pid},' in line and line.endswith("\n")]
    return []


def cut(cluster: Cluster, *arguments: str, when: Callable[[int], object], by: int = signal.SIGKILL) -> tuple[int, str]:
    """Start a verb and send its process a signal as soon as `when` (given its pid) holds; how it ended, and what it
    said. It is killed before its end, or this fails: a verb that was through before was not cut."""
    with cluster.start(*arguments) as process:
        deadline = time.monotonic() + KILL_LIMIT_S
        while process.poll() is None and not when(process.pid):
            assert time.monotonic() < deadline, journal_of(cluster, process.pid)
            time.sleep(LOOK_PAUSE_S)
        if process.poll() is None:
            process.send_signal(by)
        try:
            _, errors = process.communicate(timeout=KILL_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return process.returncode, errors


def killed(cluster: Cluster, *arguments: str, when: Callable[[int], object]) -> None:
    """A verb is killed (-9) as soon as `when` holds."""
    status, errors = cut(cluster, *arguments, when=when)
    assert status == -signal.SIGKILL, f"it ended before it could be killed: {status}\n{errors}"


def after_lines(cluster: Cluster, count: int) -> Callable[[int], bool]:
    """A condition for `cut`: the verb has written so many lines into the journal."""
    return lambda pid: len(journal_of(cluster, pid)) >= count


def stopped(cluster: Cluster, unit: str) -> Callable[[int], bool]:
    """A condition for `cut`: the Unit's keeper has ended, and nobody has started it again yet."""
    keeper = cluster.keeper_pid(unit)
    return lambda _: not is_alive(keeper)
