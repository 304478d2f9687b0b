"""`host list`, `check` and `prepare` over hosts in memory: what is shown, asked, changed, and looked at again."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest
import typer
import yaml

from redisforge.cli import host as cli
from redisforge.errors import NotFoundError, UnhealthyError
from redisforge.fleet.fake import FakeRuntime, FakeTransport
from redisforge.fleet.hosts import Site
from redisforge.fleet.transport import CommandResult
from redisforge.model.host_report import Verdict
from redisforge.model.layout import ClusterLayout
from redisforge.render.host_files import SYSCTL_PATH
from redisforge.runbooks.hosts import Fleet, change_hosts, check_hosts, declared_fleet, list_hosts

HOSTS = ("h1", "h2", "h3")


class FakeHost(FakeTransport):
    """A host that says what it is like, and whose kernel does what sysctl is told. `broken`: sysctl fails."""

    def __init__(self, name: str) -> None:
        super().__init__(self.answer_to)
        self.name = name
        self.overcommit = 0
        self.uid = 0
        self.broken = False

    def answer_to(self, argv: tuple[str, ...]) -> CommandResult:
        if argv[0] == "sysctl":
            if self.broken:
                return CommandResult(argv, 255, "", "read-only file system")
            self.overcommit = 1
            assert "vm.overcommit_memory = 1" in self.files[f"/{SYSCTL_PATH}"].text()
        if argv[0] == "python3":
            targets = json.loads(argv[-1])["targets"]
            lines = [f"reach\t{h}\t{a}\t{port}\t0.001\t\n" for h, a, ports in targets for port in ports]
            return CommandResult(argv, 0, "".join([f"began\t{time.time()}\n", *lines, f"ended\t{time.time()}\n"]), "")
        return CommandResult(argv, 0, self.probe() if argv[0] == "sh" else "", "")

    def probe(self) -> str:
        lines = {
            "began": time.time(), "system": "Linux", "architecture": "x86_64", "machine": self.name, "user": "someone",
            "uid": self.uid, "init": "systemd", "python": "3.12.1", "folder.existing": "/", "folder.writable": "yes",
            "folder.free_kib": 10**9, "folder.write_began": 1.0, "folder.write_ended": 1.1, "folder.written_mib": 16,
            "cores": 8, "memory_kib": 10**8, "open_files": 10**6, "huge_pages": "madvise",
            "sysctl.vm.overcommit_memory": self.overcommit,
        }  # fmt: skip
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        for path, file in self.files.items():
            text += f"file={path.removeprefix('/')}\n" + "".join(f"line={line}\n" for line in file.text().splitlines())
        return f"{text}ended={time.time()}\n"


def declared(folder: Path, *names: str) -> Fleet:
    hosts = [{"name": name, "address": f"10.0.0.{number}"} for number, name in enumerate(HOSTS, 1)]
    (folder / "redisforge.yaml").write_text(yaml.safe_dump({"hosts": hosts}))
    return declared_fleet(None, names, {"REDISFORGE_HOME": str(folder)}, folder)


@pytest.fixture
def hosts() -> dict[str, FakeHost]:
    return {name: FakeHost(name) for name in HOSTS}


@pytest.fixture
def fleet(tmp_path: Path, hosts: dict[str, FakeHost], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = declared(tmp_path)
    layout = ClusterLayout("/var/lib/redisforge/clusters/main")
    sites = {name: Site(name, host, layout, FakeRuntime()) for name, host in hosts.items()}
    return Fleet(found.topology, found.hosts, sites)


def test_hosts_are_listed_without_asking_them(fleet: Fleet, hosts: dict[str, FakeHost]) -> None:
    listed = list_hosts(fleet)
    assert [(host.name, host.address, host.zone, host.way) for host in listed.hosts] == [
        (name, f"10.0.0.{number}", name, f"ssh 10.0.0.{number}") for number, name in enumerate(HOSTS, 1)
    ]
    assert sorted(unit for host in listed.hosts for unit in host.units) == [
        "envoy-1", *(f"redis-{number}" for number in range(1, 7)),
    ]  # fmt: skip
    assert not any(host.commands for host in hosts.values())
    assert "10.0.0.3" in cli.list_text(listed)


def test_names_choose_hosts_and_must_be_declared(tmp_path: Path) -> None:
    assert [host.name for host in declared(tmp_path, "h3", "h1").hosts] == ["h1", "h3"]
    with pytest.raises(NotFoundError, match="h9") as raised:
        declared(tmp_path, "h1", "h9")
    assert "h1, h2, h3" in raised.value.why


def test_checking_changes_nothing_and_proposes(fleet: Fleet, hosts: dict[str, FakeHost]) -> None:
    report = check_hosts(fleet)
    assert report.passed, [check for check in report.checks if check.verdict is Verdict.FAIL]
    assert {check.host for check in report.checks if check.verdict is Verdict.WARN} == set(HOSTS)
    assert [change.host for change in report.changes] == list(HOSTS)
    assert {len(host.commands) for host in hosts.values()} == {2}, "two rounds"
    assert not any(host.files for host in hosts.values())
    text = cli.report_text(report)
    assert "Warn  vm.overcommit_memory" in text
    assert "3 hosts: " in text
    assert "0 Fail" in text


def test_changes_are_made_and_then_there_is_nothing_to_do(fleet: Fleet, hosts: dict[str, FakeHost]) -> None:
    done = change_hosts(fleet, check_hosts(fleet))
    assert done.passed
    assert {check.verdict for check in done.checks} == {Verdict.PASS}
    assert [(result.host, result.problem) for result in done.results] == [(name, "") for name in HOSTS]
    assert len(done.changes) == 3, "what was changed is in the report"
    again = check_hosts(fleet, lasting=True)
    assert again.changes == ()
    assert cli.changes_text(again.changes).startswith("Nothing to do")
    assert {name: list(host.files) for name, host in hosts.items()} == {name: [f"/{SYSCTL_PATH}"] for name in HOSTS}


def test_a_host_that_fails_is_named_and_the_others_are_done(fleet: Fleet, hosts: dict[str, FakeHost]) -> None:
    hosts["h2"].broken = True
    hosts["h3"].uid = 1000
    done = change_hosts(fleet, check_hosts(fleet))
    problems = {result.host: result.problem for result in done.results}
    assert problems["h1"] == ""
    assert "read-only file system" in problems["h2"]
    assert "is not root, and sudo asks for a password" in problems["h3"]
    assert not done.passed
    assert not hosts["h3"].files
    assert "h2: not done" in cli.report_text(done)


def test_prepare_makes_lasting_what_happens_to_be_right(fleet: Fleet, hosts: dict[str, FakeHost]) -> None:
    for host in hosts.values():
        host.overcommit = 1
    assert check_hosts(fleet).changes == ()
    lasting = check_hosts(fleet, lasting=True)
    assert [change.files[0].path for change in lasting.changes] == [SYSCTL_PATH] * 3


def offer(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, *, fix: bool, yes: bool, answer: str = "") -> None:
    def given(*_: object) -> Fleet:
        return fleet

    monkeypatch.setattr("redisforge.runbooks.hosts.declared_fleet", given)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    cli.check(fix=fix, yes=yes)


@pytest.mark.parametrize("answer", ["", "n\n", "\n"])
def test_without_a_yes_nothing_is_changed(
    fleet: Fleet, hosts: dict[str, FakeHost], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    with pytest.raises(typer.Abort):
        offer(fleet, monkeypatch, fix=True, yes=False, answer=answer)
    assert not any(host.files for host in hosts.values())
    assert {host.overcommit for host in hosts.values()} == {0}


def test_each_change_is_shown_before_it_is_made(
    fleet: Fleet, hosts: dict[str, FakeHost], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(fleet, monkeypatch, fix=True, yes=False, answer="y\n")
    shown = capsys.readouterr()
    assert f"    +++ {SYSCTL_PATH}" in shown.err
    assert "    +vm.overcommit_memory = 1" in shown.err
    assert f"    # sysctl -p {SYSCTL_PATH}" in shown.err
    assert shown.out.count(": done: ") == 3
    assert {host.overcommit for host in hosts.values()} == {1}


def test_a_failed_check_is_the_exit_status(
    fleet: Fleet, hosts: dict[str, FakeHost], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UnhealthyError, match="3 checks failed"):
        offer(fleet, monkeypatch, fix=False, yes=False)
    assert "Fail  architecture" in capsys.readouterr().out
    assert not any(host.files for host in hosts.values())
