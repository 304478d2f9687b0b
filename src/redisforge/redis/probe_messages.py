"""What a verb and the process of its probe (probe_process.py) tell one another, as lines of JSON."""

from __future__ import annotations

from typing import Literal

import msgspec


class ProbeDoor(msgspec.Struct, frozen=True, kw_only=True):
    """Where workers connect. `password` is in plain text: this travels over a pipe only."""

    address: str
    port: int
    user: str
    password: str
    ca_path: str
    protocol: int = 2


class ProbeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the program is to do. Writers and readers take the doors in turn; `rate_per_s` is each worker's.

    `may_evict`: the nodes may throw keys away when their memory is full, so that a missing key is no lost write.
    """

    prefix: str
    primary: tuple[ProbeDoor, ...]
    reader: tuple[ProbeDoor, ...] = ()
    writers: int = 2
    readers: int = 2
    rate_per_s: float = 100.0
    timeout_s: float = 5.0
    start_limit_s: float = 3.0
    may_evict: bool = False


class ProbeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen so far. A gap is the time between two successes of one worker, the present one included."""

    event: Literal["ready", "seen", "final"]
    longest_gap_ms: float
    errors: int
    error_window_ms: float
    writes: int
    reads: int
    seconds: float
    first_errors: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    lost: int = 0
    first_lost: tuple[str, ...] = ()
