"""redisforge host maintenance, drain, remove, replace: hosts come and go under load."""

from __future__ import annotations

from typing import Annotated

import typer

from redisforge.cli.options import (
    AbortOption,
    ClusterOption,
    DryRunOption,
    JsonOption,
    ProbeOption,
    the_cluster,
)

HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="A host by its name or address.")]


def register(host: typer.Typer) -> None:
    """Add the commands to `host`."""
    maintenance = typer.Typer(
        help="A host that is about to be down for a while has no masters, and gets none.", no_args_is_help=True
    )
    maintenance.command("enter")(enter)
    maintenance.command("exit")(exit_)
    host.add_typer(maintenance, name="maintenance")


def enter(
    host: HostArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also where a shard has no replica elsewhere: its master stays there.")
    ] = False,
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let the masters of a host hand over, and let none come back until `exit`.

    Its nodes go on as replicas. No verb makes one of them a master, or places a new node there, as long as there is
    another choice. Redis itself still may, when a master elsewhere dies: that is better than to serve nothing.
    """
    from redisforge.cli.change import run
    from redisforge.runbooks.change import Allowance
    from redisforge.runbooks.host_change import enter_verb

    allowance = Allowance(probe=probe, abort_over_ms=abort_over)
    run(the_cluster(cluster), enter_verb(host, force=force), allowance, dry_run=dry_run, as_json=as_json)


def exit_(
    host: HostArgument,
    cluster: ClusterOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """End a host's maintenance: its nodes may be masters again. Nothing moves by itself."""
    from redisforge.cli.change import run
    from redisforge.runbooks.change import Allowance
    from redisforge.runbooks.host_change import exit_verb

    run(the_cluster(cluster), exit_verb(host), Allowance(), dry_run=dry_run, as_json=as_json)
