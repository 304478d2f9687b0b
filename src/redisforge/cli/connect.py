"""redisforge url, cli: ways into the cluster."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from redisforge.cli.options import ClusterOption, the_cluster

EnvoyOption = Annotated[str | None, typer.Option("--envoy", metavar="NAME", help="Which Envoy; default: the first.")]
EndpointArgument = Annotated[str, typer.Argument(metavar="[ENDPOINT]", help="The endpoint.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("url")(url)
    app.command("cli", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(cli)


def url(
    endpoint: EndpointArgument = "primary",
    output_format: Annotated[
        str, typer.Option("--format", help="url (redis-py's from_url), redis-cli, ioredis, go-redis or env.")
    ] = "url",
    cluster: ClusterOption = None,
    envoy: EnvoyOption = None,
) -> None:
    """Print how a client connects to an endpoint, password included."""
    from redisforge.runbooks.connect import endpoint_connection

    typer.echo(endpoint_connection(the_cluster(cluster), endpoint, output_format, envoy).reveal())


def cli(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[-- ARGS]", help="Arguments for redis-cli.")] = None,
    endpoint: Annotated[str, typer.Option("--endpoint", "-e", help="The endpoint.")] = "primary",
    node: Annotated[
        str | None, typer.Option("--node", help="A node itself, as the operator, instead of an endpoint.")
    ] = None,
    cluster: ClusterOption = None,
) -> None:
    """Open redis-cli with address, TLS, user and password set."""
    from redisforge.runbooks.shell import redis_cli_command

    argv, environment = redis_cli_command(the_cluster(cluster), endpoint, node, os.environ)
    os.execve(argv[0], [*argv, *(arguments or [])], environment)  # noqa: S606 - an argument tuple, no shell
