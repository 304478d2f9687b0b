"""The generated files of docs/reference say what the code says."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jsonschema
import msgspec
import pytest

from redisforge import errors
from redisforge.model.report import CheckResult, ClusterReport, SmokeReport, StatusReport
from redisforge.model.slots import SlotRange
from redisforge.model.steps import AssignSlots, Gate, Phase, Plan

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "generate.py"))
generated_files = cast("Callable[[], dict[Path, str]]", SCRIPT["generated_files"])
differing = cast("Callable[..., list[Path]]", SCRIPT["differing"])

FILES = generated_files()
SCHEMAS = sorted(path for path in FILES if path.name.endswith(".schema.json"))
STATUS = StatusReport(
    cluster=ClusterReport(name="main", state="ok", slots_ok=16384, engine="redis 8.6.3", envoy="1.40.0"),
    nodes=(),
    endpoints=(),
    problems=(),
)
SMOKE = SmokeReport(
    target="main", passed=True, seconds=0.1, checks=(CheckResult(name="PING", passed=True, seconds=0.1),)
)
PLAN = Plan(
    (
        Phase(
            title="give out the slots",
            steps=(AssignSlots(node="redis-1", slots=(SlotRange(0, 16383),), why="all"),),
            gate=Gate("slots_assigned", 10.0),
        ),
    )
)


def test_no_generated_file_differs() -> None:
    assert differing() == [], "run `make generate`"


def test_a_changed_and_a_missing_file_are_named(tmp_path: Path) -> None:
    files = FILES
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert differing(tmp_path) == []
    changed, missing, *_ = sorted(files)
    (tmp_path / changed).write_text("edited by hand\n", encoding="utf-8")
    (tmp_path / missing).unlink()
    assert differing(tmp_path) == [changed, missing]


@pytest.mark.parametrize("path", SCHEMAS, ids=str)
def test_every_schema_is_a_valid_schema(path: Path) -> None:
    schema: dict[str, Any] = json.loads(FILES[path])
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")


@pytest.mark.parametrize(
    ("name", "document"),
    [("status", STATUS), ("test-cluster", SMOKE), ("plan", PLAN)],
    ids=lambda value: str(value)[:12],
)
def test_a_document_fits_its_schema(name: str, document: msgspec.Struct) -> None:
    schema: dict[str, Any] = json.loads(FILES[Path("docs", "reference", f"{name}.schema.json")])
    validator = cast("Any", jsonschema.Draft202012Validator(schema))
    printed = json.loads(msgspec.json.encode(document))
    assert list(validator.iter_errors(printed)) == []
    assert list(validator.iter_errors([printed])), "the schema accepts anything"


def test_exit_statuses_are_all_listed_and_different() -> None:
    page = FILES[Path("docs", "reference", "exit-codes.md")]
    kinds = [errors.RedisForgeError, *errors.RedisForgeError.__subclasses__()]
    statuses = [kind.exit_status for kind in kinds]
    assert len(set(statuses)) == len(statuses)
    for kind in kinds:
        assert f"| {kind.exit_status} | `{kind.__name__}` | {kind.summary} |" in page
    assert "| 130 |" in page


@pytest.mark.parametrize(
    "command",
    [
        "up",
        "down",
        "status",
        "url",
        "cli",
        "test-cluster",
        "logs",
        "init",
        "init-cluster",
        "config check",
        "binaries list",
    ],
)
def test_every_command_has_a_section(command: str) -> None:
    page = FILES[Path("docs", "reference", "cli.md")]
    assert f"\n## redisforge {command}\n" in page
    assert all(len(line) <= 120 for line in page.splitlines())
