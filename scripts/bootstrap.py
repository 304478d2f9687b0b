"""Make the project's virtual environment on a machine that has only python3: `bootstrap.py FOLDER PINS`.

Debian and Ubuntu ship python3 without `ensurepip` (it is in python3-venv) and often without pip. Then pip's own
wheel is taken from the distribution's package python3-pip-whl: installed if that is there, else downloaded with
apt into a temporary folder, which needs no root. What is installed is pinned with hashes in PINS.

Standard library only.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
WHEEL_FOLDER = Path("/usr/share/python-wheels")


def main(folder: Path, pins: Path) -> None:
    """Make `folder` a complete environment, from whatever state it is in."""
    if sys.version_info < OLDEST:
        sys.exit(f"python {'.'.join(map(str, OLDEST))} or newer is needed, this is {sys.version.split()[0]}: "
                 "run `make PYTHON=/path/to/python3 up`")  # fmt: skip
    python = folder / "bin" / "python"
    if not usable(python):
        shutil.rmtree(folder, ignore_errors=True)
        say(f"making {folder}")
        make_environment(folder, python)
    say(f"installing what {pins} pins")
    pip(python, "--require-hashes", "-r", str(ROOT / pins))
    pip(python, "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    run([str(python), "-m", "compileall", "-q", str(ROOT / "src")])  # else every command compiles what it imports


def usable(python: Path) -> bool:
    """Whether the environment there runs and has pip."""
    if not python.exists():
        return False
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def make_environment(folder: Path, python: Path) -> None:
    """A virtual environment with pip in it, with or without ensurepip."""
    if importlib.util.find_spec("ensurepip") is not None:
        with contextlib.suppress(subprocess.CalledProcessError):  # Debian's half of ensurepip lacks the wheels
            venv.create(folder, with_pip=True)
        if usable(python):
            return
        shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = find_pip_wheel(WHEEL_FOLDER) or download_pip_wheel(Path(scratch))
        run([str(python), f"{wheel}/pip", "install", "--quiet", "--no-index", str(wheel)])


def find_pip_wheel(folder: Path) -> Path | None:
    """pip's wheel in a folder of wheels."""
    return next(iter(sorted(folder.glob("pip-*.whl"), reverse=True)), None)


def download_pip_wheel(scratch: Path) -> Path:
    """Take the wheel out of the distribution's package, with package lists of our own: no root is needed."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            sys.exit("this python3 has no pip and no ensurepip: install python3-venv with your package manager")
    say("this python3 has no ensurepip: taking pip from the package python3-pip-whl")
    for name in ("lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    options = [
        "-o", f"Dir::State::Lists={scratch}/lists",
        "-o", f"Dir::Cache={scratch}/cache",
        "-o", f"APT::Sandbox::User={os.environ.get('USER', 'root') if os.getuid() else 'root'}",
    ]  # fmt: skip
    run(["apt-get", *options, "-qq", "update"], cwd=scratch)
    run(["apt-get", *options, "-qq", "download", "python3-pip-whl"], cwd=scratch)
    package = next(scratch.glob("python3-pip-whl_*.deb"))
    run(["dpkg-deb", "-x", str(package), str(scratch / "root")])
    wheel = find_pip_wheel(scratch / "root" / WHEEL_FOLDER.relative_to("/"))
    if wheel is None:
        sys.exit("python3-pip-whl holds no pip wheel: install python3-venv with your package manager")
    return wheel


def pip(python: Path, *arguments: str) -> None:
    """`pip install` inside the environment."""
    run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments])


def run(command: list[str], cwd: Path | None = None) -> None:
    """Run a command; its failure ends the program with its own message."""
    status = subprocess.run(command, cwd=cwd, check=False, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"})
    if status.returncode:
        sys.exit(f"failed with exit status {status.returncode}: {' '.join(command[:4])} …; is there a network?")


def say(text: str) -> None:
    """One line of progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
