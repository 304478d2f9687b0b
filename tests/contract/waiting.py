"""Waiting for a condition, with a deadline; what is never reached fails the test with what was seen last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

DEADLINE_S = 30.0
_PAUSE_S = 0.02

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool], what: str) -> T:
    """Look until `holds`; returns what was seen then."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds(seen := await look()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}; last seen: {seen}"
        await asyncio.sleep(_PAUSE_S)
    return seen
