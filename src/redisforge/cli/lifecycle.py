"""redisforge up, down: raise the system and take it down."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import (
    ClusterOption,
    ConfigOption,
    DryRunOption,
    JsonOption,
    YesOption,
    the_cluster,
)

if TYPE_CHECKING:
    from redisforge.config.load import LoadedConfig
    from redisforge.runbooks.up import Raised

AcceptOption = Annotated[
    list[str] | None,
    typer.Option("--accept-data-loss", metavar="NODE", help="Start this node although its data is missing."),
]
_NOT_OURS = "RedisForge does not run its nodes"
PurgeOption = Annotated[bool, typer.Option("--purge", help="Also delete the data and everything `up` made.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("up")(up)
    app.command("down")(down)


def up(
    config: ConfigOption = None,
    cluster: ClusterOption = None,
    accept_data_loss: AcceptOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Raise the declared cluster, or heal what runs to what is declared; then test it.

    Run again it changes nothing, or goes on where an earlier run was cut off.
    """
    from redisforge.cli.output import finished_steps_only, print_json, print_lock_notices, print_plan
    from redisforge.runbooks.cluster import cluster_layout, home_folder
    from redisforge.runbooks.up import Wanted, plan_only
    from redisforge.runbooks.up import up as run

    loaded = load_declared(config, cluster)
    for notice in loaded.notices:
        typer.echo(f"note: {notice}", err=True)
    wanted = Wanted(
        topology=loaded.topology,
        passwords=loaded.passwords,
        accepted_losses=frozenset(accept_data_loss or ()),
    )
    home = home_folder(os.environ)
    if loaded.topology.access:
        _heal(loaded, home, dry_run=dry_run, as_json=as_json)
        return
    if dry_run:
        print_lock_notices(cluster_layout(home, loaded.topology.name), "up", loaded.topology)
        print_plan(plan_only(wanted, home, os.environ, finished_steps_only), as_json=as_json)
        return
    raised = run(wanted, home, os.environ, finished_steps_only)
    if as_json:
        print_json({"phases": raised.phases, "smoke": raised.smoke, "seconds": round(raised.seconds, 3)})
    else:
        _show(raised)


def _heal(loaded: LoadedConfig, home: Path, *, dry_run: bool, as_json: bool) -> None:
    """`up` of a cluster that somebody else runs."""
    from redisforge.cli.output import finished_steps_only, print_json, print_lock_notices, print_plan
    from redisforge.runbooks.cluster import cluster_layout
    from redisforge.runbooks.external import heal, plan_heal

    topology, layout = loaded.topology, cluster_layout(home, loaded.topology.name)
    if dry_run:
        print_lock_notices(layout, "up", topology)
        print_plan(plan_heal(topology, loaded.passwords, layout), as_json=as_json)
        return
    healed = heal(topology, loaded.passwords, layout, finished_steps_only)
    if as_json:
        print_json({"phases": healed.phases, "seconds": round(healed.seconds, 3)})
    else:
        did = "healed" if healed.phases else "already as declared, nothing changed"
        typer.echo(f"{topology.name}: {did} ({healed.seconds:.2f} s)")


def down(
    cluster: ClusterOption = None,
    purge: PurgeOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stop the cluster in a safe order and keep its data; with --purge, delete what `up` made.

    On a terminal it asks first; --purge asks everywhere. The nodes of an adopted cluster are not stopped; --purge
    forgets it here.
    """
    from redisforge.cli.output import finished_steps_only, print_json, print_lock_notices, print_plan
    from redisforge.runbooks.cluster import data_places
    from redisforge.runbooks.down import down as run
    from redisforge.runbooks.down import plan_down

    found = the_cluster(cluster)
    is_ours = not found.topology.access
    if dry_run:
        if is_ours or as_json:
            print_plan(plan_down(found), as_json=as_json)
        else:
            typer.echo(f"{found.topology.name}: {_NOT_OURS}, so nothing is stopped.")
        print_lock_notices(found.layout, "down", found.topology)
        if purge and not as_json:
            what = (
                f"Then everything of cluster {found.topology.name!r} is deleted" if is_ours else "It is forgotten here"
            )
            typer.echo(f"{what}: {data_places(found)}")
        return
    if not (purge or yes) and is_ours and sys.stdin.isatty():
        units = found.unit_names()
        typer.confirm(f"Stop cluster {found.topology.name!r}, {len(units)} units, for all clients?", abort=True)
    if purge and not yes:
        what = "Delete all data of" if is_ours else "Forget here, and leave running,"
        typer.confirm(f"{what} cluster {found.topology.name!r} in {data_places(found)}?", abort=True)
    lowered = run(found, finished_steps_only, purge=purge)
    if as_json:
        print_json(lowered)
    elif not is_ours:
        what = "it is forgotten here" if lowered.purged else "`redisforge down --purge` forgets it here"
        typer.echo(f"{found.topology.name}: {_NOT_OURS}, so nothing was stopped; {what}.")
    elif lowered.purged:
        typer.echo(f"{found.topology.name}: stopped and deleted.")
    else:
        what = f"stopped {len(lowered.stopped)} units" if lowered.stopped else "nothing was running"
        typer.echo(f"{found.topology.name}: {what}; the data is kept in {data_places(found)}")


def load_declared(path: Path | None, cluster_name: str | None) -> LoadedConfig:
    """The declared topology: from --config, from redisforge.yaml here, or from the file that raised the cluster."""
    from msgspec.structs import replace

    from redisforge.config.load import load
    from redisforge.errors import UsageError
    from redisforge.runbooks.cluster import (
        DEFAULT_NAME,
        cluster_layout,
        declared_name,
        home_folder,
        read_topology,
    )
    from redisforge.runbooks.declare import as_recorded

    declared = cluster_name or declared_name(Path.cwd()) or DEFAULT_NAME
    layout = cluster_layout(home_folder(os.environ), declared)
    if path is None and declared_name(Path.cwd()) != declared and Path(layout.topology).exists():
        # Raised from a file that lies elsewhere: that file counts, and not the built-in topology.
        source = read_topology(layout).source
        path = Path(source) if source else None
        if path:
            typer.echo(f"note: {declared} is declared by {path}", err=True)
    loaded = load(path, os.environ, Path.cwd())
    if cluster_name and loaded.topology.name != cluster_name:
        raise UsageError(
            f"the topology declares the cluster {loaded.topology.name!r}, not {cluster_name!r}",
            where=loaded.topology.source or "the built-in topology",
            next_step="give its file with --config, or set `name:` in it",
        )
    overridden = frozenset(variable.name for variable in loaded.used_environment)
    layout = cluster_layout(home_folder(os.environ), loaded.topology.name)
    return replace(loaded, topology=as_recorded(loaded.topology, layout, overridden))


def _show(raised: Raised) -> None:
    from redisforge.cli.output import on_terminal
    from redisforge.runbooks.connect import connect_text, own_command

    name, smoke = raised.cluster.topology.name, raised.smoke
    if raised.phases:
        typer.echo(f"{name}: up in {raised.seconds:.2f} s")
    else:
        typer.echo(f"{name}: already as declared, nothing changed ({raised.seconds:.2f} s)")
    typer.echo(
        f"  {raised.programs.engine.kind} {raised.programs.engine.version}, Envoy {raised.programs.envoy.version}; "
        f"smoke test: {sum(check.passed for check in smoke.checks)} checks passed in {smoke.seconds:.2f} s"
    )
    typer.echo(connect_text(raised.cluster, command=own_command(sys.argv[0]), reveal=on_terminal()))
