"""redisforge apply-config: changed settings of redisforge.yaml on a running cluster."""

from __future__ import annotations

import typer

from redisforge.cli.change import run
from redisforge.cli.lifecycle import load_declared
from redisforge.cli.options import (
    AbortOption,
    ClusterOption,
    ConfigOption,
    DryRunOption,
    ForceOption,
    JsonOption,
    ProbeOption,
    the_cluster,
)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("apply-config")(apply_config)


def apply_config(
    config: ConfigOption = None,
    cluster: ClusterOption = None,
    force: ForceOption = False,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring running nodes to the settings of redisforge.yaml: CONFIG SET where that works, else a rolling restart.

    It says which directive went which way. Everything else in the file is left to the verbs that it names.

    On an adopted cluster only what the file itself names is set, and kept by CONFIG REWRITE; nothing restarts.
    """
    from redisforge.cli.output import finished_steps_only
    from redisforge.runbooks.apply_config import apply_config_verb
    from redisforge.runbooks.watch import Allowance

    declared = load_declared(config, cluster).topology
    found = the_cluster(declared.name)
    verb = apply_config_verb(found, declared, finished_steps_only, force=force)
    run(found, verb, Allowance(probe=probe, abort_over_ms=abort_over), dry_run=dry_run, as_json=as_json)
