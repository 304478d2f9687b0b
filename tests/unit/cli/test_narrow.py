"""The command line with one command is the whole one, as far as that command goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command

from redisforge.cli.main import app
from redisforge.cli.narrow import narrowed

WHOLE: Any = get_command(app)
"""Typer's own kind of click group: it has `commands` where it has subcommands."""


def paths(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*above, name)
        yield from paths(command, (*above, name)) if hasattr(command, "commands") else ()


def at(group: Any, path: tuple[str, ...]) -> Any:
    return at(group.commands[path[0]], path[1:]) if path else group


def described(command: Any) -> tuple[str, list[tuple[Any, ...]]]:
    """Its help, which names its subcommands, and its parameters."""
    shown = command.get_help(typer.Context(command, info_name="it"))
    return shown, [(param.name, param.opts, param.required, str(param.default)) for param in command.params]


@pytest.mark.parametrize("path", list(paths(WHOLE)), ids=" ".join)
def test_a_command_is_what_it_is_in_the_whole(path: tuple[str, ...]) -> None:
    for words in (path, ("--debug", *path), (*path, "--no-such-option")):
        fewer: Any = get_command(narrowed(app, words))
        assert list(fewer.commands) == [path[0]]
        assert described(at(fewer, path)) == described(at(WHOLE, path))


@pytest.mark.parametrize("words", [(), ("--help",), ("--version",), ("-h", "up"), ("no-such-command",), ("--debug",)])
def test_what_names_no_command_has_them_all(words: tuple[str, ...]) -> None:
    assert narrowed(app, words) is app


def test_a_subcommand_that_is_unknown_meets_them_all() -> None:
    fewer: Any = get_command(narrowed(app, ("host", "chek")))
    assert fewer.commands["host"].commands.keys() == WHOLE.commands["host"].commands.keys()
