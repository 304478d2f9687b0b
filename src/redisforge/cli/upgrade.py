"""redisforge upgrade: another version of the engine under load."""

from __future__ import annotations

from typing import Annotated

import typer

from redisforge.cli.change import confirm, run
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

RedisOption = Annotated[str, typer.Option("--redis", metavar="VERSION", help="Such as 8.6, 8.6.3, >=8.2 or newest.")]
ValkeyOption = Annotated[str, typer.Option("--valkey", metavar="VERSION", help="The same for a cluster of Valkey.")]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("upgrade")(upgrade)


def upgrade(
    redis: RedisOption = "",
    valkey: ValkeyOption = "",
    force: ForceOption = False,
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take the cluster to another version of its engine, one node at a time: replicas first, masters hand over.

    The new version reads a copy of real data before the first node is touched. A node that does not come up with it is
    put back. A newer version is not undone by an older one: that is refused.

    On an adopted cluster its owner brings the program; the nodes are restarted with it by what runs them.
    """
    from redisforge.cli.output import finished_steps_only
    from redisforge.errors import UsageError
    from redisforge.model.topology import Engine
    from redisforge.runbooks.upgrade import upgrade_verb
    from redisforge.runbooks.watch import Allowance

    if bool(redis) == bool(valkey):
        raise UsageError("which version?", next_step="one of --redis VERSION and --valkey VERSION")
    _check_version("--redis" if redis else "--valkey", redis or valkey)
    found = the_cluster(cluster)
    engine = Engine("redis" if redis else "valkey", redis or valkey)
    verb = upgrade_verb(found, engine, finished_steps_only, force=force)
    if not (yes or dry_run):
        question = f"Take {found.topology.name!r} to {engine.kind} {engine.version}? There is no way back."
        confirm(found, verb, question, as_json=as_json)
    run(found, verb, Allowance(probe=probe, abort_over_ms=abort_over), dry_run=dry_run, as_json=as_json)


def _check_version(option: str, text: str) -> None:
    from redisforge.errors import UsageError
    from redisforge.fleet.binaries.versions import NEWEST, parse_rule

    try:
        parse_rule(text, "0")
    except ValueError as error:
        raise UsageError(
            f"{option} {text} is not a version",
            next_step=f"write a version (8.6.3), a series (8.6), a floor (>=8.2) or {NEWEST!r}",
        ) from error
