"""Pieces of Envoy configuration that listeners and clusters share."""

from __future__ import annotations

from redisforge.render.commented_yaml import Value

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_REDIS_PROXY = "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3"


def secret_type() -> str:
    """The type of a file-based SDS resource."""
    return f"{_TLS}.Secret"


def redis_proxy_type(message: str) -> str:
    """The type of `message` of the redis_proxy extension."""
    return f"{_REDIS_PROXY}.{message}"


def socket_address(address: str, port: int) -> dict[str, Value]:
    """An Address. `localhost` becomes 127.0.0.1, because a listener takes only numbers."""
    number = "127.0.0.1" if address == "localhost" else address
    return {"socket_address": {"address": number, "port_value": port}}


def milliseconds(duration_ms: float) -> str:
    """A protobuf Duration in text: seconds with an `s`."""
    return f"{duration_ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"


def tls_socket(context: str, folder: str, extra: dict[str, Value], *, validate_peer: bool) -> Value:
    """A TLS transport socket with certificates from the Unit's sds/ folder.

    `context` is `DownstreamTlsContext` or `UpstreamTlsContext`.
    """
    common: dict[str, Value] = {
        # Both ends written out: Envoy's upstream default stopped at TLS 1.2 in older versions.
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificate_sds_secret_configs": [_sds("certificate", folder)],
    }
    if validate_peer:
        common["validation_context_sds_secret_config"] = _sds("ca", folder)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TLS}.{context}", "common_tls_context": common, **extra},
    }


def _sds(name: str, folder: str) -> dict[str, Value]:
    path = {"path": f"{folder.rstrip('/')}/sds/{name}.yaml"}
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": path}}
