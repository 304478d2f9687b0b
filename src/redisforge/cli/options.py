"""Options that several commands share, spelled the same everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from redisforge.model.layout import ClusterLayout
    from redisforge.runbooks.cluster import Cluster

ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", "-c", metavar="NAME", help="The cluster; needed only if there are several."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-f", metavar="FILE", help="The topology; default: redisforge.yaml here, else built in."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")]
ProbeOption = Annotated[
    bool,
    typer.Option("--probe", help="Write and read through the endpoint meanwhile, and report what clients noticed."),
]
AbortOption = Annotated[
    int | None,
    typer.Option(
        "--abort-over",
        metavar="MS",
        min=1,
        help="Stop at the next safe point when clients noticed a gap of more milliseconds. Implies --probe.",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Go on where that means an interruption.")]


def the_cluster(name: str | None) -> Cluster:
    """The cluster that is meant: --cluster, else the one that redisforge.yaml here declares, else the only one."""
    from redisforge.runbooks.cluster import declared_name, home_folder, open_cluster

    return open_cluster(home_folder(os.environ), name or declared_name(Path.cwd()))


def the_layout(name: str | None) -> ClusterLayout:
    """The folder of the cluster that is meant, chosen as `the_cluster` does; it need not have come up."""
    from redisforge.runbooks.cluster import declared_name, existing_layout, home_folder

    return existing_layout(home_folder(os.environ), name or declared_name(Path.cwd()))
