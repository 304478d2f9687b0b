"""Which node is meant: by name, id, a unique beginning of either, or host:port.

The beginning of a name ends before a number or behind it, never inside: redis-1 does not mean redis-10, or who repeats
the removal of redis-1 would lose redis-10.
"""

from __future__ import annotations

import re

from redisforge.errors import NotFoundError, UsageError
from redisforge.model.facts import Facts
from redisforge.model.topology import RedisNode, Topology

LEAST_OF_ID = 4
_ID_BEGINNING = re.compile(rf"[0-9a-fA-F]{{{LEAST_OF_ID},40}}")
"""An id is 40 hexadecimal digits (cluster.h, CLUSTER_NAMELEN). Fewer than four are more likely a slip than meant."""


def named_node(topology: Topology, facts: Facts, text: str) -> RedisNode:
    """The node that `text` means.

    Raises:
        NotFoundError: none; lists the nodes.
        UsageError: the beginning of several names or ids; lists those.
    """
    for node in topology.nodes:
        if text in (node.name, f"{node.address}:{node.port}", facts.nodes[node.name].id or None):
            return node
    found = [node for node in topology.nodes if _begins(node, facts.nodes[node.name].id, text)]
    if len(found) > 1:
        listed = ", ".join(f"{node.name} ({facts.nodes[node.name].id[:8] or '-'})" for node in found)
        raise UsageError(f"{text!r} means several nodes", why=listed, next_step="write more of the name or id")
    if not found:
        names = ", ".join(node.name for node in topology.nodes)
        too_short = re.fullmatch(rf"[0-9a-fA-F]{{1,{LEAST_OF_ID - 1}}}", text) is not None
        raise NotFoundError(
            f"no node called {text!r}",
            where=topology.name,
            why=f"the beginning of an id counts from {LEAST_OF_ID} characters on" if too_short else "",
            next_step=f"the nodes are: {names}",
        )
    return found[0]


def with_address(node: RedisNode) -> str:
    """`redis-1 (10.0.0.1:7000)`; a node whose name is its address has that once."""
    address = f"{node.address}:{node.port}"
    return address if node.name == address else f"{node.name} ({address})"


def _begins(node: RedisNode, node_id: str, text: str) -> bool:
    if not text:
        return False
    cuts_number = text[-1].isdigit() and node.name[len(text) :][:1].isdigit()
    by_id = _ID_BEGINNING.fullmatch(text) is not None and node_id.startswith(text.lower())
    return by_id or (node.name.startswith(text) and not cuts_number)
