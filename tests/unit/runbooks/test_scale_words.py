"""What `scale --shards` says in a cluster that somebody else runs: what to do instead, in commands that there are."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from msgspec.structs import replace
from test_status_report import TOPOLOGY

from redisforge.cli.main import command_line
from redisforge.errors import NodeError, UsageError
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.topology import ExternalAccess
from redisforge.plan.starting import Wishes
from redisforge.runbooks.scale import Newcomer, Options, add_verb, scale_verb

ADOPTED = replace(TOPOLOGY, access=ExternalAccess(tls=False), source="/srv/redisforge.yaml")


def parsed(command: str) -> dict[str, object]:
    """The values of `redisforge scale COMMAND …` as its own parser reads them. Raises click's errors."""
    program, verb, name, *words = shlex.split(command)
    assert (program, verb) == ("redisforge", "scale")
    group = typer.main.get_command(command_line()).commands["scale"]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]
    return dict(group.commands[name].make_context(name, words).params)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]


def test_an_adopted_cluster_is_scaled_node_by_node() -> None:
    target = scale_verb(4, 1, Options()).target
    with pytest.raises(UsageError) as caught:
        target(ADOPTED, Facts(observed_at_s=0.0))
    said = caught.value
    assert (said.where, "somebody else runs" in said.why) == (ADOPTED.source, True)
    assert ADOPTED.name in said.what
    commands = re.findall(r"`(redisforge [^`]*)`", said.next_step)
    shard, replica, less = (parsed(command) for command in commands)
    assert (shard["node"], shard["role"], replica["role"]) == ("HOST:PORT", "master", "replica")
    assert less["node"] == "NODE"


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (None, "TLS, a certificate of this cluster's CA, cluster-enabled yes, and the cluster's ACL users"),
        (ExternalAccess(tls=False, password=False), "it must listen there with cluster-enabled yes"),
        (ExternalAccess(tls=False), "cluster-enabled yes, and the user and password of the others (default)"),
        (
            ExternalAccess(tls=True, user="ops"),
            "TLS, a certificate of this cluster's CA, cluster-enabled yes, and the ",
        ),
    ],
)
def test_a_new_node_needs_what_the_others_have(access: ExternalAccess | None, words: str) -> None:
    topology = replace(TOPOLOGY, access=access)
    here = topology.nodes[0]
    silent = NodeFacts(name=here.name, address=here.address, port=here.port, problem="connection refused")
    facts = Facts(observed_at_s=0.0, nodes={here.name: silent})
    newcomer = Newcomer(address=here.address, port=here.port, role="replica")
    with pytest.raises(NodeError) as caught:
        add_verb(newcomer, Options()).planner(topology, facts, Wishes())
    assert words in caught.value.next_step
    assert ("TLS" in caught.value.next_step) is (access is None or access.tls)
