"""The doors of the command line: which module of this package adds which commands."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

import typer

from redisforge.cli.narrow import named

DOORS = {
    "lifecycle": ("up", "down"),
    "change": ("failover", "restart"),
    "apply_config": ("apply-config",),
    "upgrade": ("upgrade",),
    "status": ("status",),
    "scale": ("rebalance", "scale"),
    "simulate": ("simulate",),
    "connect": ("url", "cli"),
    "smoke": ("test-cluster",),
    "logs": ("logs",),
    "lock": ("lock",),
    "access": ("access",),
    "audit": ("audit",),
    "host": ("host",),
    "images": ("images",),
    "config": ("init", "config"),
    "formation": ("init-cluster",),
    "deploy": ("deploy",),
    "adopt": ("adopt",),
    "export": ("export",),
    "certs": ("generate-certs",),
    "binaries": ("binaries",),
}
"""In the order of --help. To import them all takes as long as many a command itself."""


class Door(Protocol):
    """A module that adds commands."""

    def register(self, app: typer.Typer, /) -> None:
        """Add them to `app`."""
        ...


def modules_for(words: Sequence[str]) -> list[Door]:
    """The module of the command that `words` name; all of them where they name none."""
    wanted = named(words)
    modules = [module for module, commands in DOORS.items() if wanted in commands] or list(DOORS)
    return [cast("Door", import_module(f"redisforge.cli.{module}")) for module in modules]
