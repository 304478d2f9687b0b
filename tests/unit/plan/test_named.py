"""Which node an operator means."""

from __future__ import annotations

import pytest
from edits import node_with
from msgspec.structs import replace
from topologies import formed, make_topology

from redisforge.errors import NotFoundError, UsageError
from redisforge.model.facts import Facts
from redisforge.plan.named import named_node, with_address

TOPOLOGY = make_topology(5, 1)


def facts_with_ids() -> Facts:
    """redis-1 and redis-2 have ids that begin alike."""
    facts = formed(TOPOLOGY)
    for name, node_id in (("redis-1", "abcd1" * 8), ("redis-2", "abcd2" * 8)):
        facts = node_with(name, id=node_id)(TOPOLOGY, facts)
    return facts


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("redis-1", "redis-1"),  # though redis-10 begins so too
        ("redis-10", "redis-10"),
        ("127.0.0.1:7003", "redis-3"),
        ("abcd1", "redis-1"),
        ("ABCD2", "redis-2"),
        ("abcd1" * 8, "redis-1"),
    ],
)
def test_found(text: str, name: str) -> None:
    assert named_node(TOPOLOGY, facts_with_ids(), text).name == name


@pytest.mark.parametrize("text", ["", "redis-11", "abc", "127.0.0.1", "envoy-1"])
def test_not_found(text: str) -> None:
    with pytest.raises(NotFoundError, match="the nodes are: redis-1, "):
        named_node(TOPOLOGY, facts_with_ids(), text)


def test_a_number_is_not_the_beginning_of_a_longer_one() -> None:
    """Once redis-1 has been removed, its name means nobody."""
    left = TOPOLOGY.nodes[1:]
    assert left[-1].name == "redis-10"
    with pytest.raises(NotFoundError):
        named_node(replace(TOPOLOGY, nodes=left), facts_with_ids(), "redis-1")
    alone = replace(TOPOLOGY, nodes=left[-1:])
    assert named_node(alone, facts_with_ids(), "redis-").name == "redis-10"


@pytest.mark.parametrize("text", ["redis-", "abcd", "r"])
def test_ambiguous(text: str) -> None:
    with pytest.raises(UsageError, match=r"redis-1 \(abcd1abc\), redis-2 \(abcd2abc\)"):
        named_node(TOPOLOGY, facts_with_ids(), text)


def test_a_beginning_of_an_id_that_is_too_short_is_explained() -> None:
    with pytest.raises(NotFoundError) as raised:
        named_node(TOPOLOGY, facts_with_ids(), "abc")
    assert raised.value.why == "the beginning of an id counts from 4 characters on"
    with pytest.raises(NotFoundError) as raised:
        named_node(TOPOLOGY, facts_with_ids(), "envoy-1")
    assert raised.value.why == ""


def test_a_node_whose_name_is_its_address_has_that_once() -> None:
    node = TOPOLOGY.node("redis-3")
    assert with_address(node) == "redis-3 (127.0.0.1:7003)"
    assert with_address(replace(node, name="127.0.0.1:7003")) == "127.0.0.1:7003"
