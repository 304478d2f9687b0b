"""The command line with one command is the whole one, as far as that command goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command

from redisforge.cli.doors import DOORS, modules_for
from redisforge.cli.main import command_line
from redisforge.cli.narrow import narrowed

APP = command_line()
WHOLE: Any = get_command(APP)
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
        fewer: Any = get_command(command_line(words))
        assert list(fewer.commands) == [path[0]]
        assert described(at(fewer, path)) == described(at(WHOLE, path))


@pytest.mark.parametrize("words", [(), ("--help",), ("--version",), ("-h", "up"), ("no-such-command",), ("--debug",)])
def test_what_names_no_command_has_them_all(words: tuple[str, ...]) -> None:
    assert narrowed(APP, words) is APP
    assert len(modules_for(words)) == len(DOORS)


def test_a_subcommand_that_is_unknown_meets_them_all() -> None:
    fewer: Any = get_command(command_line(("host", "chek")))
    assert fewer.commands["host"].commands.keys() == WHOLE.commands["host"].commands.keys()


def test_each_command_is_behind_the_door_that_is_said() -> None:
    for module, commands in DOORS.items():
        one = typer.Typer()
        (door,) = modules_for((commands[0],))
        door.register(one)
        assert getattr(door, "__name__", "") == f"redisforge.cli.{module}"
        groups = [info.name for info in one.registered_groups]
        assert {*(info.name for info in one.registered_commands), *groups} == set(commands)
    assert WHOLE.commands.keys() == {command for commands in DOORS.values() for command in commands}
