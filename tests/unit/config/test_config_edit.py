"""One option is changed in a text that people wrote; all else in it stays, letter by letter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redisforge.config.edit import set_option
from redisforge.config.problems import OptionPath
from redisforge.config.yaml_lines import read_yaml


@pytest.mark.parametrize(
    ("text", "path", "value", "expected"),
    [
        ("shards: 3\n", ("shards",), "5", "shards: 5\n"),
        ("shards: 3", ("shards",), "5", "shards: 5\n"),
        ("# a\nshards:   3   # three\nreplicas: 1\n", ("shards",), "5", "# a\nshards:   5   # three\nreplicas: 1\n"),
        ("name: main\n", ("shards",), "5", "name: main\nshards: 5\n"),
        ("", ("shards",), "5", "shards: 5\n"),
        ("engine:\n  kind: redis  # it\n", ("engine", "kind"), "valkey", "engine:\n  kind: valkey  # it\n"),
        ("engine:\n  kind: redis\n", ("engine", "version"), '"8.6"', 'engine:\n  version: "8.6"\n  kind: redis\n'),
        ("shards: 3\n", ("engine", "version"), '"8.6"', 'shards: 3\nengine:\n  version: "8.6"\n'),
        (
            "engine:\n    kind: redis\n",
            ("engine", "version"),
            '"8.6"',
            'engine:\n    version: "8.6"\n    kind: redis\n',
        ),
        (
            "engine:\n # a\n\n      kind: redis\n",
            ("engine", "v"),
            "8",
            "engine:\n      v: 8\n # a\n\n      kind: redis\n",
        ),
        ("a:\n   b:\n     c: 1\nd: 2\n", ("a", "e"), "5", "a:\n   e: 5\n   b:\n     c: 1\nd: 2\n"),
        ("engine:  # it\n", ("engine", "version"), '"8.6"', 'engine:  # it\n  version: "8.6"\n'),
        ("shards: 3\r\nreplicas: 1\r\n", ("shards",), "5", "shards: 5\r\nreplicas: 1\r\n"),
        ("shards: 3  # three\r\n", ("name",), "main", "shards: 3  # three\r\nname: main\r\n"),
        ("\ufeffshards: 3\n", ("shards",), "5", "\ufeffshards: 5\n"),
        ("# only a comment", ("shards",), "5", "# only a comment\nshards: 5\n"),
        ("shards: 3\n...\n", ("replicas",), "1", None),
        ("engine: ~\n", ("engine", "version"), '"8.6"', None),
        ("engine: redis\n", ("engine", "version"), '"8.6"', None),
        ("engine: {kind: redis}\n", ("engine", "kind"), "valkey", "engine: {kind: valkey}\n"),
        (
            'engine: {kind: redis, version: "8.0"}  # version: it\r\n',
            ("engine", "version"),
            '"8.6"',
            'engine: {kind: redis, version: "8.6"}  # version: it\r\n',
        ),
        (
            "engine: {version: '8.0', kind: redis}\n",
            ("engine", "version"),
            '"8.6"',
            'engine: {version: "8.6", kind: redis}\n',
        ),
        ("a: {b: {c: 1}, c: 2}\n", ("a", "c"), "5", None),
        ("a: {b: 'x, c: 1', c: 2}\n", ("a", "c"), "5", None),
        ("engine: {kind: redis}\n", ("engine", "version"), '"8.6"', None),
        ("{shards: 3, replicas: 1}\n", ("shards",), "5", "{shards: 5, replicas: 1}\n"),
        ("a: &n 3\nshards: *n\n", ("shards",), "5", "a: &n 3\nshards: 5\n"),
        ("shards: &n 3\na: *n\n", ("shards",), "5", None),
        ("shards: [\n", ("shards",), "5", None),
        ("- shards\n", ("shards",), "5", None),
        ("shards:\n  3\n", ("shards",), "5", None),
    ],
)
def test_texts(text: str, path: OptionPath, value: str, expected: str | None) -> None:
    assert set_option(text, path, value) == expected


names = st.sampled_from(("name", "shards", "replicas", "engine", "memory"))
comments = st.sampled_from(("", " # why", "   # shards: 9"))
scalars = st.sampled_from(("3", "17", "main", '"8.6"', "'x # y'", "true"))
blanks = st.lists(st.sampled_from(("", "# shards: 1", "  # indented")), max_size=2)


@st.composite
def written_by_hand(draw: st.DrawFn) -> str:
    """Options, sections, comments and empty lines as people write them."""
    lines: list[str] = [*draw(blanks)]
    for name in draw(st.lists(names, unique=True)):
        if name in ("engine", "memory"):
            indent = " " * draw(st.integers(1, 8))
            lines.append(f"{name}:{draw(comments)}")
            inner = draw(st.lists(st.sampled_from(("kind", "version", "shards")), unique=True, min_size=1))
            lines += [f"{indent}{key}: {draw(scalars)}{draw(comments)}" for key in inner]
        else:
            lines.append(f"{name}: {draw(scalars)}{draw(comments)}")
        lines += draw(blanks)
    return "\n".join(lines) + "\n" * draw(st.integers(0, 2))


@settings(max_examples=300, deadline=None)
@given(written_by_hand(), st.sampled_from((("shards",), ("engine", "version"), ("engine", "shards"))))
def test_only_that_option_changes(text: str, path: tuple[str, ...]) -> None:
    changed = set_option(text, path, "41")
    if changed is None:
        assert "'x # y'" in text, "only what is quoted around a # is left"
        return
    before: Any = read_yaml(text.encode()).data or {}
    after: Any = read_yaml(changed.encode()).data
    place: Any = after if len(path) == 1 else after[path[0]]
    assert place.pop(path[-1]) == 41
    was: Any = before if len(path) == 1 else before.setdefault(path[0], {})
    was.pop(path[-1], None)
    assert after == before
    old, new = text.splitlines(), changed.splitlines()
    touched = [line for line in new if line not in old]
    assert len(touched) <= len(path)
    assert len(new) - len(old) in range(len(path) + 1)
    assert text.count("#") <= changed.count("#")
