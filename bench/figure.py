"""A measured figure and how it is judged."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """One measured figure. `limit` in the unit of `value`; None: reported, not judged.

    `at_least`: the limit is a lower bound, as it is for "so many times faster".
    """

    name: str
    value: float
    unit: str
    limit: float | None
    tries: int
    at_least: bool = False

    @property
    def ok(self) -> bool:
        """Whether it keeps its limit."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        verdict = "     " if self.limit is None else "ok   " if self.ok else "FAILS" if self.at_least else "OVER "
        bound = "" if self.limit is None else f"{'at least' if self.at_least else 'limit'} {self.limit:g}"
        share = "" if not self.limit else f"{self.value / self.limit:6.0%} of it"
        return f"{verdict}{self.name:<58}{self.value:8.3f} {self.unit:<3} {bound:<12}{share}"
