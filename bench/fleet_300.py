"""A fleet of 300 hosts in memory: what `up` would do first, and what `status` says, as one process of its own.

The hosts' Docker answers as its scripts would (fleet/docker_scripts.py), the nodes answer CLUSTER NODES and INFO as
text; everything that is read and decided is the real code. Prints JSON: seconds and the peak of memory.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from redisforge.config.load import load
from redisforge.fleet.docker import DockerHost, DockerRuntime
from redisforge.fleet.fake import FakeTransport
from redisforge.fleet.hosts import HostsRuntime, Site
from redisforge.fleet.transport import CommandResult
from redisforge.model.facts import EndpointFacts, EnvoyFacts, Facts, NodeFacts, UnitFacts
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import RedisNode, Topology
from redisforge.plan.bring_up import next_phase
from redisforge.plan.placement import split_slots
from redisforge.plan.starting import Wishes
from redisforge.redis.observe import read_facts
from redisforge.runbooks.status import report

HOSTS = 300
STARTED = "2026-01-01T00:00:00.000000000Z"


def topology_of(folder: Path) -> Topology:
    """150 shards, each a master and a replica, over 300 hosts in three zones."""
    hosts = "".join(
        f"  - {{name: h{n}, address: 10.1.{n // 250}.{n % 250 + 1}, zone: z{n % 3}, runtime: docker}}\n"
        for n in range(HOSTS)
    )
    path = folder / "redisforge.yaml"
    path.write_text(f"shards: {HOSTS // 2}\nreplicas: 1\nhosts:\n{hosts}")
    return load(path, {}, folder).topology


def node_id(node: RedisNode) -> str:
    """40 hexadecimal digits, as Redis makes them."""
    return f"{int(node.name.removeprefix('redis-')):040x}"


def node_answers(topology: Topology) -> dict[str, list[str]]:
    """What each node answers to MYID, CLUSTER NODES, CLUSTER INFO and INFO."""
    slots = split_slots(topology.shards)
    masters = {node.shard: node for node in topology.nodes if node.intended_role == "master"}

    def line(node: RedisNode, asked: RedisNode) -> str:
        is_master = masters[node.shard].name == node.name
        flags = ("myself," if node.name == asked.name else "") + ("master" if is_master else "slave")
        end = f" {slots[node.shard].first}-{slots[node.shard].last}" if is_master else ""
        master = "-" if is_master else node_id(masters[node.shard])
        where = f"{node.address}:{node.port}@{node.bus_port},,tls-port=0,shard-id={node.shard:040x}"
        return f"{node_id(node)} {where} {flags} {master} 0 1700000000000 {node.shard + 1} connected{end}\n"

    answers: dict[str, list[str]] = {}
    for asked in topology.nodes:
        role = (
            "role:master\r\nmaster_repl_offset:9"
            if masters[asked.shard] is asked
            else "role:slave\r\nslave_repl_offset:9"
        )
        info = (
            f"{role}\r\nmaster_link_status:up\r\nredis_version:8.6.3\r\nused_memory:9\r\nprocess_id:7\r\n"
            + "x:1\r\n" * 200
        )
        known = "".join(line(node, asked) for node in topology.nodes)
        answers[asked.name] = [node_id(asked), known, "cluster_state:ok\r\ncluster_current_epoch:200\r\n", info]
    return answers


def host_answer(unit_names: list[str]) -> str:
    """What docker_scripts.OBSERVE prints on a host."""
    lines: list[str] = []
    for name in unit_names:
        state = json.dumps({"Status": "running", "Pid": 4000, "StartedAt": STARTED})
        labels = json.dumps(
            {"io.redisforge.keeper": "no", "io.redisforge.config": "abc", "io.redisforge.container": "def"}
        )
        lines.append(f"container\t{name}\t{state}\t{labels}\t0\t0 0 unless-stopped")
        lines.append(f"unit\t{name}\t" + json.dumps({"placed_hash": "ghi", "container_hash": "def"}))
    return "\n".join(lines) + "\n"


def runtime_of(topology: Topology) -> HostsRuntime:
    """All hosts, each with a Docker that answers from memory."""
    by_host: dict[str, list[str]] = {}
    for unit in (*topology.nodes, *topology.envoys):
        by_host.setdefault(unit.host, []).append(unit.name)
    sites: dict[str, Site] = {}
    for host, names in by_host.items():
        output = host_answer(names)
        transport = FakeTransport(lambda argv, output=output: CommandResult(argv, 0, output, ""))
        layout = ClusterLayout("/var/lib/redisforge/clusters/main")
        sites[host] = Site(host, transport, layout, DockerRuntime(transport, layout, DockerHost("main", "redisforge-")))
    return HostsRuntime(
        list(sites.values()), {unit.name: sites[unit.host] for unit in (*topology.nodes, *topology.envoys)}
    )


def seen_doors(topology: Topology) -> tuple[dict[str, EnvoyFacts], tuple[EndpointFacts, ...]]:
    """Envoys that know every node, and endpoints that serve."""
    nodes = tuple((node.address, node.port) for node in topology.nodes)
    envoys = {e.name: EnvoyFacts(name=e.name, version="1.40.0", state="LIVE", hosts=nodes) for e in topology.envoys}
    return envoys, ()


def main() -> None:
    """Measure once."""
    with tempfile.TemporaryDirectory() as folder:
        topology = topology_of(Path(folder))
    answers, runtime = node_answers(topology), runtime_of(topology)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    blank = {n.name: NodeFacts(name=n.name, address=n.address, port=n.port, problem="refused") for n in topology.nodes}
    hashes = {unit.name: "abc" for unit in (*topology.nodes, *topology.envoys)}
    began = time.perf_counter()
    absent: dict[str, UnitFacts] = {}
    first = next_phase(topology, Facts(observed_at_s=0.0, units=absent, nodes=blank), Wishes(config_hashes=hashes))
    assert first is not None
    assert len(first.steps) >= len(topology.nodes)
    planned_s = time.perf_counter() - began
    began = time.perf_counter()
    units = asyncio.run(runtime.observe())
    nodes = {n.name: read_facts(n.name, (n.address, n.port), [*answers[n.name]]) for n in topology.nodes}
    envoys, endpoints = seen_doors(topology)
    facts = Facts(observed_at_s=0.0, units=units, nodes=nodes, envoys=envoys, endpoints=endpoints)
    said = msgspec.json.encode(report(topology, facts))
    status_s = time.perf_counter() - began
    began = time.perf_counter()
    again = next_phase(topology, facts, Wishes(config_hashes=hashes))
    whole_s = time.perf_counter() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump(
        {
            "first": first.title, "planned_s": planned_s, "status_s": status_s, "whole_s": whole_s,
            "again": again.title if again else None, "peak_mb": peak_mb, "before_mb": before_mb,
            "state": json.loads(said)["cluster"]["state"], "problems": json.loads(said)["problems"][:3],
        },
        sys.stdout, indent=1,
    )  # fmt: skip


if __name__ == "__main__":
    main()
