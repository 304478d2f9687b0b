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
    YesOption,
    the_cluster,
)

LeaveForceOption = Annotated[
    bool,
    typer.Option("--force", help="Also where a host gets two copies of a shard, or half of the masters."),
]
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="A host by its name or address.")]


def register(host: typer.Typer) -> None:
    """Add the commands to `host`."""
    maintenance = typer.Typer(
        help="A host that is about to be down for a while has no masters, and gets none.", no_args_is_help=True
    )
    maintenance.command("enter")(enter)
    maintenance.command("exit")(exit_)
    host.add_typer(maintenance, name="maintenance")
    host.command("drain")(drain)
    host.command("remove")(remove)
    host.command("replace")(replace)


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
    from redisforge.runbooks.host_change import enter_verb
    from redisforge.runbooks.watch import Allowance

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
    from redisforge.runbooks.host_change import exit_verb
    from redisforge.runbooks.watch import Allowance

    run(the_cluster(cluster), exit_verb(host), Allowance(), dry_run=dry_run, as_json=as_json)


def drain(
    host: HostArgument,
    force: LeaveForceOption = False,
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Empty a host of nodes: its masters hand over, and its copies are made anew on other hosts.

    Where they have no room, it says what is missing and nothing is begun. The host stays in maintenance, and its Envoy
    goes on; `host remove` takes the host out altogether.
    """
    from redisforge.cli.change import confirm, run
    from redisforge.runbooks.host_change import drain_verb
    from redisforge.runbooks.host_room import ways_out
    from redisforge.runbooks.watch import Allowance

    found = the_cluster(cluster)
    verb = drain_verb(host, ways_out(found, force=force))
    if not (yes or dry_run):
        confirm(found, verb, f"Make the copies on {host} anew elsewhere and delete its nodes?", as_json=as_json)
    run(found, verb, Allowance(probe=probe, abort_over_ms=abort_over), dry_run=dry_run, as_json=as_json)


def remove(
    host: HostArgument,
    force: LeaveForceOption = False,
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take a host out of the cluster, and out of redisforge.yaml: `drain`, then its Envoys move, too.

    The host may be lost: then its nodes are forgotten, and their copies are made anew on other hosts.
    """
    from redisforge.cli.change import confirm, run
    from redisforge.runbooks.host_change import remove_verb
    from redisforge.runbooks.host_room import left_before, ways_out
    from redisforge.runbooks.watch import Allowance

    found = the_cluster(cluster)
    how = ways_out(found, force=force)
    verb = remove_verb(host, how, removed_before=lambda: left_before(found, host, f"remove {host}"))
    if not (yes or dry_run):
        confirm(found, verb, f"Take {host} out of {found.topology.name} and delete all on it?", as_json=as_json)
    run(found, verb, Allowance(probe=probe, abort_over_ms=abort_over), dry_run=dry_run, as_json=as_json)


def replace(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The host that leaves; it may be lost.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="A host that redisforge.yaml declares.")],
    force: LeaveForceOption = False,
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let another host take the place of one that is lost, or is to go.

    Declare NEW under hosts: in redisforge.yaml first. Its nodes join, copy the shards that OLD had a part in, masters
    are spread evenly again, and OLD is forgotten and taken out of redisforge.yaml.
    """
    from redisforge.cli.change import confirm, run
    from redisforge.runbooks.host_change import replace_verb
    from redisforge.runbooks.host_room import declared_hosts, left_before, ways_out
    from redisforge.runbooks.watch import Allowance

    found = the_cluster(cluster)
    verb = replace_verb(
        old, new, ways_out(found, force=force, with_host=new),
        declared=declared_hosts(found),
        replaced_before=lambda: left_before(found, old, f"replace {old} {new}"),
    )  # fmt: skip
    if not (yes or dry_run):
        confirm(found, verb, f"Let {new} take the place of {old}, and delete all on {old}?", as_json=as_json)
    run(found, verb, Allowance(probe=probe, abort_over_ms=abort_over), dry_run=dry_run, as_json=as_json)
