"""redisforge status: what runs, and what is wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import ClusterOption, JsonOption, the_cluster
from redisforge.model.words import counted

if TYPE_CHECKING:
    from redisforge.model.report import StatusReport

_CLEAR_SCREEN = "\033[H\033[2J"
"""ECMA-48: cursor home, erase display."""
_COLUMNS = (
    "NODE",
    "ROLE",
    "SHARD",
    "SLOTS",
    "HOST",
    "PORT",
    "ZONE",
    "KEYS",
    "MEMORY",
    "LAG",
    "RESTARTS",
    "STATE",
    "ID",
)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("status")(status)


def status(
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again until Ctrl-C.")] = False,
    interval_s: Annotated[float, typer.Option("--interval", min=0.2, help="Seconds between two looks.")] = 2.0,
    check: Annotated[bool, typer.Option("--check", help="Exit with status 13 if anything is wrong.")] = False,
) -> None:
    """Show nodes, endpoints and problems."""
    from redisforge.cli.output import print_json
    from redisforge.errors import UnhealthyError
    from redisforge.runbooks.status import status as observe

    found = the_cluster(cluster)
    while True:
        report = observe(found)
        if watch and not as_json:
            typer.echo(_CLEAR_SCREEN, nl=False)
        if as_json:
            print_json(report)
        else:
            typer.echo(status_text(report))
        if not watch:
            break
        time.sleep(interval_s)
    if check and report.problems:
        raise UnhealthyError(
            counted(len(report.problems), "problem"), where=report.cluster.name, why=report.problems[0].what
        )


def status_text(report: StatusReport) -> str:
    """The report as calm tables."""
    from redisforge.cli.output import human_bytes, table_text

    cluster = report.cluster
    lines = [
        f"{cluster.name}: {cluster.state}   {cluster.slots_ok} of 16384 slots served   "
        f"{cluster.engine}   Envoy {cluster.envoy}",
        *(f"host {host} is in maintenance: no master moves there" for host in cluster.maintenance),
        *([f"changed by {cluster.changed_by}; the next verb from here catches up first"] if cluster.changed_by else []),
        *([f"{cluster.cut_off} was cut off: run it again, it goes on from there"] if cluster.cut_off else []),
        "",
    ]
    rows = [
        (
            node.name, node.role, node.shard, _short(node.slots), node.host, node.port, node.zone, node.keys,
            human_bytes(node.used_memory_bytes), human_bytes(node.lag_bytes), node.restart_count,
            node.state, node.id[:8],
        )
        for node in report.nodes
    ]  # fmt: skip
    lines.append(table_text(_COLUMNS, [["-" if cell in (None, "") else str(cell) for cell in row] for row in rows]))
    doors = [[e.name, e.protocol, e.user, f"{e.host}:{e.port}", e.envoy, e.state] for e in report.endpoints]
    lines += ["", table_text(("ENDPOINT", "PROTOCOL", "USER", "ADDRESS", "ENVOY", "STATE"), doors)]
    if report.problems:
        lines += ["", "Problems:"]
    for problem in report.problems:
        lines.append(f"  {problem.severity}: {problem.where}: {problem.what}")
        if problem.next_step:
            lines.append(f"      next: {problem.next_step}")
    return "\n".join(lines)


def _short(slots: str) -> str:
    ranges = slots.split()
    return slots if len(ranges) <= 3 else f"{' '.join(ranges[:3])} +{len(ranges) - 3}"
