"""redisforge deploy: one node, or one Envoy, on this host, from .env."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from redisforge.cli.options import JsonOption
from redisforge.model.images import DEFAULT_BASE


class Role(StrEnum):
    """What is deployed."""

    REDIS = "redis"
    ENVOY = "envoy"


class RuntimeChoice(StrEnum):
    """How it runs."""

    PROCESS = "process"
    DOCKER = "docker"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("deploy")(deploy)


def deploy(
    role: Annotated[Role, typer.Argument(help="A Redis node, or an Envoy.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where .env lies.")] = Path(),
    runtime: Annotated[
        RuntimeChoice, typer.Option("--runtime", help="A process with a keeper, or a container.")
    ] = RuntimeChoice.PROCESS,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for an answer.")] = 30.0,
    base: Annotated[
        str, typer.Option("--base", metavar="IMAGE", help="For --runtime docker: what a missing image is built on.")
    ] = DEFAULT_BASE,
    as_json: JsonOption = False,
) -> None:
    """Start a Redis node or an Envoy on this host, as its .env says, and say what to do next.

    .env is of the usual convention (REDIS_CLUSTER_ANNOUNCE_IP, REDIS_MASTER_1_HOST, REDIS_REQUIREPASS …). What runs as
    it says is left alone. Passwords with CHANGE_ME in them are refused.
    """
    from redisforge.cli.output import finished_steps_only, print_json
    from redisforge.runbooks.cluster import home_folder
    from redisforge.runbooks.deploy import Wanted
    from redisforge.runbooks.deploy import deploy as run

    wanted = Wanted(role=role.value, folder=folder.absolute(), runtime=runtime.value, wait_s=wait_s, base=base)
    report = run(wanted, home_folder(os.environ), os.environ, finished_steps_only)
    if as_json:
        print_json(report)
        return
    for notice in report.notices:
        typer.echo(f"note: {notice}", err=True)
    typer.echo(
        f"{report.unit} {report.done}: {role.value} {report.version} at {report.address}:{report.port}, "
        f"of cluster {report.cluster} ({report.seconds:.2f} s)\nNext:"
    )
    for step in report.next_steps:
        typer.echo(f"  {step}")
