"""generate-certs: the runbook and its command."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from redisforge.cli import certs
from redisforge.errors import UsageError
from redisforge.runbooks.generate_certs import generate_certs
from redisforge.security.certificate_checks import check_certificates

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def app() -> typer.Typer:
    made = typer.Typer()
    certs.register(made)
    return made


def test_the_defaults_and_a_second_run(tmp_path: Path) -> None:
    report = generate_certs(tmp_path / "new" / "folder", (), (), 825, NOW)
    assert [Path(entry.file).name for entry in report.certificates] == ["ca.crt", "server.crt", "client.crt"]
    assert all(entry.written for entry in report.certificates)
    assert report.certificates[1].names == ("127.0.0.1", "::1", "localhost", "server")
    again = generate_certs(tmp_path / "new" / "folder", (), (), 825, NOW)
    assert not any(entry.written for entry in again.certificates)
    for entry in report.certificates[1:]:
        check_certificates(Path(report.certificates[0].file), Path(entry.file), Path(entry.key_file), NOW)


def test_further_names_and_sans_extend_the_folder(tmp_path: Path) -> None:
    generate_certs(tmp_path, ("n1",), (), 825, NOW)
    report = generate_certs(tmp_path, ("n1", "n2", "n1"), ("10.0.0.1", "redis.example.org"), 30, NOW)
    assert [(entry.subject, entry.written) for entry in report.certificates[1:]] == [("n1", True), ("n2", True)]
    assert {"10.0.0.1", "redis.example.org"} <= set(report.certificates[1].names)
    assert report.certificates[2].expires_at == "2026-03-31T00:00:00+00:00"
    assert not report.certificates[0].written


@pytest.mark.parametrize(
    ("names", "sans", "days"),
    [
        (("ca",), (), 825),
        (("../evil",), (), 825),
        ((".hidden",), (), 825),
        (("a b",), (), 825),
        (("",), (), 825),
        (("a..b",), (), 825),
        ((), ("not a name",), 825),
        ((), ("10.0.0.0/8",), 825),
        ((), (), 0),
        ((), (), -5),
        ((), (), 3651),
    ],
)
def test_bad_input_leaves_nothing_behind(
    tmp_path: Path, names: tuple[str, ...], sans: tuple[str, ...], days: int
) -> None:
    with pytest.raises(UsageError):
        generate_certs(tmp_path / "tls", names, sans, days, NOW)
    assert not (tmp_path / "tls").exists()


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    result = CliRunner().invoke(app(), [str(tmp_path), "--name", "n1", "--san", "10.0.0.1"])
    assert result.exit_code == 0, result.output
    assert "n1.crt" in result.output
    assert "10.0.0.1" in result.output
    assert "written" in result.output


def test_the_command_prints_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(app(), [str(tmp_path), "--json", "--days", "10"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert document["folder"] == str(tmp_path)
    assert [entry["subject"] for entry in document["certificates"]][1:] == ["server", "client"]
    assert "PRIVATE" not in result.output
