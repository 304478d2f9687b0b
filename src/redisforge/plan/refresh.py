"""Files that have changed and need no restart: who keeps a node, where Envoy begins to ask, who gets subscribers.

A Unit's files differ from what is declared in two ways (model/unit.py): for some a running process would have to be
restarted (`config_hash`); the others are read when they are needed, so that placing them is enough (`placed_hash`).
"""

from __future__ import annotations

from collections.abc import Mapping

from redisforge.model.facts import Facts
from redisforge.model.steps import Gate, Phase, RefreshUnit

_WHY = "its files have changed; what runs goes on, or reads them by itself"


def refresh_phase(facts: Facts, config_hashes: Mapping[str, str], placed_hashes: Mapping[str, str]) -> Phase | None:
    """Place the files of every Unit that lies there with other ones and needs no restart; None: nothing to place."""
    steps = tuple(
        RefreshUnit(unit=name, why=_WHY)
        for name, placed in placed_hashes.items()
        if (unit := facts.units.get(name))
        and unit.placed_hash != placed
        and unit.config_hash in ("", config_hashes.get(name))
    )
    return Phase(title="place changed files", steps=steps, gate=Gate("nodes_answer", 30.0)) if steps else None
