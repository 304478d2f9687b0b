"""What to do after a host has been deployed: the commands, with everything filled in that is known."""

from __future__ import annotations

from redisforge.model.facts import Facts
from redisforge.model.topology import UserRole
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.init_cluster import LEAST_NODES

_PASSWORDS = "set -a; . ./.env; set +a"


def next_steps(cluster: Cluster, facts: Facts, name: str) -> tuple[str, ...]:
    """Sentences and commands, in their order; `name` is the Unit that was deployed."""
    topology = cluster.topology
    if any(envoy.name == name for envoy in topology.envoys):
        door = next(door for endpoint in topology.endpoints for door in endpoint.listeners if door.envoy == name)
        ca = f"--ca-file {cluster.layout.ca_certificate}"
        return (f"{_PASSWORDS}; redisforge test-cluster {door.address} {door.port} {ca}",)
    seen = facts.nodes[name]
    if seen.slots or seen.master_id:
        return (f"it is a member of the cluster: redisforge status --cluster {topology.name}",)
    here = f"{seen.address}:{seen.port}"
    formed = next((node for node in facts.reachable_nodes() if node.slots), None)
    if formed is not None:
        return (
            f"it is blank, and there is a cluster: join it, on the host of a member ({formed.address}:{formed.port}):",
            f"redisforge deploy redis; redisforge scale add {here} --cluster {topology.name}",
            "(the first learns all members; with --role master the node gets its share of slots)",
        )
    login = f"--user {topology.user(UserRole.OPERATOR).name} --ca-file {cluster.layout.ca_certificate}"
    known = [f"{node.address}:{node.port}" for node in topology.nodes]
    if len(known) >= LEAST_NODES:
        return (
            "when every node runs, once, on one host:",
            f"{_PASSWORDS}; redisforge init-cluster {','.join(known)} {login}",
            "then `redisforge deploy envoy` where clients are to come in",
        )
    return (
        f"{len(known)} nodes are known here, and a cluster needs {LEAST_NODES}: deploy the others, then, once:",
        f"{_PASSWORDS}; redisforge init-cluster {','.join(known)},HOST:PORT,… {login}",
        "then `redisforge deploy envoy` where clients are to come in",
    )
