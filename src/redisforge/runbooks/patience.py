"""What an operator hears while a gate does not hold: nothing at first, then what is waited for, once per reason."""

from __future__ import annotations

import re
from collections.abc import Sequence

from redisforge.model.facts import Facts
from redisforge.plan.view import hanging

TOLD_AFTER_S = 5.0
"""Most gates hold sooner. Reasons that change while gossip goes round are told no more often than this."""
_SECONDS = re.compile(r"\b\d+(\.\d+)? s\b")
"""A reason that counts down is one reason."""


class Patience:
    """The lines of one wait, which began at `began_s` (of whatever clock `line` is given, in seconds)."""

    def __init__(self, title: str, began_s: float) -> None:
        self._title = title
        self._due_s = began_s + TOLD_AFTER_S
        self._told: set[str] = set()

    def line(self, now_s: float, left_s: float, reasons: Sequence[str], facts: Facts) -> str:
        """What to say now, if anything; else empty. `left_s`: how many seconds it will be waited at most. `reasons`:
        why the gate does not hold, at least one."""
        reason = reasons[0]
        silent = [name for name in hanging(facts) if not any(name in said for said in reasons)]
        if silent:  # not every gate asks each node, and the title of the phase need not name it
            reason += f"; {', '.join(silent)} {'does' if len(silent) == 1 else 'do'} not answer"
        about = _SECONDS.sub("", reason)
        if now_s < self._due_s or about in self._told:
            return ""
        self._told.add(about)
        self._due_s = now_s + TOLD_AFTER_S
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return f"{self._title}: still waiting, for at most {left_s:.0f} s more: {reason}{more}"
