"""redisforge export: the topology for those who run it without RedisForge."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from redisforge.cli.lifecycle import load_declared
from redisforge.cli.options import ClusterOption, ConfigOption, JsonOption


class Kind(StrEnum):
    """What is written."""

    COMPOSE = "compose"
    SYSTEMD = "systemd"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("export")(export)


def export(
    kind: Annotated[Kind, typer.Argument(help="docker-compose files, or systemd units.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder; one folder per host is made in it.")],
    config: ConfigOption = None,
    cluster: ClusterOption = None,
    root: Annotated[
        str,
        typer.Option("--root", help="The cluster's folder there; default: /var/lib/redisforge/clusters/NAME."),
    ] = "",
    server_path: Annotated[
        str, typer.Option("--server-path", help="systemd: the engine on the hosts; default: /usr/bin/redis-server.")
    ] = "",
    envoy_path: Annotated[
        str, typer.Option("--envoy-path", help="systemd: Envoy on the hosts; default: /usr/local/bin/envoy.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Write an earlier export anew.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the declared topology as docker-compose files or systemd units with their configuration.

    DIR/README.md says how to start it and how to form the cluster. Passwords and keys in DIR have mode 0600.
    """
    from redisforge.cli.output import finished_steps_only, print_json
    from redisforge.runbooks.cluster import home_folder
    from redisforge.runbooks.export import Export
    from redisforge.runbooks.export import export as run

    loaded = load_declared(config, cluster)
    for notice in loaded.notices:
        typer.echo(f"note: {notice}", err=True)
    wanted = Export(
        kind=kind.value,
        folder=folder.absolute(),
        topology=loaded.topology,
        passwords=loaded.passwords,
        root=root,
        server_path=server_path,
        envoy_path=envoy_path,
        force=force,
    )
    report = run(wanted, home_folder(os.environ), os.environ, finished_steps_only)
    if as_json:
        print_json(report)
    else:
        typer.echo(f"{report.cluster}: {len(report.files)} files in {report.folder}\n  Read README.md there first.")
