"""`make bench`: measure RedisForge against the limits that it sets itself, all in one run.

Seconds of a shared machine say little; so what has a yardstick is printed as a ratio to it, measured in the same run
and in turns. Every figure is the median of several tries. The exit status is 1 when a limit is exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench_fleet import fleet
from bench_handoff import handoff_windows
from bench_hosts import hosts
from bench_lost import lost_windows
from bench_moving import moving
from bench_noticed import noticed
from figure import Figure
from nodes import ports, started_nodes, until_ok
from redisforge.config.load import load
from redisforge.model.facts import EndpointFacts, Facts, NodeFacts
from redisforge.model.slots import SLOT_COUNT, SlotRange, merge
from redisforge.model.topology import Host, Topology
from redisforge.plan.balance import Holder, after, balance, distance, rounds
from redisforge.plan.bring_up import next_phase
from redisforge.plan.placement import place, split_slots
from redisforge.plan.predict import apply, settle
from redisforge.plan.starting import Wishes

COMMAND = (sys.executable, "-m", "redisforge")
PLAN_SHARDS = 1000
PLAN_REPLICAS = 2
FORMED_SHARDS = 100


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tries", type=int, default=5, help="tries per figure (default 5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="redisforge-bench-") as folder:
        figures = [
            *planner(options.tries),
            *fleet(options.tries),
            *help_time(options.tries),
            *life(Path(folder), options.tries),
        ]
        figures += hosts(Path(folder), options.tries)
        figures += handoff_windows(Path(folder), options.tries)
        figures += lost_windows(Path(folder), min(options.tries, 3))
        figures += moving(Path(folder), options.tries)
        figures += noticed(Path(folder))
    load_average = os.getloadavg()[0]
    if options.json:
        print(json.dumps({"load": load_average, "figures": [{**f._asdict(), "ok": f.ok} for f in figures]}, indent=1))
    else:
        for figure in figures:
            print(figure)
        print(f"median of {options.tries} tries each; {os.cpu_count()} cores, load average {load_average:.2f}")
    return 0 if all(figure.ok for figure in figures) else 1


def median_s(action: Callable[[], object], tries: int) -> float:
    """The median of the seconds that `action` takes."""
    return statistics.median(seconds(action) for _ in range(tries))


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def planner(tries: int) -> Iterator[Figure]:
    """Placement and slots for 1,000 shards with 3,000 nodes; and one look of the planner at a formed cluster."""
    hosts = [Host(f"host-{n}", f"10.0.{n // 250}.{n % 250}", f"zone-{n % 3}") for n in range(300)]

    def plan() -> None:
        place(hosts, PLAN_SHARDS, PLAN_REPLICAS)
        split_slots(PLAN_SHARDS)

    yield Figure("place and split 1,000 shards, 3,000 nodes", median_s(plan, tries), "s", 1.0, tries)
    yield from rebalance(tries)
    topology, facts = formed(FORMED_SHARDS)
    value = median_s(lambda: next_phase(topology, facts, Wishes()), tries)
    yield Figure(f"next phase of a whole cluster of {FORMED_SHARDS * 3} nodes", value, "s", None, tries)


def rebalance(tries: int) -> Iterator[Figure]:
    """A rebalance of 1,000 masters: half of them new, weights of three kinds, and slots scattered among the others."""
    scattered: list[list[SlotRange]] = [[] for _ in range(PLAN_SHARDS // 2)]
    dealer = random.Random(1)  # the same cluster every time
    for slot in range(SLOT_COUNT):
        scattered[dealer.randrange(len(scattered))].append(SlotRange(slot, slot))
    owned = [*map(merge, scattered), *([()] * (PLAN_SHARDS - len(scattered)))]
    weights = (1.0, 2.0, 0.5)
    holders = [Holder(f"redis-{n}", slots, weights[n % 3]) for n, slots in enumerate(owned)]
    value = median_s(lambda: rounds(balance(holders)), tries)
    yield Figure("plan a rebalance of 1,000 masters", value, "s", 1.0, tries)
    moves = balance(holders)
    yield Figure("… the farthest master from its share", distance(after(holders, moves)), "sl", 1.0, 1)
    yield Figure("… slots that move", sum(move.slot_count for move in moves), "sl", None, 1)


def formed(shards: int) -> tuple[Topology, Facts]:
    """A whole cluster as facts, made by letting the planner form it in the model."""
    text = f"shards: {shards}\nreplicas: 2\nports: {{redis: 20000}}\nplacement: {{allow_shared_hosts: true}}\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "redisforge.yaml")
        path.write_text(text)
        topology = load(path, {}, Path(folder)).topology
    nodes = {n.name: NodeFacts(name=n.name, address=n.address, port=n.port) for n in topology.nodes}
    facts = Facts(observed_at_s=0.0, nodes={name: born(node) for name, node in nodes.items()})
    while phase := next_phase(topology, facts, Wishes()):
        facts = settle(topology, apply(topology, facts, phase.steps, Wishes()))
        facts = reached(topology, facts)
    return topology, facts


def born(node: NodeFacts) -> NodeFacts:
    """A blank node that answers."""
    import msgspec

    from redisforge.model.facts import PeerView

    myself = PeerView(id=f"id-{node.name}", address=node.address, port=node.port, flags=("myself", "master"))
    return msgspec.structs.replace(node, id=myself.id, peers=(myself,))


def reached(topology: Topology, facts: Facts) -> Facts:
    """The same facts with Envoys that know every node."""
    import msgspec

    from redisforge.model.facts import EnvoyFacts

    hosts = tuple((node.address, node.port) for node in topology.nodes)
    envoys = {e.name: EnvoyFacts(name=e.name, version="1", state="LIVE", hosts=hosts) for e in topology.envoys}
    endpoints: tuple[EndpointFacts, ...] = facts.endpoints
    return msgspec.structs.replace(facts, envoys=envoys, endpoints=endpoints)


def help_time(tries: int) -> Iterator[Figure]:
    """`redisforge --help`, the whole process."""
    run("--help")  # the first one compiles
    yield Figure("redisforge --help", median_s(lambda: run("--help"), tries), "s", 0.25, tries)


def life(folder: Path, tries: int) -> Iterator[Figure]:
    """`up` in turns with `redis-cli --cluster create`, then `status` of what runs."""
    ups: list[float] = []
    creates: list[tuple[float, float]] = []
    stati: list[float] = []
    config = folder / "redisforge.yaml"
    config.write_text(f"name: bench\n{ports()}")
    for number in range(tries):
        home = folder / f"home-{number}"
        variables = {"REDISFORGE_HOME": str(home)}
        try:
            ups.append(seconds(lambda v=variables: run("up", "--config", str(config), variables=v)))
            stati.extend(seconds(lambda v=variables: run("status", variables=v)) for _ in range(3))
        finally:
            run("down", "--purge", "--yes", variables=variables)
        creates.append(create_with_redis_cli(config, folder / f"yardstick-{number}"))
    up = statistics.median(ups)
    ended, agreed = (statistics.median(column) for column in zip(*creates, strict=True))
    yield Figure("redisforge up, to all gates and the smoke test", up, "s", 5.0, tries)
    yield Figure("redis-cli --cluster create, nodes already started", ended, "s", None, tries)
    yield Figure("… and until every node says cluster_state:ok", agreed, "s", None, tries)
    yield Figure("up : redis-cli --cluster create, until it ends", up / ended, "x", 3.0, tries)
    yield Figure("redisforge status of six nodes", statistics.median(stati), "s", 0.5, tries * 3)


def create_with_redis_cli(config: Path, home: Path) -> tuple[float, float]:
    """Seconds that redis-cli needs to form the same nodes: until it ends, and until all say cluster_state:ok."""
    topology = load(config, {}, config.parent).topology
    with started_nodes(topology, home) as (cluster, cli_path):
        login = cluster.operator_login()
        nodes = [f"{node.address}:{node.port}" for node in topology.nodes]
        argv = [cli_path, "--cluster", "create", *nodes, "--cluster-replicas", "1", "--cluster-yes"]
        argv += ["--tls", "--cacert", login.ca_path, "--user", login.user]
        variables = {**os.environ, "REDISCLI_AUTH": login.password.reveal()}
        began = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True, env=variables, timeout=60)
        ended = time.perf_counter() - began
        asyncio.run(until_ok(cluster))
        return ended, time.perf_counter() - began


def run(*arguments: str, variables: dict[str, str] | None = None) -> None:
    """Run the command; its failure ends the measurement with what it said."""
    ended = subprocess.run(
        [*COMMAND, *arguments], env={**os.environ, **(variables or {})}, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"redisforge {' '.join(arguments)}: exit status {ended.returncode}\n{ended.stderr}")


if __name__ == "__main__":
    sys.exit(main())
