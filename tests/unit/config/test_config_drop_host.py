"""A host is taken out of redisforge.yaml, and everything else in the file stays as it was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redisforge.config.edit import drop_host
from redisforge.config.yaml_lines import read_yaml


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "hosts:\n- name: h1\n  address: 10.0.0.1\n- name: h2\n  address: 10.0.0.2\n",
            "hosts:\n- name: h1\n  address: 10.0.0.1\n",
        ),
        (
            "hosts:  # ours\n  - address: 10.0.0.2  # second\n    name: h2\n\n  # the first\n  - name: h1\nshards: 3\n",
            "hosts:  # ours\n\n  # the first\n  - name: h1\nshards: 3\n",
        ),
        ("hosts:\n- {name: h1}\n- {name: h2, zone: a}\n# end\n", "hosts:\n- {name: h1}\n# end\n"),
        ("hosts:\r\n- name: h2\r\n- name: h1\r\nshards: 3\r\n", "hosts:\r\n- name: h1\r\nshards: 3\r\n"),
        ("hosts:\n- name: h1\n", "hosts:\n- name: h1\n"),
        ("shards: 3\n", "shards: 3\n"),
        ("", ""),
        ("hosts: [{name: h1}, {name: h2}]\n", None),
        ("hosts:\n- name: h2\n", None),
        ("hosts:\n- &a\n  name: h2\n- <<: *a\n  name: h1\n", None),
        ("hosts: [\n", None),
    ],
    ids=[
        "the last", "the first, with comments", "flow entries", "CRLF", "not there", "no hosts", "empty", "one line",
        "the only one", "an anchor that others need", "not YAML",
    ],
)  # fmt: skip
def test_only_that_entry_goes(before: str, after: str | None) -> None:
    assert drop_host(before, "h2") == after


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(("  # a comment", "", None)), st.integers(0, 3)), min_size=2, max_size=6),
    st.data(),
)
def test_all_else_stays(entries: list[tuple[str | None, int]], data: st.DataObject) -> None:
    lines = ["name: main", "hosts:"]
    for number, (before, options) in enumerate(entries):
        lines += [before] if before is not None else []
        lines.append(f"  - name: h{number}  # number {number}")
        lines += [f"    option-{option}: {number}" for option in range(options)]
    text = "\n".join([*lines, "shards: 3", ""])
    gone = data.draw(st.integers(0, len(entries) - 1))
    changed = drop_host(text, f"h{gone}")
    assert changed is not None
    was: Any = read_yaml(text.encode()).data
    now: Any = read_yaml(changed.encode()).data
    assert [host for host in was["hosts"] if host["name"] != f"h{gone}"] == now["hosts"]
    assert (now["name"], now["shards"]) == ("main", 3)
    assert len(text.splitlines()) - len(changed.splitlines()) == 1 + entries[gone][1], "no comment of others goes"
