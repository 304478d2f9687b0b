"""`test-cluster`: find the doors to test, for a cluster of ours or for any address, and run the smoke test."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from redisforge.errors import CertificateError, NotFoundError
from redisforge.model.report import SmokeReport
from redisforge.model.secret import Secret
from redisforge.model.topology import Endpoint, EndpointKind, UserRole
from redisforge.redis.connection import Login
from redisforge.runbooks.cluster import Cluster, cluster_names, open_cluster
from redisforge.runbooks.external import refuse_without_units
from redisforge.runbooks.smoke import Door, Doors, SmokeTest


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An address given on the command line, and the CA file to trust (empty: plain text)."""

    address: str
    port: int
    ca_path: str = ""


def smoke_test_cluster(cluster: Cluster) -> SmokeReport:
    """Test every endpoint of a cluster of ours. Raises UsageError for one that has none."""
    refuse_without_units(cluster.topology, "test-cluster", "give an address: `redisforge test-cluster HOST PORT`")
    return _run(cluster_doors(cluster), cluster.topology.name)


def smoke_test_address(target: Target, home: Path, environment: Mapping[str, str]) -> SmokeReport:
    """Test one address. If it is an endpoint of a cluster under `home`, its users, CA and other endpoints are
    known; otherwise users and passwords come from the environment (REDIS_ACL_USER, REDIS_ACL_PASS, …)."""
    for name in cluster_names(home):
        cluster = open_cluster(home, name)
        if _is_endpoint(cluster, target):
            return _run(cluster_doors(cluster, target), f"{target.address}:{target.port} ({name})")
    if target.ca_path and not Path(target.ca_path).is_file():
        raise CertificateError(
            "the CA file cannot be read",
            where=target.ca_path,
            why="there is no such file",
            next_step="give the CA file of the cluster with --ca-file",
        )
    user = environment.get("REDIS_ACL_USER", "")
    password = environment.get("REDIS_ACL_PASS") or environment.get("REDIS_REQUIREPASS", "")
    login = Login(ca_path=target.ca_path, user=user if password else "", password=Secret(password))
    primary = Door("primary", target.address, target.port, login)
    return _run(Doors(primary, may_be_node=True), f"{target.address}:{target.port}")


def cluster_doors(cluster: Cluster, target: Target | None = None) -> Doors:
    """The doors of a cluster's endpoints at its first Envoy, or at the one that listens on `target`."""
    envoy = _envoy_at(cluster, target) if target else cluster.topology.envoys[0].name
    doors = {
        endpoint.name: _door(cluster, endpoint, envoy)
        for endpoint in cluster.topology.endpoints
        if any(listener.envoy == envoy for listener in endpoint.listeners)
    }
    readers = [
        endpoint.name
        for endpoint in cluster.topology.endpoints
        if endpoint.prefer_replicas and _user_role(cluster, endpoint) is UserRole.READONLY
    ]
    pubsub = [e.name for e in cluster.topology.endpoints if e.kind is EndpointKind.PUBSUB]
    used = {"primary", *readers[:1], *pubsub}
    if "primary" not in doors:
        raise NotFoundError("the cluster has no endpoint called primary", where=cluster.topology.name)
    return Doors(
        primary=doors["primary"],
        reader=doors[readers[0]] if readers else None,
        pubsub=doors[pubsub[0]] if pubsub else None,
        others=tuple(door for name, door in doors.items() if name not in used),
    )


def _door(cluster: Cluster, endpoint: Endpoint, envoy: str) -> Door:
    listener = next(listener for listener in endpoint.listeners if listener.envoy == envoy)
    return Door(
        endpoint.name,
        listener.address,
        listener.port,
        cluster.user_login(endpoint.user),
        3 if endpoint.protocol == "RESP3" else 2,
        may_read=_user_role(cluster, endpoint) is not UserRole.MONITOR,
    )


def _user_role(cluster: Cluster, endpoint: Endpoint) -> UserRole:
    return next(user.role for user in cluster.topology.users if user.name == endpoint.user)


def _is_endpoint(cluster: Cluster, target: Target) -> bool:
    return bool(_envoy_at(cluster, target))


def _envoy_at(cluster: Cluster, target: Target) -> str:
    names = {"localhost": "127.0.0.1"}
    address = names.get(target.address, target.address)
    for endpoint in cluster.topology.endpoints:
        for listener in endpoint.listeners:
            if endpoint.kind is EndpointKind.COMMANDS and (listener.address, listener.port) == (
                address,
                target.port,
            ):
                return listener.envoy
    return ""


def _run(doors: Doors, target: str) -> SmokeReport:
    return asyncio.run(SmokeTest(doors, secrets.token_hex(4)).run(target))
