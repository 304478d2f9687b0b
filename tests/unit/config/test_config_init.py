"""redisforge init and redisforge config, on real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from redisforge.cli import config
from redisforge.config.load import load
from redisforge.errors import ConfigError, HostError, RefusedError, UsageError
from redisforge.runbooks.init import init

app = typer.Typer()
config.register(app)


def test_init_writes_a_declaration_that_loads_with_strong_passwords(tmp_path: Path) -> None:
    report = init(tmp_path / "new" / "folder", "shop", None, force=False)
    folder = tmp_path / "new" / "folder"
    assert set(report.written) == {str(folder / "redisforge.yaml"), str(folder / ".env")}
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    loaded = load(None, {}, folder)
    assert loaded.topology.name == "shop"
    assert loaded.notices == ()
    assert len({secret.reveal() for secret in loaded.passwords.values()}) == 6
    assert all(len(secret.reveal()) >= 43 for secret in loaded.passwords.values())


def test_a_second_cluster_fits_beside_the_first(tmp_path: Path) -> None:
    init(tmp_path / "a", "a", None, force=False)
    init(tmp_path / "b", "b", 7101, force=False)
    ports: list[int] = []
    for name in ("a", "b"):
        topology = load(None, {}, tmp_path / name).topology
        ports += [port for node in topology.nodes for port in (node.port, node.bus_port)]
        ports += [at.port for endpoint in topology.endpoints for at in endpoint.listeners]
        ports += [envoy.admin_port for envoy in topology.envoys]
    assert len(set(ports)) == len(ports) == 34


@pytest.mark.parametrize("first_port", [1645, 7001, 55530])
def test_first_ports_that_can_be_used(tmp_path: Path, first_port: int) -> None:
    init(tmp_path, "x", first_port, force=False)
    assert load(None, {}, tmp_path).topology.nodes[0].port == first_port


@pytest.mark.parametrize(
    ("name", "first_port"), [("x", 1644), ("x", 55531), ("x", -1), ("X", None), ("", None), ("a" * 32, None)]
)
def test_what_cannot_be_used_leaves_nothing_behind(tmp_path: Path, name: str, first_port: int | None) -> None:
    with pytest.raises(UsageError):
        init(tmp_path / "new", name, first_port, force=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("existing", ["redisforge.yaml", ".env"])
def test_existing_files_are_refused(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("# mine\n")
    with pytest.raises(RefusedError, match="would be overwritten"):
        init(tmp_path, "x", None, force=False)
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "# mine\n"


def test_force_keeps_the_passwords(tmp_path: Path) -> None:
    init(tmp_path, "x", None, force=False)
    before = (tmp_path / ".env").read_text()
    report = init(tmp_path, "y", None, force=True)
    assert (tmp_path / ".env").read_text() == before
    assert report.kept == (str(tmp_path / ".env"),)
    assert load(None, {}, tmp_path).topology.name == "y"


def test_force_adds_missing_passwords_and_closes_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OTHER=1\r\nREDIS_ACL_PASS='mine-mine-mine-7'")
    (tmp_path / ".env").chmod(0o644)
    report = init(tmp_path, "x", None, force=True)
    lines = (tmp_path / ".env").read_bytes().split(b"\n")
    assert lines[:2] == [b"OTHER=1\r", b"REDIS_ACL_PASS='mine-mine-mine-7'"]
    assert [line.split(b"=")[0] for line in lines[2:]] == [
        b"REDIS_REQUIREPASS",
        b"REDIS_READONLY_PASS",
        b"REDIS_MONITOR_PASS",
        b"REDIS_REPLICATION_PASS",
        b"REDIS_HANDOFF_PASS",
        b"",
    ]
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert len(report.notices) == 2
    assert load(None, {}, tmp_path).passwords["app_user"].reveal() == "mine-mine-mine-7"


def test_dotenv_is_kept_out_of_git(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    init(tmp_path / "sub", "x", None, force=False)
    assert (tmp_path / "sub" / ".gitignore").read_text() == ".env\n"
    init(tmp_path / "sub", "x", None, force=True)
    assert (tmp_path / "sub" / ".gitignore").read_text() == ".env\n"


def test_an_existing_gitignore_is_continued(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log")
    init(tmp_path, "x", None, force=False)
    assert (tmp_path / ".gitignore").read_text() == "*.log\n.env\n"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError):
        init(tmp_path / "file" / "sub", "x", None, force=False)


def test_the_commands_work_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    made = runner.invoke(app, ["init", "--name", "shop"])
    assert made.exit_code == 0, made.output
    assert "redisforge.yaml" in made.output
    checked = runner.invoke(app, ["config", "check"])
    assert checked.output == (
        "redisforge.yaml is valid: shop, redis newest, 3 shards with 1 replica each: 6 nodes, 1 Envoy, 4 endpoints\n"
    )
    shown = yaml.safe_load(runner.invoke(app, ["config", "show"]).output)
    assert shown == json.loads(runner.invoke(app, ["config", "show", "--json"]).output)
    assert shown["topology"]["name"] == "shop"
    assert len(shown["topology"]["nodes"]) == 6
    assert shown["passwords_given_for"][0] == "operator_user"
    password = load(None, {}, tmp_path).passwords["app_user"].reveal()
    assert password not in str(shown)
    schema = json.loads(runner.invoke(app, ["config", "schema"]).output)
    assert schema["title"] == "redisforge.yaml"


def test_check_raises_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("shards: 1\n")
    result = CliRunner().invoke(app, ["config", "check", "--config", str(tmp_path / "bad.yaml")])
    assert isinstance(result.exception, ConfigError)
    assert f"{tmp_path / 'bad.yaml'}:1: shards: must be at least 3" in str(result.exception)
