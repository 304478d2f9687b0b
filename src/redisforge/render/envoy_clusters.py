"""Envoy's upstream clusters: how it finds the Redis nodes, logs in to them and gives up on them."""

from __future__ import annotations

import ipaddress

import msgspec

from redisforge.model.topology import EndpointKind, EnvoySettings
from redisforge.render.commented_yaml import Noted, Value
from redisforge.render.envoy_parts import milliseconds, redis_proxy_type, socket_address, tls_socket

READS_CHECK_S = 1
"""Between two looks at whether a node may get reads."""
_ENDPOINTS_TYPE = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream cluster: the nodes, reached as one ACL user for one purpose. Paths are absolute.

    `endpoints_path` is where the nodes of a pool that follows that file are written (render_endpoints).
    """

    name: str
    kind: EndpointKind
    user: str
    password_path: str
    prefers_replicas: bool
    folder: str
    settings: EnvoySettings
    nodes: tuple[tuple[str, int], ...]
    endpoints_path: str = ""

    @property
    def follows_file(self) -> bool:
        """Whether Envoy reads this pool's nodes from a file of their own: it does so only for numeric addresses, and
        needs it only where it does not find out by itself."""
        return self.kind is EndpointKind.PUBSUB and all(_is_number(address) for address, _ in self.nodes)


def render_endpoints(pool: Pool) -> dict[str, Value]:
    """The file at `endpoints_path`: an answer of an endpoint discovery service, as Envoy reads it from disk."""
    return {"resources": [{"@type": _ENDPOINTS_TYPE, **_assignment(pool)}]}


def render_cluster(pool: Pool) -> Value:
    """One entry of static_resources.clusters."""
    specific = _redis_cluster(pool) if pool.kind is EndpointKind.COMMANDS else _pubsub_cluster(pool)
    nodes: dict[str, Value] = {}
    if not pool.follows_file:
        nodes["load_assignment"] = Noted(
            _assignment(pool), "All nodes, not a few: any of them can be asked for the topology."
        )
    return {
        "name": pool.name,
        **specific,
        "connect_timeout": milliseconds(pool.settings.connect_timeout_ms),
        "wait_for_warm_on_init": Noted(
            False,
            "Serve at once, also when Redis comes up later: the nodes are found as soon as they answer.",
        ),
        **nodes,
        "transport_socket": Noted(
            tls_socket("UpstreamTlsContext", pool.folder, {}, validate_peer=True),
            "Shows its own certificate; accepts only nodes whose certificate the CA in sds/ca.yaml signed. "
            "Names are not compared, for nodes are reached at the addresses that CLUSTER SLOTS reports.",
        ),
        "typed_extension_protocol_options": Noted(
            {
                "envoy.filters.network.redis_proxy": {
                    "@type": redis_proxy_type("RedisProtocolOptions"),
                    "auth_username": {"inline_string": pool.user},
                    "auth_password": {"filename": pool.password_path},
                }
            },
            "The same ACL user as the client's, so that Redis itself enforces what it may do.",
        ),
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 5, "keepalive_probes": 3}
        },
        "circuit_breakers": _circuit_breakers(pool.settings),
    }


def _assignment(pool: Pool) -> dict[str, Value]:
    return {"cluster_name": pool.name, "endpoints": [{"lb_endpoints": [_host(*node) for node in pool.nodes]}]}


def _host(address: str, port: int) -> Value:
    return {"endpoint": {"address": socket_address(address, port)}}


def _circuit_breakers(settings: EnvoySettings) -> Noted:
    return Noted(
        {
            "thresholds": [
                {
                    "max_connections": settings.max_connections,
                    "max_pending_requests": settings.max_pending_requests,
                }
            ]
        },
        "Envoy's default is 1024 each; a pubsub endpoint needs one connection per subscriber.",
    )


def _redis_cluster(pool: Pool) -> dict[str, Value]:
    specific: dict[str, Value] = {
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.redis",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.redis.v3.RedisClusterConfig",
                **_discovery(pool.settings),
            },
        },
        "outlier_detection": _outlier_detection(),
        "common_lb_config": {"update_merge_window": _at_once()},
    }
    if pool.prefers_replicas:
        specific["ignore_health_on_host_removal"] = Noted(
            True, "A node that has left the cluster is dropped at once, however well it is."
        )
        specific["health_checks"] = Noted(
            [_ping(interval_s=READS_CHECK_S, timeout_s=1, unhealthy_threshold=1, healthy_threshold=2)],
            "A replica that is down or still loading gets no reads. Writes and reads of a master do not ask "
            "for its health: only the owner of a slot can serve it.",
        )
    return specific


def _discovery(settings: EnvoySettings) -> dict[str, Value]:
    return {
        "cluster_refresh_rate": Noted(
            milliseconds(settings.refresh_s * 1000), "CLUSTER SLOTS of a random node, this often."
        ),
        "cluster_refresh_timeout": Noted("0.5s", "A node that is slower to tell is passed over (default 3 s)."),
        "redirect_refresh_interval": Noted(
            "0.05s",
            "And at once after the first redirection, failure or ejected node, at most 20 times a second: the first "
            "question after a crash still gets the old answer, so this is most of the time that a hand-off takes. "
            "The defaults (5 s, 5 redirections, failures ignored) would keep sending to a dead master.",
        ),
        "redirect_refresh_threshold": 1,
        "failure_refresh_threshold": 1,
        "host_degraded_refresh_threshold": 1,
    }


def _outlier_detection() -> Noted:
    return Noted(
        {
            "consecutive_5xx": 3,
            "interval": "1s",
            "base_ejection_time": "1s",
            "max_ejection_time": "5s",
            "max_ejection_percent": 50,
            "enforcing_success_rate": 0,
            "enforcing_failure_percentage": 0,
        },
        "Three failed connections or timeouts in a row: no reads for this replica for a second, and the "
        "topology is asked for again. A master is never cut off by this: only it can serve its slots, and "
        "Envoy does not look at a master's health. Nodes are not judged by comparison with each other.",
    )


def _pubsub_cluster(pool: Pool) -> dict[str, Value]:
    return {
        **_whereabouts(pool),
        "lb_policy": "LEAST_REQUEST",
        "health_checks": Noted(
            [_ping(interval_s=2, timeout_s=2, unhealthy_threshold=3, healthy_threshold=1)],
            "PING as the same user: a node that is down, stuck or still loading gets no subscribers.",
        ),
        "close_connections_on_host_health_failure": Noted(
            True, "A subscriber of a stuck node would wait in silence; closed, it subscribes elsewhere."
        ),
        "common_lb_config": Noted(
            {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
            "Never send anybody to a node that is known to be down, however few are left.",
        ),
    }


def _whereabouts(pool: Pool) -> dict[str, Value]:
    """How a pool without topology of its own learns of the nodes. A file of endpoints can hold only numbers."""
    if not pool.follows_file:
        return {"type": "STRICT_DNS"}
    file: Value = {
        "path": pool.endpoints_path,
        "watched_directory": {"path": pool.endpoints_path.rpartition("/")[0]},
    }
    return {
        "type": "EDS",
        "eds_cluster_config": Noted(
            {"eds_config": {"resource_api_version": "V3", "path_config_source": file}},
            "The nodes are in a file that is watched: they come and go without a restart. Open connections live on.",
        ),
        "ignore_health_on_host_removal": Noted(
            True, "A node that has left the file gets no new subscribers, although it still answers."
        ),
    }


def _at_once() -> Noted:
    return Noted(
        "0s",
        "What a health check finds counts at once for every worker. By default Envoy gathers a second of it, and would "
        "go on sending reads to a node that it knows to be down.",
    )


def _ping(*, interval_s: int, timeout_s: int, unhealthy_threshold: int, healthy_threshold: int) -> Value:
    """One PONG is not enough for reads: a replica that has just started answers before it is told to refuse them."""
    return {
        "interval": f"{interval_s}s",
        "timeout": f"{timeout_s}s",
        "unhealthy_threshold": unhealthy_threshold,
        "healthy_threshold": healthy_threshold,
        "unhealthy_interval": Noted("0.25s", "A node that comes up is used a quarter of a second later."),
        "healthy_edge_interval": Noted("0.25s", "From the first answer on to the one that counts."),
        "no_traffic_interval": "0.25s",
        "no_traffic_healthy_interval": f"{interval_s}s",
        "custom_health_check": {
            "name": "envoy.health_checkers.redis",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.health_checkers.redis.v3.Redis"},
        },
    }


def _is_number(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
