"""Reports of what clients noticed: two watches of one verb are one report."""

from __future__ import annotations

from redisforge.model.report import ProbeReport


def test_clients_that_were_at_work_twice_are_one_report() -> None:
    before = ProbeReport(
        longest_gap_ms=12.0, errors=2, error_window_ms=40.0, writes=10, reads=20, lost=1, seconds=1.5,
        first_errors=("refused",), first_lost=("a",), notices=("slow",),
    )  # fmt: skip
    after = ProbeReport(
        longest_gap_ms=30.0, errors=1, error_window_ms=0.0, writes=5, reads=6, lost=0, seconds=2.0,
        first_errors=("closed",), notices=("slow", "late"),
    )  # fmt: skip
    assert before.then(after) == ProbeReport(
        longest_gap_ms=30.0, errors=3, error_window_ms=40.0, writes=15, reads=26, lost=1, seconds=3.5,
        first_errors=("refused", "closed"), first_lost=("a",), notices=("slow", "late"),
    )  # fmt: skip
