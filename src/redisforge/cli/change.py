"""redisforge failover, restart: changes of a running cluster. What all of them show is here too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import (
    AbortOption,
    ClusterOption,
    DryRunOption,
    ForceOption,
    JsonOption,
    ProbeOption,
    YesOption,
    the_cluster,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from redisforge.model.report import ChangeReport
    from redisforge.model.steps import Plan
    from redisforge.runbooks.change import Verb
    from redisforge.runbooks.cluster import Cluster
    from redisforge.runbooks.watch import Allowance


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("failover")(failover)
    app.command("restart")(restart)


def failover(
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE",
            help="The master: a name, an id, host:port, or a beginning (of an id: 4 characters or more).",
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="NODE", help="The replica that takes over.")] = "",
    force: Annotated[bool, typer.Option("--force", help="The master is dead or hangs: go without it.")] = False,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="No majority of masters is left: go without their votes.")
    ] = False,
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let the replica that is most in sync take over from a master, without losing a write.

    --force does not ask the master: what it alone had received is lost. --takeover does not ask the other masters:
    two masters can then claim the same slots until the network heals.
    """
    from redisforge.runbooks.failover import failover_verb
    from redisforge.runbooks.watch import Allowance

    found = the_cluster(cluster)
    mode = "takeover" if takeover else "force" if force else "handover"
    if mode != "handover" and not (yes or dry_run):
        typer.confirm(_WARNINGS[mode].format(node=node), abort=True)
    verb = failover_verb(node, heir=to, mode=mode)
    run(found, verb, Allowance(probe=probe, abort_over_ms=abort_over), dry_run=dry_run, as_json=as_json)


_WARNINGS = {
    "force": "What only {node} had received is lost. Let a replica take over without it?",
    "takeover": "What only {node} had received is lost, and if the other masters live behind a broken network, two "
    "masters will claim the same slots until it heals. Let a replica take over without a vote?",
}


def restart(
    nodes: Annotated[list[str] | None, typer.Argument(metavar="NODE", help="Which nodes; default: all.")] = None,
    force: ForceOption = False,
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Restart nodes one after the other: replicas first, masters hand over before they stop."""
    from redisforge.runbooks.restart import restart_verb
    from redisforge.runbooks.watch import Allowance

    verb = restart_verb(tuple(nodes or ()), force=force)
    allowance = Allowance(probe=probe, abort_over_ms=abort_over)
    run(the_cluster(cluster), verb, allowance, dry_run=dry_run, as_json=as_json)


def run(cluster: Cluster, verb: Verb, allowance: Allowance, *, dry_run: bool, as_json: bool) -> None:
    """Carry out a verb, or print its plan, and show the report."""
    from redisforge.cli.output import finished_steps_only, print_json, print_lock_notices, print_plan
    from redisforge.runbooks.change import change, plan_change

    if dry_run:
        print_lock_notices(cluster.layout, verb.name, cluster.topology)  # it may be why the plan is refused
        print_plan(plan_change(cluster, verb), as_json=as_json)
        if not as_json:
            for notice in verb.notices:
                typer.echo(f"  {notice}")
        return
    report = change(cluster, verb, allowance, finished_steps_only)
    if as_json:
        print_json(report)
    else:
        show(report)


def confirm(cluster: Cluster, verb: Verb, question: str | Callable[[Plan], str], *, as_json: bool) -> None:
    """Show the plan of a verb and ask whether to go on; nothing is asked where there is nothing to do (a host that is
    taken out is something), or where the plan, which the question may depend on, leaves no question.

    What is refused is refused before anybody is asked. Raises as `plan_change`, and typer.Abort for a no.
    """
    from redisforge.cli.output import print_plan
    from redisforge.runbooks.change import plan_change

    plan = plan_change(cluster, verb)
    if not isinstance(question, str):
        question = question(plan)
    if not (plan.phases or (plan.records and verb.undeclares)) or not question:
        return
    if not as_json:
        print_plan(plan, as_json=False)
        for notice in verb.notices:
            typer.echo(f"  {notice}")
    typer.confirm(question, abort=True, err=as_json)


def show(report: ChangeReport) -> None:
    """The report in a line or two."""
    outcome = f"done in {report.seconds:.2f} s" if report.phases or report.recorded else "nothing to do"
    typer.echo(f"{report.cluster}: {f'{report.verb} {report.what}'.rstrip()}: {outcome}")
    for notice in report.notices:
        typer.echo(f"  {notice}")
    if report.probe:
        probe = report.probe
        lost = [f"lost: {text}" for text in probe.first_lost]
        errors = [f"error: {text}" for text in probe.first_errors]
        for line in (str(probe), *probe.notices, *lost, *errors):
            typer.echo(f"  {line}")
