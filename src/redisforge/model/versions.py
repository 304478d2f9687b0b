"""Versions of programs, as far as anything is decided by them."""

from __future__ import annotations

import re

_VERSION = re.compile(r"(\d+)(?:\.(\d+))?")


def version_of(text: str) -> tuple[int, int]:
    """Major and minor number of a version's text: (8, 6) of "8.6.3", (26, 0) of "26"; (0, 0) without any."""
    found = _VERSION.match(text)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)
