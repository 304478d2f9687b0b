"""A real cluster for a test: writes its redisforge.yaml, runs the `redisforge` command, looks, breaks and cleans up.

Everything here looks from outside: the command's output, the processes in /proc, the sockets, redis-py. Only the
layout of the cluster's folder (docs/architecture.md) is taken as known. What tests ask over and over (`status`, `url`,
whether `up` would do anything) is asked of the runbook behind the command, which takes longer to start than to answer.
The commands themselves are the matter of test_seeing.py and test_up.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import redis
import yaml

from port_shares import BLOCK_SIZE, BLOCKS
from redisforge.config.load import load
from redisforge.runbooks.cluster import Cluster as OpenCluster
from redisforge.runbooks.cluster import cluster_layout, open_cluster
from redisforge.runbooks.connect import endpoint_connection
from redisforge.runbooks.declare import as_recorded
from redisforge.runbooks.status import status
from redisforge.runbooks.up import Wanted, plan_only
from waiting import until

ADDRESS = "127.0.0.1"
COMMAND = (sys.executable, "-m", "redisforge")
SOURCE = Path(__file__).parents[2] / "src"
COMMAND_LIMIT_S = 90.0
SLOT_COUNT = 16384
AT_ONCE: dict[str, Any] = {"retry": None}
"""For redis-py: the first failure is an answer; its retries would hide it for seconds."""
NODE_NAMES = tuple(f"redis-{number}" for number in range(1, 7))
PASSWORD_NAMES = (
    "REDIS_REQUIREPASS",
    "REDIS_ACL_PASS",
    "REDIS_READONLY_PASS",
    "REDIS_MONITOR_PASS",
    "REDIS_REPLICATION_PASS",
    "REDIS_HANDOFF_PASS",
)

living: list[Cluster] = []
"""Clusters that are not closed yet: a failing test's report shows them (conftest.py)."""


class Result(NamedTuple):
    """How a command ended; `arguments` are those of `redisforge`."""

    status: int
    stdout: str
    stderr: str
    arguments: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """What an onlooker sees who did not ask for a password: all but the answer of `url`."""
        asked_for = self.status == 0 and self.arguments[:1] == ("url",)
        return self.stderr if asked_for else self.stdout + self.stderr

    def json(self) -> Any:
        """Standard output as JSON; anything else there fails the test with what was printed."""
        try:
            return json.loads(self.stdout)
        except ValueError as error:
            raise AssertionError(f"not JSON ({error}):\n{self.stdout}\n{self.stderr}") from error

    def __str__(self) -> str:
        return f"exit status {self.status}\n{self.stdout}\n{self.stderr}"


class Ports:
    """A block of ports that no other test of this kind takes: its last port stays bound while it is used."""

    def __init__(self) -> None:
        for first in random.sample(BLOCKS, len(BLOCKS)):
            guard = socket.socket()
            with contextlib.suppress(OSError):
                guard.bind((ADDRESS, first + BLOCK_SIZE - 1))
                if not any(is_taken(port) for port in range(first, first + BLOCK_SIZE - 1)):
                    self.first, self._guard = first, guard
                    return
            guard.close()
        raise AssertionError("no free block of ports")

    def close(self) -> None:
        """Give the block back."""
        self._guard.close()


def is_taken(port: int, address: str = ADDRESS) -> bool:
    """Whether something listens on the port (or holds it)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError:
            return True
    return False


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without any setting of RedisForge but the shared cache, and with `home`."""
    settings = ("REDIS", "ENVOY_", "REPLICAS_")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(settings) or name == "REDISFORGE_CACHE"
    }
    return {**kept, "PYTHONPATH": str(SOURCE), "REDISFORGE_HOME": str(home), "COLUMNS": "200", **more}


def run_command(
    *arguments: str, folder: Path, variables: Mapping[str, str], answer: str = "", limit_s: float = COMMAND_LIMIT_S
) -> Result:
    """Run `redisforge ARGUMENTS` to its end; `answer` is its standard input."""
    ended = subprocess.run(
        (*COMMAND, *arguments),
        cwd=folder, env=dict(variables), input=answer, text=True, capture_output=True, check=False,
        timeout=limit_s,
    )  # fmt: skip
    return Result(ended.returncode, ended.stdout, ended.stderr, arguments)


