"""The generated pages: up to date, complete, and in agreement with what is accepted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from redisforge.config import environment
from redisforge.config.environment import known_names
from redisforge.config.load import load
from redisforge.config.reference import (
    environment_markdown,
    example_yaml,
    json_schema,
    json_schema_text,
    reference_markdown,
)
from redisforge.config.schema import Declaration, Options
from redisforge.config.yaml_lines import read_yaml
from redisforge.errors import ConfigError

DOCS = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.md", reference_markdown()),
        ("env.md", environment_markdown()),
        ("redisforge.schema.json", json_schema_text()),
        ("redisforge.example.yaml", example_yaml()),
    ],
)
def test_the_generated_pages_are_up_to_date(name: str, text: str) -> None:
    assert (DOCS / name).read_text() == text


def test_the_example_loads_to_the_built_in_topology(tmp_path: Path) -> None:
    built_in = load(None, {}, tmp_path).topology
    (tmp_path / "redisforge.yaml").write_text(example_yaml())
    loaded = load(None, {}, tmp_path)
    assert msgspec.structs.replace(loaded.topology, source="") == built_in
    assert loaded.notices == ()


def test_an_example_of_other_values_loads_to_them(tmp_path: Path) -> None:
    declaration = Declaration.model_validate(
        {
            "name": "other",
            "engine": {"version": "8.10"},
            "hosts": [{"name": "a", "address": "127.0.0.7"}, {"name": "b", "address": "::1", "zone": "no"}],
            "redis_conf": {"hz": 20, "notify-keyspace-events": "", "loadmodule": ["a.so x", "b.so"]},
            "endpoints": {"reader": None, "mine": {"port": 7}},
            "tls": {"extra_names": ["a.example", "10.0.0.1"]},
        }
    )
    (tmp_path / "redisforge.yaml").write_text(example_yaml(declaration))
    topology = load(None, {}, tmp_path).topology
    assert (topology.name, topology.engine.version) == ("other", "8.10")
    assert [(host.address, host.zone) for host in topology.hosts] == [("127.0.0.7", "a"), ("::1", "no")]
    assert topology.redis.directives == (
        ("hz", "20"),
        ("notify-keyspace-events", '""'),
        ("loadmodule", "a.so x"),
        ("loadmodule", "b.so"),
    )
    assert [endpoint.name for endpoint in topology.endpoints] == ["primary", "primary-resp3", "pubsub", "mine"]
    assert topology.tls.extra_names == ("a.example", "10.0.0.1")


def test_the_defaults_are_valid_values() -> None:
    document = read_yaml(example_yaml().encode())
    validated = Declaration.model_validate(document.data)
    unset = {"hosts", "placement"}
    assert validated.model_dump(exclude=unset) == Declaration().model_dump(exclude=unset)


def test_every_option_is_described_in_page_and_example() -> None:
    page, example = reference_markdown(), example_yaml()
    for name, field in Declaration.model_fields.items():
        inner: dict[str, Any] = getattr(field.annotation, "model_fields", {})
        for option in (name, *inner):
            assert f"{option}" in page
            assert f"{option}:" in example
        if isinstance(field.annotation, type) and issubclass(field.annotation, Options):
            assert all(part.description for part in inner.values())
        else:
            assert field.description


def test_every_variable_is_listed() -> None:
    page = environment_markdown()
    assert [name for name in known_names() if f"`{name}`" not in page] == []


DOCUMENTS: dict[str, dict[str, Any]] = {
    "empty": {},
    "sections without content": {"memory": None, "endpoints": None},
    "a part of a default endpoint": {"endpoints": {"primary": {"port": 1}, "reader": {"protocol": "RESP3"}}},
    "an endpoint switched off": {"endpoints": {"reader": None}},
    "an own endpoint": {"endpoints": {"mine": {"port": 1}}},
    "a version as a number": {"engine": {"version": 8.6}},
    "directives": {"redis_conf": {"hz": 10, "save": ["a", True]}},
    "unknown key": {"shard": 3},
    "two shards": {"shards": 2},
    "a wrong type": {"replicas": "1"},
    "a wrong choice": {"memory": {"policy": "lru"}},
    "an own endpoint without a port": {"endpoints": {"mine": {"kind": "pubsub"}}},
    "primary switched off": {"endpoints": {"primary": None}},
    "no hosts": {"hosts": []},
    "a host without an address": {"hosts": [{"name": "a"}]},
    "a password": {"users": {"monitor": {"name": "x", "password": "y"}}},
}


def _schema_errors(data: Any) -> list[str]:
    validator: Any = jsonschema.Draft202012Validator
    validator.check_schema(json_schema())
    return [error.message for error in validator(json_schema()).iter_errors(data)]


@pytest.mark.parametrize("data", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_the_json_schema_accepts_what_the_declaration_accepts(data: dict[str, Any]) -> None:
    from pydantic import ValidationError

    errors = _schema_errors(data)
    try:
        Declaration.model_validate(data)
    except ValidationError:
        assert errors
    else:
        assert errors == []


def test_the_example_follows_the_json_schema() -> None:
    document = read_yaml(example_yaml().encode())
    assert _schema_errors(document.data) == []


def test_an_error_names_the_option_as_the_page_does(tmp_path: Path) -> None:
    (tmp_path / "redisforge.yaml").write_text("persistence: {mode: disk}\n")
    with pytest.raises(ConfigError) as caught:
        load(None, {}, tmp_path)
    assert "persistence.mode: must be one of aof, rdb, none" in caught.value.problems[0]


def test_every_variable_that_the_tool_itself_goes_by_is_listed() -> None:
    declared = Path(environment.__file__)
    files = [path for path in declared.parents[1].rglob("*.py") if path != declared]
    used = {name for path in files for name in re.findall(r"\bREDISFORGE_[A-Z_]+\b", path.read_text())}
    assert used == set(environment.TOOL_VARIABLES)
    assert "REDISFORGE_LOST_HOSTS" in used
    page = environment_markdown()
    assert all(f"| `{name}` | " in page for name in used)
    assert not used & set(known_names()), "they are not read from .env"
