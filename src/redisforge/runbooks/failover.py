"""`failover`: the replica that is most in sync takes a master's place."""

from __future__ import annotations

from redisforge.model.facts import Facts
from redisforge.model.topology import Topology
from redisforge.plan.failover import Failover, Mode, failover_phase, roles_phase, why_nothing
from redisforge.plan.named import named_node
from redisforge.plan.predict import Planner
from redisforge.plan.ready import refuse_silent
from redisforge.plan.starting import Wishes
from redisforge.runbooks.change import Verb


def failover_verb(node: str, *, heir: str = "", mode: Mode = "handover") -> Verb:
    """Move the slots of `node` to one of its replicas (`heir`, if one is named)."""
    notices: list[str] = []

    def planner(topology: Topology, facts: Facts, _: Wishes) -> Planner:
        refuse_silent(topology, facts)
        named = named_node(topology, facts, node).name
        notices[:] = filter(None, [why_nothing(topology, facts, named)])
        to = named_node(topology, facts, heir).name if heir else ""
        wanted = Failover(node=named, heir=to, mode=mode)
        return lambda seen: failover_phase(topology, seen, wanted)

    what = f"{node}{f' --to {heir}' if heir else ''}{'' if mode == 'handover' else f' --{mode}'}"
    return Verb(name="failover", what=what, planner=planner, keeps_nodes=True, notices=notices)


def roles_verb() -> Verb:
    """Spread the masters over zones and hosts by planned failovers, one after the other."""

    def planner(topology: Topology, facts: Facts, _: Wishes) -> Planner:
        refuse_silent(topology, facts)
        return lambda seen: roles_phase(topology, seen)

    return Verb(name="rebalance", what="--roles", planner=planner)
