"""Write the files of docs/reference that follow from the code; with --check, only say which of them differ.

    python scripts/generate.py            write what differs
    python scripts/generate.py --check    exit status 1 and a list, if anything differs

tests/unit/test_generated.py runs the same check.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import typer
from typer.core import TyperGroup

from redisforge import errors
from redisforge.cli.main import command_line
from redisforge.config.reference import environment_markdown, example_yaml, json_schema_text, reference_markdown
from redisforge.model.deploy_report import DeployPlan
from redisforge.model.host_report import HostList, HostsReport, TrustReport
from redisforge.model.image_report import BuildReport, ImageList, PushReport
from redisforge.model.report import AuditReport, ChangeReport, LockReport, SmokeReport, StatusReport, Survival
from redisforge.model.steps import Plan

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = Path("docs", "reference")
HELP_WIDTH = 100
"""Columns of the help texts in cli.md, whatever terminal this runs in."""

_EXIT_CODES_INTRO = """\
# Exit statuses

The number says what kind of thing went wrong; the message says what, where, why, and what to do next. 0 is success.

This page is generated from `src/redisforge/errors.py`.

| Status | Kind | Meaning |
| --- | --- | --- |"""

_CLI_INTRO = """\
# Commands

`redisforge COMMAND --help` prints the same. `--json` is there on every verb that reports. What the exit statuses
mean: [exit-codes.md](exit-codes.md). The documents that `--json` prints: [status](status.schema.json),
[test-cluster](test-cluster.schema.json), [simulate](simulate.schema.json), [--dry-run](plan.schema.json),
[deploy --dry-run](deploy-plan.schema.json),
[changes](change.schema.json), [lock status](lock.schema.json), [audit](audit.schema.json),
[host check](host-check.schema.json), [host list](host-list.schema.json),
[host trust](host-trust.schema.json), [images build](images-build.schema.json),
[images list](images-list.schema.json), [images push](images-push.schema.json).

This page is generated from the program itself."""


def generated_files() -> dict[Path, str]:
    """Every generated file, relative to the project's folder, with the text that it must have."""
    pages = {
        "config.md": reference_markdown(),
        "env.md": environment_markdown(),
        "redisforge.schema.json": json_schema_text(),
        "redisforge.example.yaml": example_yaml(),
        "status.schema.json": document_schema(StatusReport, "redisforge status --json"),
        "test-cluster.schema.json": document_schema(SmokeReport, "redisforge test-cluster --json"),
        "simulate.schema.json": document_schema(Survival, "redisforge simulate --json"),
        "change.schema.json": document_schema(ChangeReport, "--json of verbs that change a running cluster"),
        "lock.schema.json": document_schema(LockReport, "redisforge lock status --json"),
        "audit.schema.json": document_schema(AuditReport, "redisforge audit --json"),
        "host-list.schema.json": document_schema(HostList, "redisforge host list --json"),
        "host-trust.schema.json": document_schema(TrustReport, "redisforge host trust --json"),
        "host-check.schema.json": document_schema(HostsReport, "redisforge host check --json, host prepare --json"),
        "images-build.schema.json": document_schema(BuildReport, "redisforge images build --json"),
        "images-list.schema.json": document_schema(ImageList, "redisforge images list --json"),
        "images-push.schema.json": document_schema(PushReport, "redisforge images push --json"),
        "plan.schema.json": document_schema(Plan, "--dry-run --json"),
        "deploy-plan.schema.json": document_schema(DeployPlan, "redisforge deploy --dry-run --json"),
        "exit-codes.md": exit_codes_markdown(),
        "cli.md": cli_markdown(),
    }
    return {REFERENCE / name: text for name, text in pages.items()}


def differing(root: Path = ROOT) -> list[Path]:
    """The generated files below `root` that are missing or have another text, in alphabetical order."""
    return sorted(path for path, text in generated_files().items() if _read(root / path) != text)


def document_schema(document: type[msgspec.Struct], title: str) -> str:
    """The JSON Schema (2020-12) of a document that the command line prints."""
    head: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return json.dumps(head | msgspec.json.schema(document), indent=2, ensure_ascii=False) + "\n"


def exit_codes_markdown() -> str:
    """The page of all exit statuses."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RedisForgeError)
    ]
    rows = [
        f"| {kind.exit_status} | `{kind.__name__}` | {kind.summary} |"
        for kind in sorted(kinds, key=lambda kind: kind.exit_status)
    ]
    stopped = "interrupted (Ctrl-C, SIGTERM, `lock release`), or a question answered with no"
    rows.append(f"| {errors.INTERRUPTED_EXIT_STATUS} | - | {stopped} |")
    return "\n".join([_EXIT_CODES_INTRO, *rows]) + "\n"


def cli_markdown() -> str:
    """The page of all commands: the help text of each."""
    command = typer.main.get_command(command_line())
    settings = command.context_settings  # -h beside --help; whoever makes a context himself must pass them on
    context = typer.Context(command, info_name="redisforge", terminal_width=HELP_WIDTH, **settings)
    sections = [_section(context), *_sections(context)]
    return "\n\n".join([_CLI_INTRO, *sections]) + "\n"


def _sections(parent: typer.Context) -> Iterator[str]:
    """The sections of every command below `parent`, and of the commands below those."""
    if not isinstance(parent.command, TyperGroup):
        return
    for name, command in parent.command.commands.items():
        context = typer.Context(command, info_name=name, parent=parent, terminal_width=HELP_WIDTH)
        yield _section(context)
        yield from _sections(context)


def _section(context: typer.Context) -> str:
    return f"## {context.command_path}\n\n```text\n{context.get_help()}\n```"


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the generated files of docs/reference.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    found = differing()
    if parser.parse_args().check:
        for path in found:
            print(f"not up to date: {path} (make generate writes it)", file=sys.stderr)
        return 1 if found else 0
    texts = generated_files()
    for path in found:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(texts[path], encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
