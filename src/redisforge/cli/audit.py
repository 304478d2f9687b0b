"""redisforge audit: who changed what, when, and how it went."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import ClusterOption, JsonOption, the_layout

if TYPE_CHECKING:
    from redisforge.model.report import AuditLine

_COLUMNS = ("WHEN", "USER", "VERB", "WHAT", "RESULT", "SECONDS")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("audit")(audit)


def audit(
    last: Annotated[int, typer.Option("--last", "-n", metavar="N", min=0, help="The last N runs; 0: all.")] = 20,
    verb: Annotated[
        str,
        typer.Option(
            "--verb", metavar="VERB", help="Only runs of this verb, with more of its words if there are: 'host drain'."
        ),
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only runs that began or went on since: 2026-05-01T10:30, or 90m, 12h, 7d ago.",
        ),
    ] = "",
    steps: Annotated[bool, typer.Option("--steps", help="Show the phases and steps of each run.")] = False,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who did what to the cluster, when, with what result, and how long it took.

    By the journal of this machine: what was done from another one is on record there.
    """
    from datetime import UTC, datetime

    from redisforge.cli.output import print_json, table_text
    from redisforge.runbooks.audit import Selection, parse_time
    from redisforge.runbooks.audit import audit as read

    begun = parse_time(since, datetime.now(UTC)) if since else None
    report = read(the_layout(cluster), Selection(last=last, verb=verb, since=begun))
    if as_json:
        print_json(report)
        return
    rows = list(_rows(report.lines, steps=steps))
    nothing = "no run matches" if verb or since else "nothing is on record"
    typer.echo(table_text(_COLUMNS, rows) if rows else f"{report.cluster}: {nothing}")
    for notice in report.notices:
        typer.echo(f"note: {notice}", err=True)


def _rows(lines: Iterable[AuditLine], *, steps: bool) -> Iterator[list[str]]:
    """One row per run, from its first and last line; with `steps` its phases, each before its steps."""
    for _, group in groupby(lines, key=lambda line: line.run or f"{line.verb}-{line.pid}"):
        run = list(group)
        first, last = run[0], run[-1]
        ended = last if last.event == "end" else None
        result = ended.result if ended else "no end: killed, or still running"
        seconds = _seconds(ended) if ended else ""
        yield [first.at[:19].replace("T", " "), first.user, first.verb, first.what, result, seconds]
        if steps:
            if first.arguments:
                yield ["", "", "", f"  redisforge {shlex.join(first.arguments)}", "", ""]
            yield from _step_rows(run)


def _step_rows(run: list[AuditLine]) -> Iterator[list[str]]:
    waiting: list[list[str]] = []
    for line in run:
        row = ["", "", "", f"    {line.what}", line.result, _seconds(line)]
        if line.event == "step":
            waiting.append(row)
        elif line.event in {"phase", "probe"}:
            yield [*row[:3], f"  {line.what}", *row[4:]]
            yield from waiting
            waiting = []
    yield from waiting


def _seconds(line: AuditLine) -> str:
    return "" if line.seconds is None else f"{line.seconds:.2f}"
