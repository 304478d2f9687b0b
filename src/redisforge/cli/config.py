"""redisforge init, and redisforge config check|show|schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import ConfigOption, JsonOption
from redisforge.model.words import counted

if TYPE_CHECKING:
    from redisforge.config.load import LoadedConfig


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("init")(init)
    config = typer.Typer(help="Check and show the declared topology.", no_args_is_help=True)
    config.command("check")(check)
    config.command("show")(show)
    config.command("schema")(schema)
    app.add_typer(config, name="config")


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; made if missing.")] = Path(),
    name: Annotated[str, typer.Option("--name", help="The cluster's name.")] = "main",
    first_port: Annotated[
        int | None,
        typer.Option("--first-port", help="Port of the first node; all others move along (default: 7001)."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace redisforge.yaml; passwords in .env are kept.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented redisforge.yaml, and a .env with strong passwords (0600)."""
    from redisforge.cli.output import print_json
    from redisforge.runbooks.init import init as run

    report = run(folder, name, first_port, force)
    if as_json:
        print_json(report)
        return
    for label, paths in (("wrote", report.written), ("kept", report.kept)):
        for path in paths:
            typer.echo(f"{label:5} {path}")
    for notice in report.notices:
        typer.echo(f"note: {notice}")
    typer.echo("next: redisforge config check, then redisforge up (in that folder)")


def check(config: ConfigOption = None) -> None:
    """Check redisforge.yaml, .env and the environment; show every problem with its line."""
    loaded = _load(config)
    topology = loaded.topology
    name = config or (Path(topology.source).name if topology.source else "the built-in topology")
    nodes, envoys = len(topology.nodes), len(topology.envoys)
    summary = (
        f"{topology.name}, {topology.engine.kind} {topology.engine.version}, {topology.shards} shards with "
        f"{counted(topology.replicas, 'replica')} each: {counted(nodes, 'node')}, {counted(envoys, 'Envoy')}, "
        f"{counted(len(topology.endpoints), 'endpoint')}"
    )
    typer.echo(f"{name} is valid: {summary}")
    for notice in loaded.notices:
        typer.echo(f"note: {notice}", err=True)


def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the effective topology: every node, port, endpoint and user."""
    loaded = _load(config)
    document = {
        "topology": loaded.topology,
        "passwords_given_for": tuple(loaded.passwords),
        "notices": loaded.notices,
        "used_environment": loaded.used_environment,
    }
    if as_json:
        from redisforge.cli.output import print_json

        print_json(document)
        return
    import msgspec
    import yaml

    typer.echo(yaml.safe_dump(msgspec.to_builtins(document), sort_keys=False, allow_unicode=True), nl=False)


def schema() -> None:
    """Print the JSON Schema of redisforge.yaml, for editors."""
    from redisforge.config.reference import json_schema_text

    typer.echo(json_schema_text(), nl=False)


def _load(config: Path | None) -> LoadedConfig:
    from redisforge.config.load import load

    return load(config, os.environ, Path.cwd())
