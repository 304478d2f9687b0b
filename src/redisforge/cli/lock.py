"""redisforge lock: who operates on the cluster now, and how to stop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import ClusterOption, JsonOption, YesOption, the_layout

if TYPE_CHECKING:
    from redisforge.model.report import LockReport


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    lock = typer.Typer(help="Who operates on the cluster now, and how to stop them.", no_args_is_help=True)
    lock.command("status")(status)
    lock.command("release")(release)
    app.add_typer(lock, name="lock")


def status(cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Say who holds the cluster's lock: user, host, process, verb, since when."""
    from redisforge.cli.output import print_json
    from redisforge.runbooks.lock import lock_report

    report = lock_report(the_layout(cluster))
    if as_json:
        print_json(report)
    else:
        typer.echo(lock_text(report))


def release(
    force: Annotated[
        bool, typer.Option("--force", help="Kill it (SIGKILL). The same verb goes on from there when it is run again.")
    ] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0.0, help="How long to wait for its end.")
    ] = 120.0,
    cluster: ClusterOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have the running operation stop at a clean point and give the lock back.

    The lock of a process that died is free by itself.
    """
    from redisforge.cli.output import print_json, progress_to_stderr
    from redisforge.runbooks.lock import lock_report
    from redisforge.runbooks.lock import release as run

    layout = the_layout(cluster)
    report = lock_report(layout)
    if report.held and not yes:
        typer.echo(lock_text(report), err=True)
        typer.confirm("Kill it?" if force else "Ask it to stop at a clean point?", abort=True, err=True)
    report = run(layout, progress_to_stderr, wait_s=wait_s, force=force)
    if as_json:
        print_json({"released": report.held, "holder": report})
    elif report.held:
        typer.echo(f"{report.cluster}: released; `redisforge {report.verb}` goes on from there when it is run again")
    else:
        typer.echo(lock_text(report))


def lock_text(report: LockReport) -> str:
    """The report in a line or two."""
    if report.held:
        who = f"`redisforge {report.verb}` of {report.user} on {report.host}" if report.verb else "an operation"
        since = f", since {report.since} ({report.seconds:.0f} s)" if report.seconds is not None else ""
        lines = [f"{report.cluster}: held by {who} (process {report.pid or 'unknown'}){since}"]
    else:
        lines = [f"{report.cluster}: free"]
        if report.verb:
            lines.append(
                f"  last: `redisforge {report.verb}` of {report.user} on {report.host} (process {report.pid}), "
                f"begun {report.since}"
            )
    return "\n".join([*lines, *([f"  {report.note}"] if report.note else [])])
