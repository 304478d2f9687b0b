"""Envoy's listeners: one TLS address per endpoint, redis_proxy (commands) or tcp_proxy (pubsub) behind it."""

from __future__ import annotations

import msgspec

from redisforge.model.topology import Endpoint, EndpointKind, Listener
from redisforge.render.commented_yaml import Noted, Value
from redisforge.render.envoy_parts import milliseconds, redis_proxy_type, socket_address, tls_socket

KEYED_COMMANDS = (
    *("delex", "digest", "expiretime", "hgetdel", "hgetex", "hsetex", "lcs", "pexpiretime"),
    *("vadd", "vcard", "vdim", "vemb", "vgetattr", "vinfo", "vismember", "vlinks", "vrandmember", "vrange"),
    *("vrem", "vsetattr", "vsim", "xackdel", "xcfgset", "xdelex", "xsetid"),
)
"""Commands of Redis 8.6 that redis_proxy 1.40 does not know and whose first argument is a key."""

REDIRECTED_COMMANDS = (
    *("eval_ro", "evalsha_ro", "fcall", "fcall_ro", "lmpop", "msetex", "sintercard", "xgroup", "xinfo"),
    *("zintercard", "zmpop"),
)
"""Commands that redis_proxy does not know and whose key comes later. Envoy takes the first argument for the
key, the node there answers MOVED without running anything, and Envoy follows: they work, and cost an extra
hop."""

# (option of the Linux socket interface, level, name, value): see socket(7) and tcp(7).
_KEEPALIVE = (
    ("SO_KEEPALIVE", 1, 9, 1),
    ("TCP_KEEPIDLE (s)", 6, 4, 30),
    ("TCP_KEEPINTVL (s)", 6, 5, 5),
    ("TCP_KEEPCNT", 6, 6, 3),
)


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as one Envoy serves it. Paths are absolute; `folder` is the Unit's.

    `bind_address` is where it listens: the listener's address, or what is translated to it.
    """

    endpoint: Endpoint
    listener: Listener
    upstream_cluster: str
    password_path: str
    folder: str
    operation_timeout_ms: int
    knows_custom_commands: bool
    require_client_certificates: bool
    bind_address: str

    @property
    def is_commands(self) -> bool:
        """Whether Envoy reads the commands itself."""
        return self.endpoint.kind is EndpointKind.COMMANDS


def render_listener(door: Door) -> Value:
    """One entry of static_resources.listeners."""
    filter_config = _redis_proxy(door) if door.is_commands else _tcp_proxy(door)
    return {
        "name": door.endpoint.name,
        "stat_prefix": door.endpoint.name,
        "address": socket_address(door.bind_address, door.listener.port),
        "enable_reuse_port": Noted(
            False,
            "A second process on this port must fail to start. With reuse_port the kernel would share the "
            "clients out between both, for instance with an Envoy left over from before.",
        ),
        "connection_balance_config": Noted(
            {"exact_balance": {}}, "Redis connections live long: spread them evenly over the worker threads."
        ),
        "socket_options": Noted(
            [_socket_option(*option) for option in _KEEPALIVE],
            "Accepted connections inherit these: a client whose host vanished is noticed after 45 s.",
        ),
        "filter_chains": [
            {
                "transport_socket_connect_timeout": Noted(
                    "10s", "A client that connects and never finishes its TLS handshake."
                ),
                "transport_socket": _downstream_tls(door),
                "filters": [filter_config],
            }
        ],
    }


def _socket_option(description: str, level: int, name: int, value: int) -> Value:
    return {
        "description": description,
        "level": level,
        "name": name,
        "int_value": value,
        "state": "STATE_PREBIND",
    }


def _downstream_tls(door: Door) -> Value:
    extra: dict[str, Value] = {}
    if door.require_client_certificates:
        extra["require_client_certificate"] = True
    return tls_socket("DownstreamTlsContext", door.folder, extra, validate_peer=door.require_client_certificates)


def _redis_proxy(door: Door) -> Value:
    config: dict[str, Value] = {
        "@type": redis_proxy_type("RedisProxy"),
        "stat_prefix": door.endpoint.name,
        "settings": _pool_settings(door),
        "prefix_routes": {"catch_all_route": {"cluster": door.upstream_cluster}},
        "downstream_auth_username": {"inline_string": door.endpoint.user},
        "downstream_auth_passwords": [{"filename": door.password_path}],
        "latency_in_micros": True,
    }
    if door.knows_custom_commands:
        config["custom_commands"] = Noted(
            [*KEYED_COMMANDS, *REDIRECTED_COMMANDS],
            "Commands that redis_proxy does not know by itself (Envoy 1.34 or newer). It takes the first "
            "argument for the key; where that is wrong, the node's MOVED leads to the right one.",
        )
    if door.endpoint.protocol == "RESP3":
        config["protocol_version"] = Noted(
            "RESP3",
            "Serves clients that open with HELLO 3 and refuses all others (Envoy 1.40 or newer). Clients "
            "that stay with RESP2 use an endpoint of their own.",
        )
    return {"name": "envoy.filters.network.redis_proxy", "typed_config": config}


def _pool_settings(door: Door) -> dict[str, Value]:
    policy = Noted("MASTER", "Every read sees what was written last.")
    if door.endpoint.prefer_replicas:
        policy = Noted(
            "PREFER_REPLICA",
            "Reads go to a replica (a moment behind its master), or to the master when none is healthy.",
        )
    return {
        "op_timeout": Noted(
            milliseconds(door.operation_timeout_ms),
            "A command that is not answered by then fails, and its connection to the node is closed.",
        ),
        "read_policy": policy,
        "enable_redirection": Noted(
            True, "MOVED and ASK are followed here, so slots can move and masters change under the clients."
        ),
        "enable_command_stats": Noted(True, "cluster.NAME.upstream_commands.COMMAND.{total,success,failure,latency}"),
        "max_buffer_size_before_flush": Noted(
            0,
            "Every command is sent at once. With a buffer a single command waits for others to join it: "
            "3 ms by default, eight times what it takes without (measured on loopback).",
        ),
    }


def _tcp_proxy(door: Door) -> Value:
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": door.endpoint.name,
            "cluster": Noted(
                door.upstream_cluster,
                "Any node will do: the cluster bus carries every PUBLISH to all nodes. The client logs in to "
                "the node itself.",
            ),
            "idle_timeout": Noted(
                "0s", "Never: a subscriber may hear nothing for days. Keepalive finds the dead ones."
            ),
            "max_connect_attempts": Noted(3, "A node that refuses is passed over for another one."),
        },
    }
