"""redisforge simulate: what would survive a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import ClusterOption, JsonOption, the_cluster

if TYPE_CHECKING:
    from redisforge.model.report import Survival
    from redisforge.plan.simulate import LossKind

_KINDS = ("host", "zone", "node")
_SPELLING = "redisforge simulate --lose host NAME [--lose zone NAME …]"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("simulate")(simulate)


def simulate(
    lose: Annotated[
        list[str], typer.Option("--lose", metavar="KIND NAME", help="host NAME, zone NAME or node NAME; repeatable.")
    ],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="The names, in the order of --lose.")
    ] = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would survive the loss of hosts, zones or nodes. Nothing is stopped.

    `--lose host:NAME` means the same. Exits with status 13 if a slot would be lost or not served, or an endpoint
    would have no Envoy left.
    """
    from redisforge.cli.output import print_json
    from redisforge.errors import UnhealthyError
    from redisforge.runbooks.simulate import simulate as run

    losses = parse_losses(lose, names or ())
    survival = run(the_cluster(cluster), losses)
    if as_json:
        print_json(survival)
    else:
        typer.echo(survival_text(survival))
    if not survival.survives:
        critical = [finding for finding in survival.findings if finding.severity == "critical"]
        raise UnhealthyError(
            f"the cluster would not survive the loss of {', '.join(f'{kind} {name}' for kind, name in losses)}",
            where=survival.cluster,
            why="\n".join(f"{finding.where}: {finding.what}" for finding in critical),
            next_step="\n".join(dict.fromkeys(finding.next_step for finding in critical if finding.next_step)),
        )


def parse_losses(lose: Sequence[str], names: Sequence[str]) -> list[tuple[LossKind, str]]:
    """Pair kinds with names: each `--lose KIND` takes the next name, `--lose KIND:NAME` has its own.

    Raises:
        UsageError: an unknown kind, or not as many names as kinds.
    """
    from redisforge.errors import UsageError

    waiting = list(names)
    losses: list[tuple[LossKind, str]] = []
    for given in lose:
        kind, has_own, name = given.partition(":")
        if kind not in _KINDS:
            raise UsageError(f"cannot lose {given!r}: not a {' or '.join(_KINDS)}", next_step=_SPELLING)
        if not has_own:
            name = waiting.pop(0) if waiting else ""
        if not name:
            raise UsageError(f"--lose {kind} needs a name", next_step=_SPELLING)
        losses.append((kind, name))
    if waiting:
        raise UsageError(f"{' '.join(waiting)}: belongs to no --lose", next_step=_SPELLING)
    return losses


def survival_text(survival: Survival) -> str:
    """The report as a sentence, a table and the findings."""
    from redisforge.cli.output import human_bytes, table_text

    verdict = "would go on serving all slots" if survival.survives else "would not survive"
    lines = [
        f"{survival.cluster} {verdict} without {', '.join(survival.lost) or 'nothing'}",
        f"  slots lost: {survival.lost_slot_count}; slots not served: {survival.unserved_slot_count}; "
        f"masters left: {survival.masters_left} of {survival.masters} ({survival.masters_needed} needed)",
        "",
    ]
    rows = [
        [
            str(shard.shard), shard.master, shard.outcome.replace("_", " "), shard.master_after or "-",
            str(shard.replicas_left), human_bytes(shard.lag_bytes), human_bytes(shard.headroom_bytes),
        ]
        for shard in survival.shards
    ]  # fmt: skip
    headings = ("SHARD", "MASTER", "THEN", "MASTER AFTER", "REPLICAS LEFT", "LAG", "HEADROOM")
    lines.append(table_text(headings, rows))
    for finding in survival.findings:
        lines.append(f"  {finding.severity}: {finding.where}: {finding.what}")
        if finding.next_step:
            lines.append(f"      next: {finding.next_step}")
    return "\n".join(lines)
