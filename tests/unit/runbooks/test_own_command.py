"""How a hint names this program: so that the line can be typed as it stands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from redisforge.runbooks.connect import own_command


def test_the_line_that_runs_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "redisforge"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    assert own_command(str(program)) == str(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert own_command(str(program)) == "redisforge"
    assert own_command("/opt/lib/redisforge/__main__.py") == f"{sys.executable} -m redisforge"
