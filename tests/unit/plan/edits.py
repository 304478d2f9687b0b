"""Facts with something changed, for tables of cases."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace
from topologies import silent

from redisforge.model.facts import Facts, NodeFacts, PeerView, UnitFacts, UnitState
from redisforge.model.topology import Topology

Edit = Callable[[Topology, Facts], Facts]
"""A change of the facts of a topology."""


def put(facts: Facts, node: NodeFacts) -> Facts:
    """The facts with this node instead of the one of the same name."""
    return replace(facts, nodes={**facts.nodes, node.name: node})


def node_with(name: str, **changes: object) -> Edit:
    """Other facts of one node."""
    return lambda _, facts: put(facts, replace(facts.nodes[name], **changes))


def line_with(name: str, about: str = "", **changes: object) -> Edit:
    """Another line in the CLUSTER NODES of node `name`: the one about `about`, or else its own."""

    def edit(_: Topology, facts: Facts) -> Facts:
        node = facts.nodes[name]
        wanted = facts.nodes[about or name].id
        peers = tuple(replace(peer, **changes) if peer.id == wanted else peer for peer in node.peers)
        return put(facts, replace(node, peers=peers))

    return edit


def every_line_with(about: str, **changes: object) -> Edit:
    """Another line about `about` in everybody's CLUSTER NODES, its own included."""

    def edit(topology: Topology, facts: Facts) -> Facts:
        for name in facts.nodes:
            facts = line_with(name, about, **changes)(topology, facts)
        return facts

    return edit


def also_listing(name: str, peer: PeerView) -> Edit:
    """One more line in the CLUSTER NODES of node `name`."""
    return lambda _, facts: put(facts, replace(facts.nodes[name], peers=(*facts.nodes[name].peers, peer)))


def unit_with(name: str, **changes: object) -> Edit:
    """Other facts of one Unit."""
    return lambda _, facts: replace(facts, units={**facts.units, name: replace(facts.units[name], **changes)})


def envoy_with(name: str, **changes: object) -> Edit:
    """Other facts of one Envoy."""
    return lambda _, facts: replace(facts, envoys={**facts.envoys, name: replace(facts.envoys[name], **changes)})


def gone(name: str, state: UnitState = UnitState.STOPPED, reason: str = "") -> Edit:
    """The node cannot be asked, and its Unit is in this state; the others have not noticed."""

    def edit(topology: Topology, facts: Facts) -> Facts:
        unit = replace(facts.units.get(name, UnitFacts(name=name, state=state)), state=state, reason=reason)
        facts = replace(facts, units={**facts.units, name: unit})
        return put(facts, silent(topology.node(name)))

    return edit


def blank(name: str, **changes: object) -> Edit:
    """In the node's place runs one that knows nobody, under a new id."""

    def edit(topology: Topology, facts: Facts) -> Facts:
        return put(facts, blank_node(topology, name, **changes))

    return edit


def blank_node(topology: Topology, name: str, **changes: object) -> NodeFacts:
    """A node that knows nobody; `changes` are of the node."""
    node = topology.node(name)
    myself = PeerView(id=f"blank-{name}", address=node.address, port=node.port, flags=("myself", "master"))
    facts = NodeFacts(
        name=name, address=node.address, port=node.port, id=myself.id, peers=(myself,), cluster_state="fail"
    )
    return replace(facts, **changes)


def all_of(*edits: Edit) -> Edit:
    """One change after another."""

    def edit(topology: Topology, facts: Facts) -> Facts:
        for each in edits:
            facts = each(topology, facts)
        return facts

    return edit


def unchanged(_: Topology, facts: Facts) -> Facts:
    """Nothing changed."""
    return facts
