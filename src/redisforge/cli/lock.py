"""redisforge lock: who operates on the cluster now, and how to stop them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import ClusterOption, JsonOption, YesOption, the_layout

if TYPE_CHECKING:
    from redisforge.model.layout import ClusterLayout
    from redisforge.model.report import LockReport
    from redisforge.model.topology import Topology


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    lock = typer.Typer(help="Who operates on the cluster now, and how to stop them.", no_args_is_help=True)
    lock.command("status")(status)
    lock.command("release")(release)
    app.add_typer(lock, name="lock")


def status(cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Say who holds the cluster's lock: user, host, process, verb, since when.

    Ends with status 16 when too few hosts can be asked to know.
    """
    from redisforge.cli.output import print_json
    from redisforge.errors import UnreachableError
    from redisforge.runbooks.lock import lock_report

    layout = _layout(cluster)
    report = lock_report(layout, _topology(layout))
    if as_json:
        print_json(report)
    else:
        typer.echo(lock_text(report))
    if not report.known:
        raise typer.Exit(UnreachableError.exit_status)


def release(
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Kill it (SIGKILL); elsewhere, take its lock. The same verb goes on when it is run again.",
        ),
    ] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0.0, help="How long to wait for its end.")
    ] = 120.0,
    cluster: ClusterOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have the running operation stop at a clean point and give the lock back.

    The lock of a process that died is free by itself. A holder on another machine is asked through the hosts; --force
    takes the lock away from it, and it ends at its next safe point.
    """
    from redisforge.cli.output import print_json, progress_to_stderr
    from redisforge.model.report import again
    from redisforge.runbooks.lock import lock_report
    from redisforge.runbooks.lock import release as run

    layout = _layout(cluster)
    topology = _topology(layout)
    report = lock_report(layout, topology)
    if report.held and not yes:
        typer.echo(lock_text(report), err=True)
        typer.confirm("Kill it?" if force else "Ask it to stop at a clean point?", abort=True, err=True)
    report = run(layout, topology, progress_to_stderr, wait_s=wait_s, force=force)
    if as_json:
        print_json({"released": report.held, "holder": report})
    elif report.held:
        same = again(report.verb, report.command)
        typer.echo(f"{report.cluster}: released; {same} goes on from there when it is run again")
    else:
        typer.echo(lock_text(report))


def _layout(name: str | None) -> ClusterLayout:
    """The cluster that is meant; one that redisforge.yaml here declares need not have a record on this machine."""
    from redisforge.errors import NotFoundError
    from redisforge.runbooks.cluster import cluster_layout, declared_name, home_folder

    try:
        return the_layout(name)
    except NotFoundError:
        declared = declared_name(Path.cwd())
        if declared is None or name not in (None, declared):
            raise
        return cluster_layout(home_folder(os.environ), declared)


def _topology(layout: ClusterLayout) -> Topology | None:
    """What says on which hosts the lock is: the record, else redisforge.yaml here."""
    from redisforge.config.load import load
    from redisforge.runbooks.cluster import declared_name, read_topology

    if Path(layout.topology).exists():
        return read_topology(layout)
    if declared_name(Path.cwd()) == Path(layout.folder).name:
        return load(None, os.environ, Path.cwd()).topology
    return None


def lock_text(report: LockReport) -> str:
    """The report in a line or two."""
    from redisforge.model.report import running

    who = f"{running(report.verb, report.command)} of {report.user} on {report.host}" if report.verb else "an operation"
    if report.held:
        since = f", since {report.since} ({report.seconds:.0f} s)" if report.seconds is not None else ""
        lines = [f"{report.cluster}: held by {who} (process {report.pid or 'unknown'}){since}"]
        lines += [f"  on {', '.join(report.held_on)}"] if report.held_on else []
    else:
        lines = [f"{report.cluster}: {'free' if report.known else 'not known: somebody may hold it'}"]
        if report.verb:
            lines.append(f"  last: {who} (process {report.pid}), begun {report.since}")
    lines += [f"  could not be asked: {', '.join(report.unreachable)}"] if report.unreachable else []
    return "\n".join([*lines, *([f"  {report.note}"] if report.note else [])])
