"""The command line with the one command that is asked for.

Typer looks at every parameter of every command each time it starts, which takes longer than most commands themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import typer
from typer.models import TyperInfo

_BEFORE_THE_COMMAND = "--debug"


def named(arguments: Sequence[str]) -> str:
    """The command that `arguments` name, known or not; "" if none."""
    return next((word for word in arguments if word != _BEFORE_THE_COMMAND), "")


def narrowed(app: typer.Typer, arguments: Sequence[str]) -> typer.Typer:
    """`app` without the commands that `arguments` do not name; all of it where they name none, as for --help."""
    words = [word for word in arguments if word != _BEFORE_THE_COMMAND]
    if not words:
        return app
    wanted, rest = words[0], words[1:]
    commands = [info for info in app.registered_commands if info.name == wanted]
    groups = [_narrowed_group(info, rest) for info in app.registered_groups if info.name == wanted]
    if not commands and not groups:
        return app
    fewer = copy.copy(app)
    fewer.registered_commands, fewer.registered_groups = commands, groups
    return fewer


def _narrowed_group(info: TyperInfo, arguments: Sequence[str]) -> TyperInfo:
    fewer = copy.copy(info)
    if info.typer_instance:
        fewer.typer_instance = narrowed(info.typer_instance, arguments)
    return fewer
