"""redisforge access: let an operator on another machine in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from redisforge.cli.options import ClusterOption, ConfigOption, the_cluster

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The file with topology, passwords and keys.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    access = typer.Typer(help="Let an operator on another machine in.", no_args_is_help=True)
    access.command("export")(export)
    access.command("import")(import_)
    app.add_typer(access, name="access")


def export(
    file: FileArgument,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    cluster: ClusterOption = None,
) -> None:
    """Write all that an operator on another machine needs into FILE (0600): passwords, certificates, the CA's key.

    Whoever has this file has the cluster: bring it there by a safe way, and delete it.
    """
    from redisforge.runbooks.access import export_access

    found = the_cluster(cluster)
    export_access(found, file, force=force)
    typer.echo(f"{found.topology.name}: written to {file}, with all secrets of the cluster: delete it when it is used")


def import_(file: FileArgument, config: ConfigOption = None) -> None:
    """Make this machine one that can operate the cluster of FILE. redisforge.yaml here says how hosts are reached."""
    from redisforge.config.load import load
    from redisforge.runbooks.access import import_access
    from redisforge.runbooks.cluster import declared_name, home_folder

    declared = load(config, os.environ, Path.cwd()).topology if config or declared_name(Path.cwd()) else None
    name = import_access(file, home_folder(os.environ), declared)
    typer.echo(f"{name}: this machine can operate it now; `redisforge status` shows it.")
