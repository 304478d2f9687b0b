"""What a rule finds."""

from __future__ import annotations

import msgspec

from redisforge.config.problems import OptionPath


class BrokenRule(msgspec.Struct, frozen=True):
    """A finding. `paths` are the options that it is about; the first one that is written gets the blame."""

    paths: tuple[OptionPath, ...]
    what: str
    next_step: str = ""
