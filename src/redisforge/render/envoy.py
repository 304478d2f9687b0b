"""One Envoy's files: envoy.yaml, the certificate secrets that it watches, and a password file per user.

What Envoy does here, in one paragraph: `redis_proxy` terminates TLS, checks the client's user and password,
reads each command's key, hashes it to a slot and sends the command to the node that owns the slot, over a
connection that is logged in as the same ACL user. Which node owns what it learns from CLUSTER SLOTS of any
node, on a timer and again after every failure or redirection. `tcp_proxy` (kind pubsub) hands a whole
connection to one healthy node. Field names and defaults:
https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api.

envoy.yaml holds no password: Envoy reads them from files (mode 0600) in the Unit's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import quote as percent_encoded

import msgspec

from redisforge.errors import BinaryError
from redisforge.model.topology import Credentials, Endpoint, EndpointKind, EnvoyInstance, Listener, Topology
from redisforge.model.unit import UnitFile
from redisforge.render.commented_yaml import Noted, Value, to_yaml
from redisforge.render.envoy_clusters import Pool, render_cluster, render_endpoints
from redisforge.render.envoy_listeners import Door, render_listener
from redisforge.render.envoy_parts import secret_type, socket_address

ENVOY_CONFIG = "envoy.yaml"
"""Path of the configuration below the Unit's folder."""

WORKER_COUNT = 2
"""Threads that serve clients. Each keeps one connection per node and upstream cluster, so more threads mean
more connections to Redis; two already outrun one Redis process, which serves commands on a single thread."""

_RESP3_SINCE = (1, 40)
_CUSTOM_COMMANDS_SINCE = (1, 34)
# 1.39.3 was seen to refuse `protocol_version`; custom commands: https://github.com/envoyproxy/envoy/pull/38414.
_HEADER = """\
Written by RedisForge for {name} of cluster {cluster}. Changes made here are lost at the next
`redisforge up`: change redisforge.yaml instead.
Passwords are in passwords/ (mode 0600). Certificates are watched: see sds/."""


class EnvoyContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the files depend on. All paths are absolute on the Envoy's host.

    `folder` is the Unit's folder; `version` is the Envoy that will read the files ("1.40.0"), empty if
    unknown. `bind_address` is where everything listens, if it has a network of its own.
    """

    topology: Topology
    envoy: EnvoyInstance
    folder: str
    ca_path: str
    certificate_path: str
    key_path: str
    credentials: Credentials
    version: str = ""
    bind_address: str = ""


def render_envoy(context: EnvoyContext) -> tuple[UnitFile, ...]:
    """Return every file that the Envoy needs: envoy.yaml, sds/*.yaml, endpoints/*.yaml, passwords/*.

    Raises:
        BinaryError: an endpoint asks for something that this version of Envoy does not have.
        KeyError: an endpoint's user has no password.
    """
    doors = _doors(context)
    _check_version(context, doors)
    users = sorted({door.endpoint.user for door in doors})
    pools = _pools(context, doors)
    return (
        UnitFile(
            path=ENVOY_CONFIG,
            content=_config(context, doors, pools),
            restart_text=_config(context, doors, [_without_seeds(pool) for pool in pools]),
        ),
        *(_endpoints_file(pool) for pool in pools if pool.follows_file),
        UnitFile(path="sds/certificate.yaml", content=_certificate_secret(context)),
        UnitFile(path="sds/ca.yaml", content=_ca_secret(context)),
        *(
            # No final newline: Envoy takes the whole file for the password.
            UnitFile(path=_password_file(user), content=context.credentials.password(user), mode=0o600)
            for user in users
        ),
    )


def envoy_argv(binary_path: str, unit_folder: str, worker_count: int = WORKER_COUNT) -> tuple[str, ...]:
    """The command line of one Envoy; paths are absolute.

    Several on one machine do not meet: hot restart, which would join them through shared memory under a common
    base id, is off. Of the redis component only errors are logged: its one warning at start asks for a DNS
    cache, which redirections to addresses, the only ones here, do not need.
    """
    return (
        binary_path,
        "--config-path",
        str(PurePosixPath(unit_folder, ENVOY_CONFIG)),
        "--disable-hot-restart",
        "--concurrency",
        str(worker_count),
        "--log-level",
        "warning",
        "--component-log-level",
        "redis:error",
    )


def redis_cluster_names(topology: Topology, envoy_name: str) -> tuple[str, ...]:
    """The upstream clusters of one Envoy that follow the Redis Cluster's topology (see observe_envoy)."""
    pools = {
        _pool_name(endpoint)
        for endpoint in topology.endpoints
        if endpoint.kind is EndpointKind.COMMANDS and _listener(endpoint, envoy_name)
    }
    return tuple(sorted(pools))


def _listener(endpoint: Endpoint, envoy_name: str) -> Listener | None:
    return next((listener for listener in endpoint.listeners if listener.envoy == envoy_name), None)


def _pool_name(endpoint: Endpoint) -> str:
    if endpoint.kind is EndpointKind.PUBSUB:
        return f"pubsub_{endpoint.user}"
    return f"redis_{endpoint.user}" + ("_replicas" if endpoint.prefer_replicas else "")


def _password_file(user: str) -> str:
    return f"passwords/{percent_encoded(user, safe='')}.password"


def _doors(context: EnvoyContext) -> tuple[Door, ...]:
    settings = context.topology.envoy
    return tuple(
        Door(
            endpoint=endpoint,
            listener=listener,
            upstream_cluster=_pool_name(endpoint),
            password_path=str(PurePosixPath(context.folder, _password_file(endpoint.user))),
            folder=context.folder,
            operation_timeout_ms=settings.operation_timeout_ms,
            knows_custom_commands=_has(context.version, _CUSTOM_COMMANDS_SINCE),
            require_client_certificates=context.topology.tls.require_client_certificates,
            bind_address=context.bind_address or context.topology.listens_on(context.envoy),
        )
        for endpoint in context.topology.endpoints
        if (listener := _listener(endpoint, context.envoy.name))
    )


def _check_version(context: EnvoyContext, doors: tuple[Door, ...]) -> None:
    asks = [d.endpoint.name for d in doors if d.is_commands and d.endpoint.protocol == "RESP3"]
    if asks and not _has(context.version, _RESP3_SINCE):
        raise BinaryError(
            f"endpoint {', '.join(asks)}: protocol RESP3 needs Envoy 1.40 or newer",
            where=context.envoy.name,
            why=f"this is Envoy {context.version}",
            next_step="use a newer Envoy, set `protocol: RESP2`, or switch the endpoint off (`NAME: null`)",
        )


def _has(version: str, since: tuple[int, int]) -> bool:
    """Whether `version` is at least `since`; an unknown version counts as new enough."""
    parts = version.split(".")[:2]
    if len(parts) < 2 or not all(part.isdigit() for part in parts):
        return True
    return (int(parts[0]), int(parts[1])) >= since


def _config(context: EnvoyContext, doors: tuple[Door, ...], pools: Sequence[Pool]) -> str:
    topology, envoy = context.topology, context.envoy
    document: dict[str, Value] = {
        "node": Noted(
            {"id": envoy.name, "cluster": topology.name, "locality": {"zone": envoy.zone}},
            "Certificates that are watched for changes need a node id.",
        ),
        "admin": Noted(
            {"address": socket_address(context.bind_address or "127.0.0.1", envoy.admin_port)},
            "Statistics, health and drain. It has no password, so it must never leave the host's loopback.",
        ),
        "overload_manager": _overload_manager(topology.envoy.max_connections),
        "static_resources": {
            "listeners": [render_listener(door) for door in doors],
            "clusters": [render_cluster(pool) for pool in pools],
        },
    }
    return to_yaml(document, header=_HEADER.format(name=envoy.name, cluster=topology.name))


def _pools(context: EnvoyContext, doors: tuple[Door, ...]) -> list[Pool]:
    return [_pool(context, door) for door in {door.upstream_cluster: door for door in doors}.values()]


def _without_seeds(pool: Pool) -> Pool:
    """Where Envoy asks the cluster itself, the nodes in its file matter only until it has been answered once."""
    return msgspec.structs.replace(pool, nodes=()) if pool.kind is EndpointKind.COMMANDS else pool


def _endpoints_file(pool: Pool) -> UnitFile:
    note = "The nodes that subscribers are handed to. Watched: rename a new file over this one."
    path = _endpoints_path(pool.name)
    return UnitFile(path=path, content=to_yaml(render_endpoints(pool), header=note), restart_text="")


def _endpoints_path(pool_name: str) -> str:
    return f"endpoints/{percent_encoded(pool_name, safe='')}.yaml"


def _pool(context: EnvoyContext, door: Door) -> Pool:
    return Pool(
        name=door.upstream_cluster,
        kind=door.endpoint.kind,
        user=door.endpoint.user,
        password_path=door.password_path,
        prefers_replicas=door.endpoint.prefer_replicas,
        folder=context.folder,
        settings=context.topology.envoy,
        nodes=tuple((node.address, node.port) for node in context.topology.nodes),
        endpoints_path=str(PurePosixPath(context.folder, _endpoints_path(door.upstream_cluster))),
    )


def _overload_manager(max_connections: int) -> Noted:
    return Noted(
        {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors."
                        "downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": max_connections,
                    },
                }
            ]
        },
        "Client connections over all endpoints; one more is closed at once (envoy.max_connections).",
    )


def _secret_file(name: str, body: dict[str, Value], note: str) -> str:
    return to_yaml({"resources": [{"@type": secret_type(), "name": name, **body}]}, header=note)


def _certificate_secret(context: EnvoyContext) -> str:
    body: dict[str, Value] = {
        "tls_certificate": {
            "certificate_chain": {"filename": context.certificate_path},
            "private_key": {"filename": context.key_path},
            "watched_directory": {"path": str(PurePosixPath(context.certificate_path).parent)},
        }
    }
    return _secret_file(
        "certificate",
        body,
        "This Envoy's certificate, shown to clients and to Redis. Rename new files over the old ones and new "
        "connections use them; open connections live on.",
    )


def _ca_secret(context: EnvoyContext) -> str:
    body: dict[str, Value] = {
        "validation_context": {
            "trusted_ca": {"filename": context.ca_path},
            "watched_directory": {"path": str(PurePosixPath(context.ca_path).parent)},
        }
    }
    return _secret_file("ca", body, "Who signs the certificates that this Envoy accepts. Watched like its own.")
