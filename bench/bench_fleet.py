"""A simulated fleet of 300 hosts: how long deciding and telling take, and how much memory (bench/fleet_300.py)."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from figure import Figure

PROGRAM = Path(__file__).with_name("fleet_300.py")


def fleet(tries: int) -> Iterator[Figure]:
    """Medians of `tries` processes."""
    found = [_measure() for _ in range(tries)]
    seconds = statistics.median(run["planned_s"] + run["whole_s"] + run["status_s"] for run in found)
    yield Figure("300 hosts: read, plan (twice) and status", seconds, "s", 3.0, tries)
    yield Figure("… status alone", statistics.median(run["status_s"] for run in found), "s", None, tries)
    yield Figure("… peak memory of the process", max(run["peak_mb"] for run in found), "MB", 300.0, tries)


def _measure() -> dict[str, float]:
    done = subprocess.run((sys.executable, PROGRAM), capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(done.stdout)
    if found["state"] != "ok" or found["problems"]:
        raise SystemExit(f"the simulated fleet is not in order: {found}")
    return found
