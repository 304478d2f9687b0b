"""How tests wait: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

_SHORTEST_POLL_S = 0.01


def until(condition: Callable[[], object], what: str, deadline_s: float = 30.0) -> None:
    """Wait until `condition` is true; fail with `what` and its last answer after `deadline_s` seconds.

    A condition that is a command of its own, half a second of work, is asked as long as it is not: what is waited for
    needs the machine too.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        asked = time.monotonic()
        if answer := condition():
            return
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {deadline_s:g} s: {what} (last answer: {answer!r})")
        time.sleep(max(_SHORTEST_POLL_S, now - asked))
