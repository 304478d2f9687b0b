"""What is asked before something is done, and what is said where nobody can answer."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import typer

from redisforge.cli import main
from redisforge.cli.scale import add
from redisforge.errors import INTERRUPTED_EXIT_STATUS
from redisforge.runbooks.scale import Newcomer


def test_without_a_terminal_a_question_is_answered_by_the_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(**_: object) -> None:
        typer.confirm("Delete it?", abort=True)

    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    def command_line(*_: object) -> Callable[..., None]:
        return command

    monkeypatch.setattr(main, "command_line", command_line)
    assert main.run(["down"]) == INTERRUPTED_EXIT_STATUS
    assert capsys.readouterr().err == "nothing was done: the question got no yes; --yes goes on without asking\n"


@pytest.mark.parametrize(
    ("node", "option", "zone"),
    [
        ("127.0.0.1:6390", "", "127.0.0.1"),
        ("127.0.0.1:6390@rack-2", "", "rack-2"),
        ("127.0.0.1:6390", "rack-2", "rack-2"),
    ],
)
def test_the_zone_of_a_new_node(monkeypatch: pytest.MonkeyPatch, node: str, option: str, zone: str) -> None:
    asked: list[Newcomer] = []

    def add_verb(newcomer: Newcomer, _: object) -> None:
        asked.append(newcomer)

    def nothing(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr("redisforge.runbooks.scale.add_verb", add_verb)
    monkeypatch.setattr("redisforge.cli.scale.the_cluster", nothing)
    monkeypatch.setattr("redisforge.cli.change.run", nothing)
    add(node=node, zone=option)
    assert asked[0].zone == zone
