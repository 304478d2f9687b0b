"""redisforge scale, rebalance: nodes join and leave, slots and masters go where they should be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redisforge.model.steps import Plan
    from redisforge.runbooks.cluster import Cluster
    from redisforge.runbooks.scale import Options

WeightOption = Annotated[
    list[str] | None,
    typer.Option("--weight", metavar="NODE=W", help="A master's share of the slots beside the others' 1; repeatable."),
]
RateOption = Annotated[
    str, typer.Option("--max-rate", metavar="SIZE", help="Move at most so much a second, such as 50mb.")
]
KeySizeOption = Annotated[
    str,
    typer.Option(
        "--max-key-size",
        metavar="SIZE",
        help="Engines without atomic slot migration: leave slots with a bigger key where they are. Default: 64mb.",
    ),
]

scale_app = typer.Typer(rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(scale_app, name="scale")
    app.command("rebalance")(rebalance)


@scale_app.callback(invoke_without_command=True)
def scale(
    context: typer.Context,
    shards: Annotated[int | None, typer.Option("--shards", min=1, help="Masters; default: as declared.")] = None,
    replicas: Annotated[
        int | None, typer.Option("--replicas", min=0, max=5, help="Replicas of each; default: as declared.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also the last replica of every shard (--replicas 0).")
    ] = False,
    weight: WeightOption = None,
    max_rate: RateOption = "",
    max_key_size: KeySizeOption = "",
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Change the number of nodes that RedisForge runs, while clients go on.

    New nodes start, join and get their share of the slots; what leaves is emptied first. Without options the cluster
    becomes what redisforge.yaml declares. With options the file is changed, too. Before a node is deleted, the plan is
    shown and you are asked.
    """
    if context.invoked_subcommand is not None:
        return
    from redisforge.cli.change import confirm, run
    from redisforge.model.words import counted
    from redisforge.runbooks.scale import scale_verb
    from redisforge.runbooks.watch import Allowance

    found = the_cluster(cluster)
    declared_shards, declared_replicas = _declared_size(found)
    shards = declared_shards if shards is None else shards
    replicas = declared_replicas if replicas is None else replicas
    verb = scale_verb(shards, replicas, _options(weight, max_rate, max_key_size, force=force))
    if not (yes or dry_run) and _is_smaller(found, shards, replicas):
        left = f"{shards} masters with {counted(replicas, 'replica')} each stay."
        confirm(found, verb, lambda plan: scaling_question(found.topology.name, plan, left), as_json=as_json)
    run(found, verb, Allowance(probe=probe, abort_over_ms=abort_over), dry_run=dry_run, as_json=as_json)