def processes_of(home: Path) -> dict[int, str]:
    """Command lines by pid of every process that lives for a cluster below `home`."""
    found: dict[int, str] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                command = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command and (str(home) in command or process.joinpath("cwd").readlink().is_relative_to(home)):
                    found[int(process.name)] = command.strip()
    return found


def is_remote(cluster: OpenCluster) -> bool:
    """Whether it has hosts over SSH. A command leaves their connections to its end, which a test cannot."""
    return any(host.ssh for host in cluster.topology.hosts)


def is_healthy(report: Mapping[str, Any]) -> bool:
    """Whether a report of `status` says ok, all slots served, nothing wrong."""
    whole = report["cluster"]["state"] == "ok" and report["cluster"]["slots_ok"] == SLOT_COUNT
    return whole and not report["problems"]


def nodes_in(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The nodes of a report of `status` by name."""
    return {node["name"]: node for node in report["nodes"]}


def masters_in(nodes: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of the nodes that are masters with slots."""
    return {name: node for name, node in nodes.items() if node["role"] == "master" and node["slot_count"]}


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(*pids: int) -> None:
    """kill -9 of processes by pid, and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(is_alive(pid) for pid in pids), f"the end of processes {pids}")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; mappings inside are merged in the same way."""
    result = dict(base)
    for name, value in changes.items():
        old: Any = result.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[name] = merged(old, value) if both else value  # pyright: ignore[reportUnknownArgumentType]
    return result


class Cluster:
    """One declared cluster in a folder of its own. `options` are merged into a small, fast default."""

    def __init__(self, folder: Path, *, name: str = "main", home: Path | None = None, **options: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.home = home or folder / "home"
        self.name = name
        self.ports = Ports()
        first = self.ports.first
        self.options: dict[str, Any] = {
            "name": name,
            "ports": {"redis": first, "bus_offset": 50},
            "endpoints": {
                door: {"port": first + 100 + number}
                for number, door in enumerate(("primary", "primary-resp3", "reader", "pubsub"))
            },
            "envoy": {"admin_port": first + 110},
            "memory": {"max": "64mb"},
            "node_timeout_ms": 1500,
        }
        self.transcript: list[Result] = []
        """Every command that was run, in order."""
        self.declare(**options)
        living.append(self)

    @property
    def path(self) -> Path:
        """The cluster's own folder below REDISFORGE_HOME."""
        return self.home / "clusters" / self.name

    def declare(self, **options: Any) -> None:
        """Change the declaration and write redisforge.yaml."""
        self.options = merged(self.options, options)
        (self.folder / "redisforge.yaml").write_text(yaml.safe_dump(self.options, sort_keys=False))

    def second_operator(self, folder: Path) -> Cluster:
        """The same declaration in another folder, with another REDISFORGE_HOME and nothing in it but host keys."""
        other = Cluster(folder)
        other.home.mkdir(parents=True)
        (other.home / "known_hosts").write_bytes((self.home / "known_hosts").read_bytes())
        other.options = dict(self.options)
        other.declare()
        return other

    # --- the command ---

    def run(self, *arguments: str, answer: str = "", **variables: str) -> Result:
        """Run the command in the folder of redisforge.yaml."""
        result = run_command(
            *arguments,
            folder=self.folder,
            variables=environment(self.home, **variables),
            answer=answer,
        )
        self.transcript.append(result)
        return result

    def start(self, *arguments: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start the command, with the words `before` it, and do not wait for it."""
        return subprocess.Popen(
            (*before, *COMMAND, *arguments), cwd=self.folder, env=environment(self.home), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def up(self, *arguments: str) -> list[str]:
        """Run `up`, which must succeed with its smoke test; returns the titles of the phases that it did."""
        result = self.run("up", "--json", *arguments)
        assert result.status == 0, str(result)
        report = result.json()
        assert report["smoke"]["passed"]
        return [title for title, _ in report["phases"]]

    def status(self) -> dict[str, Any]:
        """What `status --json` prints."""
        cluster = open_cluster(self.home, self.name)
        if is_remote(cluster):
            result = self.run("status", "--json", "--cluster", self.name)
            assert result.status == 0, str(result)
            return result.json()
        return msgspec.json.decode(msgspec.json.encode(status(cluster)))

    def finds_nothing_to_do(self) -> bool:
        """Whether `up` would leave all as it is: its own plan of what is declared and what runs is empty."""
        if is_remote(open_cluster(self.home, self.name)):
            return not self.up()
        variables = environment(self.home)
        loaded = load(None, variables, self.folder)
        topology = as_recorded(loaded.topology, cluster_layout(self.home, self.name), frozenset())
        wanted = Wanted(topology=topology, passwords=loaded.passwords)
        return plan_only(wanted, self.home, variables, lambda _: None).is_empty

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The nodes of `status` by name."""
        return nodes_in(self.status())

    def problems(self) -> list[str]:
        """The problems of `status`, each as one line."""
        return [f"{problem['where']}: {problem['what']}" for problem in self.status()["problems"]]

    def is_healthy(self) -> bool:
        """`status` says ok, all slots served, nothing wrong."""
        return is_healthy(self.status())

    def masters(self) -> dict[str, dict[str, Any]]:
        """The masters with slots, by name."""
        return masters_in(self.nodes())

    def pair(self) -> tuple[str, str]:
        """(a master with slots, its replica) by name."""
        nodes = self.nodes()
        master = next(name for name, node in nodes.items() if node["role"] == "master" and node["slot_count"])
        shard = nodes[master]["shard"]
        return master, next(name for name, node in nodes.items() if node["shard"] == shard and name != master)

    def pair_of(self, name: str) -> str:
        """The node that shares a shard with `name`."""
        nodes = self.nodes()
        return next(other for other, node in nodes.items() if node["shard"] == nodes[name]["shard"] and other != name)

    def record(self) -> str:
        """The recorded topology."""
        return (self.path / "topology.json").read_text()

    def declaration(self) -> str:
        """redisforge.yaml as it is now."""
        return (self.folder / "redisforge.yaml").read_text()

    # --- the processes ---

    def unit_names(self) -> list[str]:
        """Every Unit that has a folder."""
        units = self.path / "units"
        return sorted(path.name for path in units.iterdir()) if units.is_dir() else []

    def state(self, unit: str) -> dict[str, Any]:
        """What the Unit's keeper last wrote."""
        return json.loads((self.path / "units" / unit / "state.json").read_text())

    def pid(self, unit: str) -> int:
        """The pid of the Unit's process."""
        return int(self.state(unit)["pid"])

    def keeper_pid(self, unit: str) -> int:
        """The pid of the Unit's keeper."""
        return int((self.path / "units" / unit / "keeper.lock").read_text())

    def pids(self) -> dict[str, tuple[int, int]]:
        """(process, keeper) of every Unit."""
        return {name: (self.pid(name), self.keeper_pid(name)) for name in self.unit_names()}

    def processes(self) -> dict[int, str]:
        """Everything that runs for this cluster."""
        return processes_of(self.path)

    def kill_everything(self) -> None:
        """kill -9 of all keepers and processes, keepers first so that none restarts anything.

        An `up` that was killed may have left a child that is about to start keepers: so until nothing is left.
        """

        def is_silent() -> bool:
            found = self.processes()
            kill(*(pid for pid, command in found.items() if "keeper.py" in command))
            kill(*found)
            return not found

        until(lambda: is_silent() and is_silent(), "the end of everything")

    def await_restart(self, unit: str, old_pid: int) -> None:
        """Wait until the Unit's keeper has started it again."""
        until(lambda: self.state(unit)["state"] == "running" and self.pid(unit) not in (0, old_pid), f"{unit} again up")

    def await_health(self, deadline_s: float = 30.0) -> None:
        """Wait until nothing is wrong."""
        seen: list[dict[str, Any]] = []

        def is_without_problems() -> bool:
            seen[:] = [self.status()]
            return not seen[0]["problems"]

        until(is_without_problems, f"{self.name} healthy", deadline_s)
        assert is_healthy(seen[0])

    # --- the data ---

    def url(self, endpoint: str = "primary", *, envoy: str | None = None) -> str:
        """What `redisforge url ENDPOINT` prints."""
        return endpoint_connection(open_cluster(self.home, self.name), endpoint, "url", envoy).reveal()

    @contextlib.contextmanager
    def client(self, endpoint: str = "primary", *, envoy: str | None = None, **options: Any) -> Generator[Any]:
        """redis-py on the endpoint's URL."""
        with contextlib.closing(redis.Redis.from_url(self.url(endpoint, envoy=envoy), **options)) as client:  # pyright: ignore[reportUnknownMemberType]
            yield client

    @contextlib.contextmanager
    def node_client(self, unit: str) -> Generator[Any]:
        """redis-py to a node itself, as the operator."""
        node = self.declared(unit)
        tls = self.path / "tls"
        client = redis.Redis(
            host=node["address"], port=node["port"], username="operator_user",
            password=self.passwords()["REDIS_REQUIREPASS"], ssl=True, ssl_ca_certs=str(tls / "ca.crt"),
            ssl_certfile=str(tls / "operator.crt"), ssl_keyfile=str(tls / "operator.key"), decode_responses=True,
            **AT_ONCE,
        )  # fmt: skip
        with contextlib.closing(client):
            yield client

    def declared(self, unit: str) -> dict[str, Any]:
        """A node as the record of the last `up` has it."""
        topology = json.loads((self.path / "topology.json").read_text())
        return next(node for node in topology["nodes"] if node["name"] == unit)

    def write_keys(self, count: int = 300, prefix: str = "key") -> dict[str, str]:
        """Write keys over all slots through the primary endpoint; returns what was acknowledged, which is all.

        Values differ from call to call, so that nothing older passes for what was written now.
        """
        mark = secrets.token_hex(4)
        pairs = {f"{prefix}:{number}": f"value-{mark}-{number}" for number in range(count)}
        with self.client() as client:
            pipeline: Any = client.pipeline(transaction=False)
            for key, value in pairs.items():
                pipeline.set(key, value)
            assert all(pipeline.execute())
        return pairs

    def read_keys(self, keys: Mapping[str, str]) -> dict[str, str | None]:
        """What the primary endpoint answers for `keys`."""
        with self.client(decode_responses=True) as client:
            pipeline: Any = client.pipeline(transaction=False)
            for key in keys:
                pipeline.get(key)
            return dict(zip(keys, pipeline.execute(), strict=True))

    def await_copies(self) -> None:
        """Wait until every replica has everything that its master has (WAIT is not for proxies)."""
        for name in self.masters():
            with self.node_client(name) as client:
                assert client.wait(1, 5000) >= 1

    def passwords(self) -> dict[str, str]:
        """The passwords of secrets.env by their names there."""
        lines = (self.path / "secrets.env").read_text().splitlines()
        pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        return {name: value.strip("'") for name, value in pairs if name in PASSWORD_NAMES}

    # --- the end ---

    def story(self) -> str:
        """What a failing test shows: the state, the journal's and the logs' ends."""
        if not self.path.exists():
            return f"{self.name}: there is no folder"
        parts = [self.run("status", "--cluster", self.name)] if (self.path / "topology.json").exists() else []
        texts = [str(part) for part in parts]
        for file in (self.path / "journal.jsonl", *sorted(self.path.glob("units/*/log"))):
            with contextlib.suppress(OSError):
                lines = file.read_text(errors="replace").splitlines()[-6:]
                texts.append("\n".join((f"--- {file.relative_to(self.path)}", *lines)))
        return "\n".join(texts)

    def close(self) -> None:
        """Take the cluster down and delete it; whatever still runs then is killed, and is a failure."""
        result = None
        if (self.path / "topology.json").exists():
            result = self.run("down", "--purge", "--yes", "--cluster", self.name)
        left = self.processes()
        kill(*left)
        self.ports.close()
        living.remove(self)
        assert result is None or result.status == 0, str(result)
        assert not left, f"left running: {left}"


@contextlib.contextmanager
def raised(folder: Path, **options: Any) -> Generator[Cluster]:
    """A cluster that is up, for as long as the block lasts."""
    made = Cluster(folder, **options)
    try:
        made.up()
        yield made
    finally:
        made.close()
