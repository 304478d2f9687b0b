"""The health check of a node's container: is the Unit kept, does its process live, does it answer?

Of the standard library alone, like the keeper beside it. Docker runs it (HEALTHCHECK) and shows its last line.

    python3 -I health.py [UNIT_FOLDER]      without a folder: the last word of PID 1's command line

Exit status 0: healthy. 1: not. A node that loads its data is healthy: it will take as long as it takes.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

TIMEOUT_S = 3.0


def beside(name: str) -> Any:
    """The program NAME.py of this file's folder, as a module."""
    found = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def own_folder() -> str:
    """The Unit's folder, as PID 1 was given it."""
    return Path("/proc/1/cmdline").read_bytes().rstrip(b"\0").split(b"\0")[-1].decode()


def problem_of(folder: str) -> str:
    """What is wrong with the Unit; "" when nothing is. Raises OSError, ValueError."""
    unit = json.loads(Path(folder, "unit.json").read_text())
    state = json.loads(Path(folder, "state.json").read_text())
    if state.get("state") != "running":
        return f"{state.get('state', 'stopped')}: {state.get('reason') or state.get('last_exit') or 'not started'}"
    guard = unit.get("guard")
    if not guard:
        return ""
    line = beside("peers").Line(guard, guard["address"], guard["port"], TIMEOUT_S)
    try:
        line.ask("PING")
    finally:
        line.close()
    return ""


def main(arguments: list[str]) -> int:
    sys.dont_write_bytecode = True
    try:
        problem = problem_of(arguments[0] if arguments else own_folder())
    except (OSError, ValueError, KeyError) as error:
        problem = "" if str(error).startswith("LOADING") else f"{type(error).__name__}: {error}"
    print(problem or "healthy")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
