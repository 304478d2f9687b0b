"""Who follows a verb may go away: the verb goes on, and ends with its own status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VERB = """
import sys
from pathlib import Path
import typer
from redisforge.cli import main
from redisforge.cli.output import finished_steps_only
from redisforge.errors import GateError

app = typer.Typer()

@app.command()
def command():
    finished_steps_only("the first step")
    sys.stdin.read()
    for number in range(2000):
        finished_steps_only(f"step {number} of a verb that goes on")
    Path(file).write_text("whole")
    if how == "fails":
        raise GateError("a gate did not hold")
    if how == "other pipe":
        raise BrokenPipeError("of a program that was asked something")
    if how == "shows":
        print("the result", flush=True)
    return 0

main.command_line = lambda *_: typer.main.get_command(app)
file, how = sys.argv[1:]
sys.argv[1:] = []
main.main()
"""


@pytest.mark.parametrize(("how", "status"), [("works", 0), ("shows", 0), ("fails", 10)])
def test_a_verb_whose_progress_nobody_reads_goes_on_to_its_end(tmp_path: Path, how: str, status: int) -> None:
    """As `up 2>&1 | head -1`."""
    done = tmp_path / "done"
    argv = (sys.executable, "-c", VERB, str(done), how)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"  the first step\n"
        process.stdout.close()
        process.stdin.close()
        assert process.wait(30) == status
    assert done.read_text() == "whole"


def test_a_pipe_to_another_program_that_breaks_is_no_quiet_end(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", VERB, str(tmp_path / "done"), "other pipe")
    result = subprocess.run(argv, input="", capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "of a program that was asked something" in result.stderr


def test_without_standard_error_a_verb_works(tmp_path: Path) -> None:
    argv = ("sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", VERB, str(tmp_path / "done"), "works")
    assert subprocess.run(argv, input=b"", check=False).returncode == 0
    assert (tmp_path / "done").read_text() == "whole"
