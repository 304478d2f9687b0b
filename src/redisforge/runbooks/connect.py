"""How to connect: URLs and lines to copy, for the endpoints of a cluster."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from redisforge.errors import NotFoundError
from redisforge.fleet.binaries import cache_folder, ensure_engine
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
    text = connection(endpoint, listener, password, cluster.layout.ca_certificate, output_format)
    if output_format == "redis-cli" and shutil.which("redis-cli") is None:
        return _with_program(text, redis_cli_path(cluster, os.environ))
    return text


def redis_cli_path(cluster: Cluster, environment: Mapping[str, str]) -> str:
    """The redis-cli that came with the cluster's engine. Raises BinaryError if there is none."""
    return ensure_engine(cluster.topology.engine, cache_folder(environment), lambda _: None, environment).cli_path


def find_listener(cluster: Cluster, name: str, envoy_name: str | None) -> tuple[Endpoint, Listener]:
    """The endpoint called `name` and its listener. Raises NotFoundError."""
    topology = cluster.topology
    endpoint = topology.endpoint(name)
    if not topology.endpoints:
        node = topology.nodes[0].name if topology.nodes else "NODE"
        raise NotFoundError(
            f"{topology.name} has no endpoints of RedisForge's",
            where=topology.source or topology.name,
            why="somebody else runs this cluster (external.nodes)" if topology.access else "no Envoy is deployed here",
            next_step=f"`redisforge cli --node {node}` opens redis-cli at a node; clients go to the nodes themselves, "
            "in cluster mode" + ("" if topology.access else ", or to an Envoy: `redisforge deploy envoy`"),
        )
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
    """What `up` prints at its end. Without `reveal` passwords are left out, since logs keep what is printed.

    `command` is how the user calls this program, ready for a shell.
    """
    topology = cluster.topology
    select = f"--cluster {topology.name}"
    lines = ["", f"CA file:  {cluster.layout.ca_certificate}", "", "Endpoints:"]
    width = max(len(endpoint.name) for endpoint in topology.endpoints)
    for endpoint in topology.endpoints:
        for listener in endpoint.listeners:
            password = cluster.credentials.password(endpoint.user) if reveal else Secret("PASSWORD")
            url = connection(endpoint, listener, password, cluster.layout.ca_certificate, "url").reveal()
            lines.append(f"  {endpoint.name.ljust(width)}  {url}")
    if not reveal:
        lines.append(f"  With the password: {command} url {select} ENDPOINT")
    python = 'import os, redis; print(redis.Redis.from_url(os.environ["REDIS_URL"]).ping())'
    lines += [
        "",
        "Connect with redis-cli, or with redis-py (pip install redis):",
        f"  {command} cli {select}",
        f'  REDIS_URL="$({command} url {select})" python3 -c {shlex.quote(python)}',
        "",
        f"See it:   {command} status {select}",
        f"Stop it:  {command} down {select}",
    ]
    return "\n".join(lines)


def own_command(argv0: str) -> str:
    """How to call this program again from any folder, ready for a shell: its name if PATH finds it, else its absolute
    path."""
    if Path(argv0).name == "__main__.py":  # python -m redisforge
        return f"{shlex.quote(sys.executable)} -m redisforge"
    name = Path(argv0).name
    found = shutil.which(name)
    here = Path(argv0).absolute()
    return name if found and Path(found).absolute() == here else shlex.quote(str(here))


def _with_program(text: Secret, program: str) -> Secret:
    """The redis-cli line with the program's path, for machines where redis-cli is not on PATH."""
    return Secret(text.reveal().replace("redis-cli ", shlex.quote(program) + " ", 1))
