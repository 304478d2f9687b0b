"""`cli`: redis-cli with everything set. The password travels in the environment, never in the arguments."""

from __future__ import annotations

from collections.abc import Mapping

from redisforge.errors import NotFoundError
from redisforge.model.topology import RedisNode, UserRole
from redisforge.runbooks.cluster import OPERATOR_CERTIFICATE, Cluster
from redisforge.runbooks.connect import find_listener, redis_cli_path


def redis_cli_command(
    cluster: Cluster, endpoint_name: str, node_name: str | None, environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of redis-cli for an endpoint, or for a node as the operator.

    Raises:
        NotFoundError: no such endpoint or node.
        BinaryError: no redis-cli can be had.
    """
    if cluster.topology.access:
        return _external(cluster, node_name, environment)
    layout = cluster.layout
    extra: list[str] = []
    if node_name is None:
        endpoint, listener = find_listener(cluster, endpoint_name, None)
        address, port, user = listener.address, listener.port, endpoint.user
        if endpoint.protocol == "RESP3":
            extra.append("-3")
    else:
        node = _node(cluster, node_name)
        address, port, user = node.address, node.port, cluster.topology.user(UserRole.OPERATOR).name
        certificate, key = layout.certificate(OPERATOR_CERTIFICATE), layout.key(OPERATOR_CERTIFICATE)
        extra += ["--cert", certificate, "--key", key]
    argv = [redis_cli_path(cluster, environment), "-h", address, "-p", str(port), "--user", user]
    argv += ["--tls", "--cacert", layout.ca_certificate, *extra]
    return argv, {**environment, "REDISCLI_AUTH": cluster.credentials.password(user).reveal()}


def _node(cluster: Cluster, name: str) -> RedisNode:
    """Raises NotFoundError."""
    try:
        return cluster.topology.node(name)
    except StopIteration:
        names = ", ".join(node.name for node in cluster.topology.nodes)
        raise NotFoundError(f"no node called {name!r}", next_step=f"the nodes are: {names}") from None


def _external(
    cluster: Cluster, node_name: str | None, environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """To a node that somebody else runs, the first one if none is named, as RedisForge itself logs in. -c: there is no
    proxy that would find a key's node."""
    node = _node(cluster, node_name) if node_name else cluster.topology.nodes[0]
    login = cluster.operator_login()
    argv = [redis_cli_path(cluster, environment), "-c", "-h", node.address, "-p", str(node.port)]
    argv += ["--user", login.user] if login.user else []
    for option, path in (("--cacert", login.ca_path), ("--cert", login.certificate_path), ("--key", login.key_path)):
        argv += [option, path] if path else []
    argv += ["--tls"] if login.ca_path else []
    variables = {"REDISCLI_AUTH": login.password.reveal()} if login.password else {}
    return argv, {**environment, **variables}
