"""Hosts with Docker come and go: one is lost with all on it and replaced, another is drained under load."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from bed_cluster import BedCluster
from verbs import assert_declared, assert_whole, by_host, done, ids_of, loaded, raise_commented, strays

from testbed.hosts import Bed
from waiting import until

pytestmark = pytest.mark.integration

TAKEOVER_S = 30.0
SPARE = "h6"


@pytest.fixture(scope="module")
def three(docker_hosts: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BedCluster]:
    """On h1, h2 and h3; h6, in the zone of h3, is ready and not declared."""
    made = BedCluster(docker_hosts, tmp_path_factory.mktemp("bed-hosts"))
    try:
        made.trust()
        made.cluster.declare(hosts=docker_hosts.declared(runtime="docker")[:3])
        raise_commented(made.cluster)
        yield made
    finally:
        made.close()


def test_a_lost_host_is_replaced_and_what_it_brings_back_is_not_listened_to(three: BedCluster) -> None:
    cluster, lost = three.cluster, three.host("h3")
    keys, ids = cluster.write_keys(500), ids_of(cluster)
    cluster.await_copies()
    gone = {name for name, node in cluster.nodes().items() if node["host"] == "h3"}
    lost.power_off()
    try:
        until(lambda: len(cluster.masters()) == 3 and not gone & cluster.masters().keys(), "a takeover", TAKEOVER_S)
        entry = yaml.safe_dump([three.bed.declared(runtime="docker")[5]], sort_keys=False)
        file = cluster.folder / "redisforge.yaml"
        file.write_text(cluster.declaration().replace("hosts:\n", f"hosts:\n{entry}"))

        report = done(cluster, "host", "replace", "h3", SPARE, "--yes")

        assert any("h3 cannot be reached" in notice for notice in report["notices"])
        assert by_host(three.cluster) == {"h1": 2, "h2": 2, SPARE: 2}
        stayed = {name: node_id for name, node_id in ids_of(cluster).items() if name in ids.keys() - gone}
        assert stayed == {name: node_id for name, node_id in ids.items() if name not in gone}
        assert_declared(cluster, 3)
        assert_whole(cluster, 3)
    finally:
        lost.power_on()
    until(lambda: lost.run("docker", "ps", "--quiet"), "its containers run again", TAKEOVER_S)
    assert cluster.is_healthy(), "nobody looks at a host that has left"
    assert by_host(three.cluster) == {"h1": 2, "h2": 2, SPARE: 2}
    assert cluster.up() == []
    entry = yaml.safe_dump([three.bed.declared(runtime="docker")[2]], sort_keys=False)
    file.write_text(cluster.declaration().replace("hosts:\n", f"hosts:\n{entry}"))
    cluster.up()
    told = strays(cluster)
    assert gone <= told.keys(), cluster.problems()
    for command in told.values():
        lost.run(*command)
    assert lost.run("docker", "ps", "--quiet") == ""
    assert strays(cluster) == {}
    done(cluster, "host", "remove", "h3", "--yes")
    assert cluster.read_keys(keys) == keys
    lost.run("sh", "-c", f"docker ps --all --quiet | xargs docker rm --force --volumes; rm -rf {three.folder}")


def test_a_host_is_drained_under_load(three: BedCluster) -> None:
    cluster = three.cluster
    beside = three.running(but="h3")["envoy-1"].host
    host = next(name for name in by_host(three.cluster) if name != beside)
    with loaded(cluster):
        report = done(cluster, "host", "drain", host, "--yes", "--force", "--probe")
    assert (report["probe"]["errors"], report["probe"]["lost"]) == (0, 0)
    assert host not in by_host(three.cluster)
    assert set(by_host(three.cluster).values()) == {3}
    assert three.host(host).run("docker", "ps", "--all", "--quiet") == ""
    assert cluster.up() == []
