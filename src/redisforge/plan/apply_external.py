"""Declared settings on nodes that somebody else runs: CONFIG SET, then CONFIG REWRITE, one node at a time.

Their files are their owner's, so only what redisforge.yaml itself names is compared, and what a running server does not
take is not done here: it has to stand in the node's own file before a restart can bring it. Then `words` says so.

No node tells whether its file says what it runs with. So the record does: as long as it does not hold what is declared,
a run may have been cut off between the two commands, and every node saves once more (`ApplyExternal.save_again`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.steps import Gate, Phase, SaveSettings, SetSettings, Step
from redisforge.model.topology import EngineKind, Role, Topology
from redisforge.plan.ready import whole_first
from redisforge.render.directives import settable_directives
from redisforge.render.settings import Difference, differences

_DEADLINE_S = 60.0
_LISTED = 6
_SAVE = "a restart keeps it"
_EMPTY = '""'


class ApplyExternal(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` are declared, by directive. With `save_again` nodes that are as declared write their files too."""

    settings: Mapping[str, str]
    kind: EngineKind
    save_again: bool = False


class ExternalNeed(msgspec.Struct, frozen=True):
    """How a node differs: `told` it takes while it runs, `fixed` only at its start; `untold` it says nothing of."""

    told: tuple[Difference, ...]
    fixed: tuple[Difference, ...]
    untold: tuple[str, ...]


def external_need(node: NodeFacts, wanted: ApplyExternal) -> ExternalNeed:
    """What a node lacks now."""
    running = node.settings or {}
    settable = settable_directives(wanted.kind, node.version).settable
    found = [each for each in differences(wanted.settings, running) if not _is_other_schedule(each)]
    told = tuple(each for each in found if each.name in settable)
    fixed = tuple(each for each in found if each.name not in settable)
    return ExternalNeed(told, fixed, tuple(name for name in wanted.settings if name not in running))


def _is_other_schedule(found: Difference) -> bool:
    """Snapshots at other times than RedisForge would take them: that there are any is all that is declared."""
    return found.name == "save" and bool(found.wanted) and bool(found.running)


def apply_external_phase(topology: Topology, facts: Facts, wanted: ApplyExternal) -> Phase | None:
    """The next phase, or None when every node has been told what it takes, and has saved it where it has a file.

    Raises:
        RefusedError: slots are not served.
    """
    if phase := whole_first(topology, facts):
        return phase
    # Replicas first: a value that a server does not bear should not meet a master.
    for node in sorted(facts.reachable_nodes(), key=lambda node: (node.role is Role.MASTER, node.name)):
        told = () if node.was_told else external_need(node, wanted).told
        steps: list[Step] = []
        if told:
            settings = tuple((each.name, each.wanted) for each in told)
            steps.append(SetSettings(node=node.name, settings=settings, why="it is declared so"))
        if node.config_file and (told or (node.saved is None and (wanted.save_again or node.was_told))):
            steps.append(SaveSettings(node=node.name, why=_SAVE))
        if steps:
            title = f"tell {node.name} its settings" if told else f"let {node.name} save its settings"
            return Phase(title=title, steps=tuple(steps), gate=Gate("settled", _DEADLINE_S))
    return None


def words(topology: Topology, facts: Facts, wanted: ApplyExternal) -> tuple[str, ...]:
    """What a run that begins with `facts` has to say: which directive is set, what no running node takes, and whose
    change a restart would undo."""
    needs = {node.name: external_need(node, wanted) for node in facts.reachable_nodes()}
    told = _by_directive((name, each) for name, need in needs.items() for each in need.told)
    fixed = _by_directive((name, each) for name, need in needs.items() for each in need.fixed)
    untold = dict.fromkeys(directive for need in needs.values() for directive in need.untold)
    fileless = [name for name, need in needs.items() if need.told and not facts.nodes[name].config_file]
    said = [f"{directive}: set on {_listed(topology, found)}" for directive, found in told.items()]
    said += [_fixed(topology, directive, found) for directive, found in fixed.items()]
    said += [f"{directive}: nodes do not tell what they have; see to it in their own files" for directive in untold]
    if fileless:
        said.append(
            f"{_listed(topology, fileless)}: started without a configuration file, so what is set lasts until a "
            "restart; give the same to what starts the server"
        )
    return tuple(said)


def not_saved(facts: Facts) -> tuple[str, ...]:
    """What of a run is not in the nodes' files, as the last facts show it."""
    return tuple(
        f"{node.name}: CONFIG REWRITE was refused ({node.saved}), so what was set lasts until a restart; write it "
        f"into {node.config_file} on its host, or let the server write there and run this again"
        for node in facts.reachable_nodes()
        if node.saved
    )


def _fixed(topology: Topology, directive: str, found: Mapping[str, Difference]) -> str:
    """Only the owner's file and a restart bring it; which, and the command."""
    one = next(iter(found.values()))
    running = ", ".join(dict.fromkeys(each.running or _EMPTY for each in found.values()))
    named = [name for name in found if topology.node(name).service]
    others = [name for name in found if name not in named]
    arguments = () if len(named) == len(topology.nodes) else named
    ways = [f"`{' '.join(('redisforge restart', *arguments))}`"] if named else []
    if others:
        ways.append(f"restart {_listed(topology, others)} by what runs them, a master after `redisforge failover`")
    return (
        f"{directive}: {one.wanted or _EMPTY} is declared, {running} runs on {_listed(topology, found)}, and only a "
        f"start takes it: write it into the nodes' own files, then {'; '.join(ways)}"
    )


def _by_directive(found: Iterable[tuple[str, Difference]]) -> dict[str, dict[str, Difference]]:
    grouped: dict[str, dict[str, Difference]] = {}
    for name, difference in found:
        grouped.setdefault(difference.name, {})[name] = difference
    return grouped


def _listed(topology: Topology, names: Iterable[str]) -> str:
    listed = list(names)
    if len(listed) == len(topology.nodes):
        return "every node"
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return f"{', '.join(listed[:_LISTED])}{more}"


EXTERNAL_VERBS = {
    "engine": "`redisforge upgrade`",
    "shards": "`redisforge scale add`",
    "replicas": "`redisforge scale add`",
    "nodes": "`redisforge up`",
    "hosts": "`redisforge up`",
    "access": "`redisforge up`",
    "tls": "`redisforge up`",
}
"""What else redisforge.yaml may say of such a cluster, and which verb sees to it."""
