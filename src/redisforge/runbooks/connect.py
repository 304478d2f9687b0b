"""How to connect: URLs and lines to copy, for the endpoints of a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path

from redisforge.errors import NotFoundError
from redisforge.model.secret import Secret
from redisforge.model.topology import Endpoint, Listener
from redisforge.render.connect import connection
from redisforge.runbooks.cluster import Cluster


def endpoint_connection(
    cluster: Cluster, name: str, output_format: str = "url", envoy_name: str | None = None
) -> Secret:
    """The connection string of an endpoint, at one Envoy (default: the first).

    Raises:
        NotFoundError: no such endpoint, or it is not served by that Envoy.
        UsageError: an unknown format.
    """
    endpoint, listener = find_listener(cluster, name, envoy_name)
    password = cluster.credentials.password(endpoint.user)
    return connection(endpoint, listener, password, cluster.layout.ca_certificate, output_format)


def find_listener(cluster: Cluster, name: str, envoy_name: str | None) -> tuple[Endpoint, Listener]:
    """The endpoint called `name` and its listener. Raises NotFoundError."""
    topology = cluster.topology
    endpoint = topology.endpoint(name)
    if endpoint is None:
        raise NotFoundError(
            f"no endpoint called {name!r}",
            where=topology.name,
            next_step=f"the endpoints are: {', '.join(e.name for e in topology.endpoints)}",
        )
    for listener in endpoint.listeners:
        if envoy_name in (None, listener.envoy):
            return endpoint, listener
    raise NotFoundError(
        f"{envoy_name!r} does not serve {name}",
        where=topology.name,
        next_step=f"the Envoys are: {', '.join(envoy.name for envoy in topology.envoys)}",
    )


def connect_text(cluster: Cluster, *, command: str, reveal: bool) -> str:
    """What `up` prints at its end. Without `reveal` passwords are left out, since logs keep what is printed."""
    command = shlex.quote(command)
    select = f" --cluster {cluster.topology.name}"
    lines = ["", f"CA file: {cluster.layout.ca_certificate}", "", "Endpoints:"]
    width = max(len(endpoint.name) for endpoint in cluster.topology.endpoints)
    for endpoint in cluster.topology.endpoints:
        for listener in endpoint.listeners:
            password = cluster.credentials.password(endpoint.user) if reveal else Secret("PASSWORD")
            url = connection(endpoint, listener, password, cluster.layout.ca_certificate, "url").reveal()
            lines.append(f"  {endpoint.name.ljust(width)}  {url}")
    if not reveal:
        lines.append(f"  (with the password: {command} url{select} ENDPOINT)")
    python = (
        "import redis, subprocess; r = redis.Redis.from_url(subprocess.check_output("
        f"{[command.strip(chr(39)), 'url', *select.split()]!r}, text=True).strip()); print(r.ping())"
    )
    lines += [
        "",
        "redis-cli:",
        f"  {command} cli{select}",
        f'  eval "$({command} url{select} --format redis-cli)"',
        "redis-py:",
        f"  python3 -c {shlex.quote(python)}",
        "",
        f"State: {command} status{select}     Logs: {command} logs{select}     Stop: {command} down{select}",
    ]
    return "\n".join(lines)


def command_path(argv0: str) -> str:
    """How to call this program again from any folder."""
    return str(Path(argv0).resolve()) if "/" in argv0 else argv0
