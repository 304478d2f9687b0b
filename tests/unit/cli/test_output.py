"""Tables and sizes as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.cli.output import human_bytes, table_text

words = st.text(alphabet="abcXYZ0189.-", min_size=1, max_size=12)
tables = st.integers(1, 5).flatmap(
    lambda columns: st.tuples(
        st.lists(words, min_size=columns, max_size=columns),
        st.lists(st.lists(words, min_size=columns, max_size=columns), max_size=5),
    )
)


def test_a_table() -> None:
    assert table_text(["NAME", "KEYS"], [["redis-1", "12"], ["r", "3"], ["gone", "-"]]) == (
        "NAME     KEYS\n"
        "redis-1    12\n"
        "r           3\n"
        "gone        -"
    )  # fmt: skip


def test_a_table_without_rows_is_its_headings() -> None:
    assert table_text(["NAME", "KEYS"], []) == "NAME  KEYS"


@given(tables)
def test_every_cell_stands_below_its_heading(table: tuple[list[str], list[list[str]]]) -> None:
    headings, rows = table
    lines = table_text(headings, rows).splitlines()
    assert len(lines) == len(rows) + 1
    assert [line.split() for line in lines] == [headings, *rows]
    assert all(line == line.rstrip() for line in lines)
    end = 0
    for column in zip(headings, *rows, strict=True):
        width = max(map(len, column))
        for cell, line in zip(column, lines, strict=True):
            assert cell == line[end : end + width].strip()
        end += width + 2


def test_a_row_of_another_width_is_an_error() -> None:
    with pytest.raises(ValueError, match="argument"):
        table_text(["A", "B"], [["1", "2", "3"]])


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (1536, "1.5K"),
        (100 * 1024, "100K"),
        (2**20, "1.0M"),
        (256 * 2**20, "256M"),
        (3 * 2**30, "3.0G"),
        (5 * 2**40, "5.0T"),
        (5000 * 2**40, "5000T"),
    ],
)
def test_sizes(size: int | None, text: str) -> None:
    assert human_bytes(size) == text
