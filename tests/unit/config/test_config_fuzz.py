"""Whatever the files and the environment hold: a topology, or an error for users. Never anything else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from redisforge.config.environment import known_names
from redisforge.config.load import load
from redisforge.config.reference import example_yaml
from redisforge.config.schema import Declaration
from redisforge.errors import RedisForgeError
from redisforge.model.slots import SLOT_COUNT

_OPTION_NAMES = sorted({*Declaration.model_fields, *(
    name
    for field in Declaration.model_fields.values()
    for name in getattr(field.annotation, "model_fields", {})
), "name", "address", "zone", "port", "kind", "protocol", "user_role", "primary", "reader"})  # fmt: skip

_words = st.one_of(st.sampled_from(_OPTION_NAMES), st.text(max_size=8))
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.integers(0, 70000),
    st.floats(allow_nan=True),
    st.text(max_size=12),
    st.sampled_from(["newest", "8.6", ">=8.2", "256mb", "127.0.0.2", "::1", "always", "RESP3", "no"]),
)
_trees = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words, inner, max_size=5), max_leaves=20
)
_declarations = st.dictionaries(st.sampled_from(list(Declaration.model_fields)), _trees, max_size=6)

_sensible: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "shards": st.integers(1, 12),
        "replicas": st.integers(0, 5),
        "ports": st.fixed_dictionaries({"redis": st.integers(1, 65535)}),
        "envoy": st.fixed_dictionaries({"instances": st.integers(1, 6), "admin_port": st.integers(1, 65535)}),
        "hosts": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from("abcdef"),
                    "address": st.sampled_from(["127.0.0.1", "127.0.0.2", "127.0.0.3", "localhost", "::1"]),
                    "zone": st.sampled_from("xyz"),
                }
            ),
            min_size=1,
            max_size=6,
        ),
        "endpoints": st.dictionaries(
            st.sampled_from(["primary", "reader", "pubsub", "mine"]),
            st.none() | st.fixed_dictionaries({"port": st.integers(1, 65535)}),
        ),
    },
)


def _outcome(content: bytes, dotenv: bytes | None = None, environment: dict[str, str] | None = None) -> Any:
    """The topology or the error; any other exception fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "redisforge.yaml").write_bytes(content)
        if dotenv is not None:
            (Path(folder) / ".env").write_bytes(dotenv)
        try:
            found: Any = load(None, environment or {}, Path(folder)).topology
        except RedisForgeError as error:
            str(error).encode()  # can be shown
            found = error
    return found


def _is_expected(outcome: Any) -> bool:
    return bool(outcome.why) if isinstance(outcome, RedisForgeError) else len(outcome.nodes) >= 3


@given(_declarations)
@settings(deadline=None, max_examples=200)
def test_any_tree_of_values(data: dict[str, Any]) -> None:
    assert _is_expected(_outcome(yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass")))


@given(_trees)
@settings(deadline=None, max_examples=100)
def test_any_json(data: Any) -> None:
    assert _is_expected(_outcome(json.dumps(data).encode()))


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_any_bytes(content: bytes) -> None:
    assert _is_expected(_outcome(content))


@given(st.text(alphabet="ab:-?[]{}&*!|>'\"#%@` \n\t,<0.~\\é", max_size=60))
@settings(deadline=None, max_examples=400)
def test_any_text_of_yamls_own_characters(text: str) -> None:
    assert _is_expected(_outcome(text.encode()))


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_the_example_with_a_piece_replaced(data: st.DataObject) -> None:
    text = example_yaml()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    piece = data.draw(st.text(max_size=20))
    assert _is_expected(_outcome((text[:start] + piece + text[end:]).encode("utf-8", "replace")))


@given(st.binary(max_size=200) | st.text(alphabet="AB='\"\\\n #$x", max_size=60).map(str.encode))
@settings(deadline=None, max_examples=200)
def test_any_dotenv(content: bytes) -> None:
    assert _is_expected(_outcome(b"name: x\n", content))


@given(
    st.dictionaries(
        st.sampled_from(known_names()) | st.text(max_size=5),
        st.text(max_size=20) | st.integers(0, 70000).map(str) | st.sampled_from(["8.2", "no", "256mb", "\udcff"]),
    ),
    _declarations,
)
@settings(deadline=None, max_examples=200)
def test_any_environment(environment: dict[str, str], data: dict[str, Any]) -> None:
    content = yaml.safe_dump(data).encode()
    assert _is_expected(_outcome(content, None, environment))


@given(_sensible)
@settings(deadline=None, max_examples=200)
def test_a_valid_topology_keeps_its_promises(data: dict[str, Any]) -> None:
    """No two sockets on one port, every port below 65536, every shard complete, one user for each role."""
    topology = _outcome(yaml.safe_dump(data).encode())
    if isinstance(topology, RedisForgeError):
        assert topology.why
        return
    sockets = [(node.address, port) for node in topology.nodes for port in (node.port, node.bus_port)]
    sockets += [(at.address, at.port) for endpoint in topology.endpoints for at in endpoint.listeners]
    sockets += [("127.0.0.1", envoy.admin_port) for envoy in topology.envoys]
    assert len(set(sockets)) == len(sockets)
    assert all(0 < port < 65536 for _, port in sockets)
    members = [node.shard for node in topology.nodes]
    assert sorted(members) == sorted(list(range(topology.shards)) * (topology.replicas + 1))
    assert len({user.role for user in topology.users}) == len({user.name for user in topology.users}) == 6
    assert topology.shards <= SLOT_COUNT
