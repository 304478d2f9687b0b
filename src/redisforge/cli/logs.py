"""redisforge logs: what the processes wrote."""

from __future__ import annotations

from typing import Annotated

import typer

from redisforge.cli.options import ClusterOption, the_cluster


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("logs")(logs)


def logs(
    unit: Annotated[str | None, typer.Argument(metavar="[UNIT]", help="A unit; default: all.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    line_count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
    cluster: ClusterOption = None,
) -> None:
    """Print the end of a unit's log, or of every unit's."""
    import asyncio

    from redisforge.runbooks.logs import follow as follow_logs
    from redisforge.runbooks.logs import unit_logs

    with asyncio.Runner() as runner:
        chosen = unit_logs(the_cluster(cluster), unit, runner)
        width = max(map(len, chosen))
        prefix = {name: f"{name.ljust(width)} | " if unit is None else "" for name in chosen}
        for name, log in chosen.items():
            for line in log.last_lines(line_count):
                typer.echo(prefix[name] + line)
        if follow:
            for name, line in follow_logs(chosen):
                typer.echo(prefix[name] + line)