@scale_app.command("add")
def add(
    node: Annotated[str, typer.Argument(metavar="HOST:PORT[@ZONE]", help="A running, empty node.")],
    role: Annotated[
        Literal["master", "replica"],
        typer.Option("--role", help="master: gets its share of the slots. replica: protects one that has most need."),
    ] = "replica",
    replica_of: Annotated[
        str, typer.Option("--replica-of", metavar="NODE", help="The master that the replica is for.")
    ] = "",
    zone: Annotated[str, typer.Option("--zone", help="Its failure domain, as @ZONE; default: its address.")] = "",
    weight: WeightOption = None,
    max_rate: RateOption = "",
    max_key_size: KeySizeOption = "",
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add a node that somebody else runs. It needs a certificate of the cluster's CA, and its ACL users.

    `redisforge generate-certs CLUSTER/tls --name NAME` makes a certificate, and users.acl of any node has the users;
    CLUSTER is the cluster's folder.
    """
    from redisforge.cli.change import run
    from redisforge.errors import UsageError
    from redisforge.runbooks.init_cluster import parse_nodes
    from redisforge.runbooks.scale import Newcomer, add_verb
    from redisforge.runbooks.watch import Allowance

    if replica_of and role == "master":
        raise UsageError("a master is no replica", next_step="leave out --replica-of, or give --role replica")
    ((host, port),) = parse_nodes((node,))
    newcomer = Newcomer(address=host.address, port=port, role=role, master=replica_of, zone=zone or host.zone)
    verb = add_verb(newcomer, _options(weight, max_rate, max_key_size))
    allowance = Allowance(probe=probe, abort_over_ms=abort_over)
    run(the_cluster(cluster), verb, allowance, dry_run=dry_run, as_json=as_json)


@scale_app.command("remove")
def remove(
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE", help="A name, an id, host:port, or a beginning (of an id: 4 characters or more)."
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Also the last replica of a shard.")] = False,
    weight: WeightOption = None,
    max_rate: RateOption = "",
    max_key_size: KeySizeOption = "",
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take a node out of the cluster: its slots go to the others first, then it is forgotten and stopped.

    The data folder of a node that RedisForge runs is deleted at the end: everything in it is elsewhere by then. A node
    that somebody else runs is emptied and reset (CLUSTER RESET HARD), and goes on running.
    """
    from redisforge.cli.change import confirm, run
    from redisforge.runbooks.audit import has_worked
    from redisforge.runbooks.scale import remove_verb
    from redisforge.runbooks.watch import Allowance

    found = the_cluster(cluster)
    verb = remove_verb(
        node,
        _options(weight, max_rate, max_key_size, force=force),
        removed_before=lambda: has_worked(found.layout, "scale", f"remove {node}"),
    )
    if not (yes or dry_run):
        confirm(found, verb, lambda plan: removal_question(plan, node, found.topology.name), as_json=as_json)
    run(found, verb, Allowance(probe=probe, abort_over_ms=abort_over), dry_run=dry_run, as_json=as_json)


def removal_question(plan: Plan, node: str, cluster: str) -> str:
    """What somebody else runs is emptied and goes on running; what RedisForge runs is deleted."""
    from redisforge.model.steps import RemoveUnit, Reset

    steps = plan.steps()
    if any(isinstance(step, RemoveUnit) for step in steps):
        return f"Take {node} out of {cluster} and delete it?"
    if any(isinstance(step, Reset) for step in steps):
        return f"Take {node} out of {cluster}, and empty and reset it (CLUSTER RESET HARD)? It goes on running."
    return f"Take {node} out of {cluster}?"


def rebalance(
    roles: Annotated[
        bool,
        typer.Option("--roles", help="Spread the masters over zones and hosts by failovers; no slot moves."),
    ] = False,
    weight: WeightOption = None,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="PCT", min=0.0, help="Move nothing while all are so close to even.")
    ] = 0.0,
    max_rate: RateOption = "",
    max_key_size: KeySizeOption = "",
    cluster: ClusterOption = None,
    probe: ProbeOption = False,
    abort_over: AbortOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Move the fewest slots so that every master has its share."""
    from redisforge.cli.change import run
    from redisforge.runbooks.failover import roles_verb
    from redisforge.runbooks.scale import rebalance_verb
    from redisforge.runbooks.watch import Allowance

    options = _options(weight, max_rate, max_key_size)
    if roles:
        _refuse_beside_roles(
            {"--weight": weight, "--threshold": threshold, "--max-rate": max_rate, "--max-key-size": max_key_size}
        )
    verb = roles_verb() if roles else rebalance_verb(threshold, options)
    allowance = Allowance(probe=probe, abort_over_ms=abort_over)
    run(the_cluster(cluster), verb, allowance, dry_run=dry_run, as_json=as_json)


def _refuse_beside_roles(others: Mapping[str, object]) -> None:
    from redisforge.errors import UsageError

    if given := [option for option, value in others.items() if value]:
        raise UsageError(
            f"--roles moves no slot, so {' and '.join(given)} would do nothing",
            next_step="run `redisforge rebalance` twice: once with --roles, once with the other options",
        )


def _options(weights: list[str] | None, max_rate: str, max_key_size: str, *, force: bool = False) -> Options:
    from redisforge.errors import UsageError
    from redisforge.runbooks.moving import MoveLimits
    from redisforge.runbooks.scale import Options

    given: dict[str, float] = {}
    for text in weights or ():
        name, separator, number = text.rpartition("=")
        try:
            given[name] = float(number)
        except ValueError:
            separator = ""
        if not separator or not name:
            raise UsageError(f"not a weight: {text!r}", next_step="write NODE=W, such as --weight redis-4=2")
    rate = _size("--max-rate", max_rate)
    if rate == 0:
        raise UsageError(f"--max-rate {max_rate} would move nothing", next_step="leave --max-rate out for no limit")
    key_size = _size("--max-key-size", max_key_size)
    limits = MoveLimits(
        max_rate_bytes_s=None if rate is None else float(rate),
        max_key_bytes=MoveLimits().max_key_bytes if key_size is None else key_size,
    )
    return Options(weights=given, force=force, limits=limits)


def _size(option: str, text: str) -> int | None:
    """What an option says, in bytes; None where it was not given."""
    from redisforge.config.values import size_bytes
    from redisforge.errors import UsageError

    if not text:
        return None
    try:
        return size_bytes(text)
    except ValueError as error:
        raise UsageError(
            f"{option} {text} is not a size: it {error}",
            next_step=f"write a number with kb, mb or gb, such as {option} 50mb",
        ) from error


def _declared_size(cluster: Cluster) -> tuple[int, int]:
    """What redisforge.yaml declares now; without a file, what the cluster was last made to be."""
    from redisforge.config.load import load

    source = cluster.topology.source
    if not source:
        return cluster.topology.shards, cluster.topology.replicas
    topology = load(Path(source), os.environ, Path.cwd()).topology
    return topology.shards, topology.replicas


def _is_smaller(cluster: Cluster, shards: int, replicas: int) -> bool:
    """Whether nodes may have to go; those that a run which was cut off has left are still among the nodes."""
    topology = cluster.topology
    surplus = len(topology.nodes) > shards * (replicas + 1)
    return surplus or shards < topology.shards or replicas < topology.replicas


def scaling_question(name: str, plan: Plan, left: str) -> str:
    """What is asked before nodes go, with the name of each whose data is deleted; empty where none goes."""
    from redisforge.model.steps import RemoveUnit, Reset

    deleted = list(dict.fromkeys(step.unit for step in plan.steps() if isinstance(step, RemoveUnit)))
    emptied = dict.fromkeys(step.node for step in plan.steps() if isinstance(step, Reset) and step.node not in deleted)
    parts = [f"delete {_counted(deleted)} with all data on {'it' if len(deleted) == 1 else 'them'}"] if deleted else []
    parts += [f"empty {_counted(list(emptied))}, which somebody else runs"] if emptied else []
    return f"{left} Take nodes out of {name}: {' and '.join(parts)}?" if parts else ""


def _counted(names: list[str]) -> str:
    from redisforge.model.words import counted

    return f"{counted(len(names), 'node')} ({', '.join(names)})"
