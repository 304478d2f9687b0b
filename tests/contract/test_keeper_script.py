"""keeper.py as a script: the standard library alone, its arguments, its exit status."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unit_host import KEEPER, PYTHON, UnitHost

from redisforge.fleet.runtime import KEEPER_PROGRAMS


@pytest.fixture
def units(tmp_path: Path) -> Iterator[UnitHost]:
    host = UnitHost(tmp_path / "main")
    yield host
    host.close()


def imported_modules(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in line {node.lineno}"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("name", KEEPER_PROGRAMS)
def test_the_programs_import_the_standard_library_alone(name: str) -> None:
    """What stands under TYPE_CHECKING is for readers and for pyright."""
    tree = ast.parse(KEEPER.with_name(name).read_text())
    tree.body = [part for part in tree.body if "TYPE_CHECKING" not in ast.unparse(part).partition("\n")[0]]
    imported = imported_modules(tree)
    assert imported
    assert imported - sys.stdlib_module_names == set()


def test_the_keeper_runs_alone_in_a_folder_of_its_own(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.py"
    copy.write_text(KEEPER.read_text())
    ended = subprocess.run(
        (*PYTHON, str(copy), "state", str(tmp_path / "no units")),
        cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(ended.stdout) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"), [(("begin", "x"), "unknown command 'begin'"), (("",), "unknown command ''")]
)
def test_an_unknown_command_is_refused(units: UnitHost, arguments: tuple[str, ...], complaint: str) -> None:
    ended = units.run_keeper(*arguments)
    assert ended.returncode != 0
    assert complaint in ended.stderr


@pytest.mark.parametrize("command", ["start", "stop"])
def test_no_folders_are_no_work(units: UnitHost, command: str) -> None:
    ended = units.run_keeper(command)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def no_folder(folder: Path) -> None:
    del folder


def a_file_as_folder(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("")


def a_folder_as_log(folder: Path) -> None:
    folder.joinpath("log").mkdir(parents=True)


@pytest.mark.parametrize("prepare", [no_folder, a_file_as_folder, a_folder_as_log])
def test_a_keeper_that_cannot_be_started_is_an_error(units: UnitHost, prepare: Callable[[Path], None]) -> None:
    """A caller that hears nothing waits for a Unit that nobody starts."""
    prepare(units.folder())
    ended = units.run_keeper("start", str(units.folder()))
    assert ended.returncode != 0
    assert str(units.folder()) in ended.stderr
