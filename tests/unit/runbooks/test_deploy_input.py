"""All that is wrong in .env comes in one error, and its advice holds for `deploy`."""

from __future__ import annotations

from pathlib import Path

import pytest

from redisforge.errors import ConfigError, SecretError
from redisforge.runbooks.deploy_input import Wanted, read_input

GOOD = "Xk29slQpW8zzAq"  # pragma: allowlist secret
LINES = {
    "REDIS_CLUSTER_ANNOUNCE_IP": "127.0.0.41",
    "REDIS_REQUIREPASS": GOOD,
    "REDIS_ACL_PASS": "CHANGE_ME_APP_PASSWORD_HERE",
    "REDIS_READONLY_PASS": "short",
    "REDIS_MONITOR_PASS": "",
}
"""REDIS_REPLICATION_PASS is not there."""


def write(folder: Path, **more: str) -> Wanted:
    file = folder / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in (LINES | more).items()))
    file.chmod(0o600)
    return Wanted(role="redis", folder=folder)


def test_bad_and_missing_passwords_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(SecretError) as caught:
        read_input(write(tmp_path), {})
    said = caught.value
    assert said.what.startswith("4 passwords")
    lines = said.why.splitlines()
    assert len(lines) == 4
    for name, why in (
        ("REDIS_ACL_PASS", "is a placeholder"),
        ("REDIS_READONLY_PASS", "has 5 characters"),
        ("REDIS_MONITOR_PASS", "is empty"),
        ("REDIS_REPLICATION_PASS", "is missing"),
    ):
        assert any(f"{name}: {why}" in line for line in lines), said.why
    assert "the same on every host" in said.next_step
    assert "remove the lines" not in said.next_step


def test_options_and_passwords_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_input(write(tmp_path, REDIS_PORT="x", REDIS_MAXMEMORY="much"), {})
    text = "\n".join(caught.value.problems)
    names = ("REDIS_PORT", "memory.max", "REDIS_ACL_PASS", "REDIS_READONLY_PASS", "REDIS_REPLICATION_PASS")
    assert all(name in text for name in names), text
    assert "redisforge deploy redis --dry-run" in caught.value.next_step
