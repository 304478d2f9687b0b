"""Address translation, by the network around the hosts or by Docker's bridge: what runs there listens on one address,
and everybody else knows another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bed_cluster import BedCluster
from verbs import loaded

from testbed.hosts import Bed, BedHost
from waiting import until

pytestmark = pytest.mark.integration

INNER = "10.77.0"
"""A network that no host has a way to: each has an address of it on its own loopback alone."""
PORTS = "1024:65535"
"""Of what is translated; sshd stays where it is."""


def rules(host: BedHost) -> tuple[tuple[str, ...], ...]:
    """What comes for the outer address goes to the inner one, also from the host itself, and goes out as the outer."""
    inward = ("-d", host.address, "-p", "tcp", "--dport", PORTS, "-j", "DNAT", "--to-destination", inner(host))
    outward = ("-s", inner(host), "!", "-d", f"{INNER}.0/24", "-j", "SNAT", "--to-source", host.address)
    return ("PREROUTING", *inward), ("OUTPUT", *inward), ("POSTROUTING", *outward)


def inner(host: BedHost) -> str:
    return f"{INNER}.{host.address.rpartition('.')[2]}"


def translate(host: BedHost) -> None:
    host.run("ip", "address", "add", f"{inner(host)}/32", "dev", "lo")
    for chain, *rule in rules(host):
        host.run("iptables", "-t", "nat", "-A", chain, *rule)


def undo(host: BedHost) -> None:
    for chain, *rule in rules(host):
        host.run("iptables", "-t", "nat", "-D", chain, *rule, check=False)
    host.run("ip", "address", "del", f"{inner(host)}/32", "dev", "lo", check=False)


@pytest.fixture
def translated(docker_hosts: Bed, tmp_path: Path) -> Iterator[BedCluster]:
    made = BedCluster(docker_hosts, tmp_path)
    try:
        docker_hosts.on_all(translate)
        hosts = [
            {**declared, "address": inner(host), "announce_address": host.address, "labels": {"rack": f"r{number}"}}
            for number, (host, declared) in enumerate(
                zip(docker_hosts.hosts, docker_hosts.declared(runtime="docker"), strict=True), 1
            )
        ]
        made.cluster.declare(hosts=hosts)
        made.trust()
        yield made
    finally:
        try:
            made.close()
        finally:
            docker_hosts.on_all(undo)


def assert_passed(bedded: BedCluster, *names: str) -> None:
    """`host check` has no fault to find with these on any host."""
    checks = bedded.cluster.run("host", "check", "--json").json()["checks"]
    seen = {(check["host"], check["name"]): check["verdict"] for check in checks if check["name"] in names}
    assert seen == {(host.name, name): "Pass" for host in bedded.bed.hosts for name in names}, checks


def test_nodes_listen_inside_and_are_known_and_used_from_outside(translated: BedCluster) -> None:
    cluster = translated.cluster
    assert_passed(translated, "ports", "reachable by the others")
    cluster.up()
    assert_passed(translated, "ports", "reachable by the others")
    keys = cluster.write_keys(200)
    outside = {host.address for host in translated.bed.hosts}
    assert {node["address"] for node in cluster.nodes().values()} == outside
    name = sorted(cluster.nodes())[0]
    with cluster.node_client(name) as client:
        listed = str(client.execute_command("CLUSTER NODES"))
        assert client.config_get("bind") == {"bind": inner(translated.host_of(name))}
    assert INNER not in listed, "nobody knows the inner addresses"
    with loaded(cluster):
        assert cluster.run("failover", next(iter(cluster.masters()))).status == 0
    assert cluster.read_keys(keys) == keys
    assert cluster.up() == []
    assert {node["state"] for node in cluster.nodes().values()} == {"ok"}
    listed = cluster.run("host", "list").stdout
    assert f"{translated.bed.hosts[0].address} (on {inner(translated.bed.hosts[0])})" in listed
    assert "rack=r1" in listed


def test_containers_with_a_network_of_their_own(docker_hosts: Bed, tmp_path: Path) -> None:
    made = BedCluster(docker_hosts, tmp_path, docker={"network": "bridge"})
    cluster = made.cluster
    try:
        made.trust()
        cluster.up()
        keys = cluster.write_keys(200)
        master = made.master_elsewhere()
        host = made.host_of(master)
        inside = host.run("docker", "inspect", "--format", "{{.HostConfig.NetworkMode}}", made.container(master))
        assert inside.strip() == "bridge"
        assert_passed(made, "ports", "reachable by the others")
        with loaded(cluster):
            assert cluster.run("restart", master).status == 0
        cluster.await_copies()
        # Of another shard: for a while after an election, as the restart was one, keepers ask for none.
        shard, beside = cluster.nodes()[master]["shard"], made.running()["envoy-1"].host
        others = cluster.masters().items()
        victim = next(name for name, node in others if node["shard"] != shard and node["host"] != beside)
        seen = made.host_of(victim).run("docker", "top", made.container(victim), "-eo", "pid,comm").splitlines()
        server = next(line.split()[0] for line in seen[1:] if "python3" not in line)  # PID 1 is its keeper
        made.host_of(victim).run("kill", "-9", server)
        until(lambda: victim not in cluster.masters(), "its keeper has had the replica take over")
        until(lambda: {node["state"] for node in cluster.nodes().values()} == {"ok"}, "all nodes are well", 60.0)
        assert cluster.read_keys(keys) == keys
        assert cluster.up() == []
    finally:
        made.close()
