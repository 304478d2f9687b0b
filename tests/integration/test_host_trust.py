"""`redisforge host trust` against real sshds: new, known and changed keys, compared fingerprints, a jump host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_tool import Cluster, Result
from verbs import schema_valid

from ssh_server import ADDRESS, SshServer

pytestmark = pytest.mark.integration

UNREACHABLE = 16
HOST_KEY = 17


class Hosts:
    """Declared hosts, each an sshd of its own, none of them known yet."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.servers = {name: SshServer(folder / name) for name in names}
        self.cluster = Cluster(folder / "operator")
        self.known = self.cluster.home / "known_hosts"

    def declare(self, name: str, **changes: object) -> dict[str, object]:
        server = self.servers[name]
        way = {"ssh_address": ADDRESS, "ssh_port": server.port, "ssh_key": str(server.folder / "id")}
        place = {"name": name, "address": f"127.0.0.{20 + len(name)}", "ssh": True, "ssh_user": server.user}
        return {**place, **way, "folder": str(server.folder / "data"), **changes}

    def fingerprint(self, name: str) -> str:
        return self.servers[name].host_key.get_fingerprint("sha256")

    def trusted(self, *arguments: str, answer: str = "") -> tuple[Result, dict[str, dict[str, Any]]]:
        """The command, and what its report says of each host."""
        result = self.cluster.run("host", "trust", "--json", *arguments, answer=answer)
        report: dict[str, Any] = schema_valid(result.json(), "host-trust.schema.json")
        return result, {host["host"]: host for host in report["hosts"]}

    def close(self) -> None:
        self.cluster.close()
        for server in self.servers.values():
            server.close()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path, "a", "bb", "ccc")
    made.cluster.declare(hosts=[made.declare(name) for name in made.servers])
    try:
        yield made
    finally:
        made.close()


def test_a_key_is_shown_before_it_is_trusted_and_only_a_yes_makes_it_known(hosts: Hosts) -> None:
    unknown = hosts.cluster.run("host", "check", "a")
    assert "redisforge host trust a" in unknown.stdout + unknown.stderr, "who meets an unknown key learns the command"

    result, seen = hosts.trusted(answer="n\n")
    assert result.status == 130, str(result)
    assert {host["state"] for host in seen.values()} == {"not trusted"}
    assert all(hosts.fingerprint(name) in result.stderr for name in hosts.servers)
    assert not hosts.known.exists()

    result, seen = hosts.trusted("a", answer="y\n")
    assert (result.status, list(seen)) == (0, ["a"]), str(result)
    assert hosts.known.stat().st_mode & 0o777 == 0o600
    result, seen = hosts.trusted("--yes")
    assert result.status == 0, str(result)
    assert {name: host["state"] for name, host in seen.items()} == {"a": "known", "bb": "trusted", "ccc": "trusted"}
    lines = hosts.known.read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(
        f"[{ADDRESS}]:{server.port}" for server in hosts.servers.values()
    )
    assert hosts.cluster.run("host", "check", "--json").json()["facts"]["bb"], "they can be asked now"


def test_a_changed_key_is_an_error_that_only_its_fingerprint_overrules(hosts: Hosts) -> None:
    hosts.trusted("--yes")
    before, old = hosts.known.read_text(), hosts.fingerprint("bb")
    hosts.servers["bb"].renew_host_key()
    new = hosts.fingerprint("bb")

    result, seen = hosts.trusted("--yes")
    assert result.status == HOST_KEY, str(result)
    assert {name: host["state"] for name, host in seen.items()} == {"a": "known", "bb": "changed", "ccc": "known"}
    assert old in result.stderr
    assert f"redisforge host trust bb --fingerprint {new}" in result.stderr
    assert hosts.known.read_text() == before

    result, seen = hosts.trusted("bb", "--fingerprint", new)
    assert (result.status, seen["bb"]["state"]) == (0, "trusted"), str(result)
    assert [key["fingerprint"] for key in seen["bb"]["known"]] == [old]
    assert len(hosts.known.read_text().splitlines()) == 3, "the old key is known no more"
    assert hosts.trusted()[1]["bb"]["state"] == "known"


def test_fingerprints_are_compared_and_a_dead_host_blocks_nobody(hosts: Hosts) -> None:
    hosts.servers["ccc"].stop()
    result, seen = hosts.trusted("--fingerprint", hosts.fingerprint("a"))
    hosts.servers["ccc"].start()
    assert result.status == HOST_KEY, str(result)
    assert {name: host["state"] for name, host in seen.items()} == {
        "a": "trusted", "bb": "no match", "ccc": "unreachable"
    }  # fmt: skip
    assert hosts.fingerprint("bb") in result.stderr
    assert len(hosts.known.read_text().splitlines()) == 1


def test_a_jump_host_is_asked_about_first_then_the_hosts_behind_it(hosts: Hosts) -> None:
    jump = hosts.servers["ccc"]
    for name in ("a", "bb"):
        with (jump.folder / "authorized_keys").open("ab") as file:
            file.write(hosts.servers[name].key.export_public_key())
    through = f"{jump.user}@{ADDRESS}:{jump.port}"
    hosts.cluster.declare(hosts=[hosts.declare(name, ssh_jump=through) for name in ("a", "bb")])

    unknown = hosts.cluster.run("host", "check", "bb")
    assert "redisforge host trust bb" in unknown.stdout + unknown.stderr, "the jump host has no name to give"
    result, seen = hosts.trusted("bb", answer="y\ny\n")
    assert (result.status, list(seen)) == (0, [through, "bb"]), str(result)
    assert {host["state"] for host in seen.values()} == {"trusted"}
    assert result.stderr.index(hosts.fingerprint("ccc")) < result.stderr.index(hosts.fingerprint("bb"))
    assert hosts.cluster.run("host", "check", "bb", "--json").json()["facts"]["bb"]


def test_this_machine_needs_no_trust(hosts: Hosts) -> None:
    hosts.cluster.declare(hosts=[{"name": f"here-{n}", "address": f"127.0.0.{n}"} for n in (1, 2)])
    result, seen = hosts.trusted()
    assert (result.status, seen) == (0, {}), str(result)
