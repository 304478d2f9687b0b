"""`make check`: everything that can be said about the code without running it. All checks run; one line each.

The dependency audit asks a vulnerability service. Where that service does not answer (a mirror, no network) the
audit says so and does not fail: it could not judge. That every dependency is pinned with a hash, and that what is
installed is what is pinned, is checked in any case.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CONSTRAINTS = ROOT / "constraints-dev.txt"
NOT_OURS = ("constraints.txt", "constraints-dev.txt", ".secrets.baseline")


def main() -> int:
    """Run all checks; returns the exit status."""
    failed: list[str] = []
    for name, check in CHECKS.items():
        began = time.monotonic()
        problem = check()
        seconds = time.monotonic() - began
        print(f"{'FAIL' if problem else 'ok  '}  {name}  ({seconds:.1f} s)", flush=True)
        if problem:
            print("      " + problem.strip().replace("\n", "\n      "), flush=True)
            failed.append(name)
    print(f"{len(CHECKS) - len(failed)} of {len(CHECKS)} checks passed", flush=True)
    return 1 if failed else 0


def tool(*argv: str) -> str:
    """Run a tool of the environment; returns its output if it failed, else nothing."""
    result = subprocess.run([BIN / argv[0], *argv[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    return (result.stdout + result.stderr or "failed without a word") if result.returncode else ""


def tracked_files() -> list[str]:
    """Files that belong to the repository: committed, or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def secrets() -> str:
    """No secret in the repository but those that .secrets.baseline knows as false alarms."""
    files = [name for name in tracked_files() if name not in NOT_OURS]
    return tool("detect-secrets-hook", "--baseline", ".secrets.baseline", *files)


def foreign_places() -> str:
    """No registry's host name and no path of one machine in the repository."""
    names = ("files.pythonhosted", "pypi", "pypi.python", "deb.debian", "security.debian", "registry.npmjs")
    hosts = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\.org\b")
    paths = re.compile(r"(?<![\w.-])/(?:work|farm|home/\w+)/[a-z.]")
    found: list[str] = []
    for name in tracked_files():
        text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if hosts.search(line) or paths.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    return "\n".join(found)


def pinned() -> str:
    """Every pinned dependency has a hash, and what is installed is what is pinned."""
    problems: list[str] = []
    for block in re.split(r"\n(?=\S)", CONSTRAINTS.read_text()):
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block)
        if not match:
            continue
        name, version = match.groups()
        if "--hash=sha256:" not in block:
            problems.append(f"{name} has no hash")
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform or Python
        if installed != version:
            problems.append(f"{name}: {installed} is installed, {version} is pinned")
    return "\n".join(problems)


def audit() -> str:
    """Known vulnerabilities of the pinned dependencies."""
    argv = [BIN / "pip-audit", "--disable-pip", "--require-hashes", "-r", CONSTRAINTS, "--progress-spinner", "off"]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    unknown = result.stdout.count("could not be audited") + result.stderr.count("could not be audited")
    if "No known vulnerabilities found" in result.stderr and unknown:
        print(f"note  the vulnerability service does not know {unknown} packages here: those were not audited")
        return ""
    if result.returncode and ("ConnectionError" in result.stderr or "Service" in result.stderr):
        print("note  the vulnerability service cannot be reached: dependencies were not audited")
        return ""
    return (result.stdout + result.stderr) if result.returncode else ""


CHECKS = {
    "ruff: rules": lambda: tool("ruff", "check", "."),
    "ruff: format": lambda: tool("ruff", "format", "--check", "."),
    "pyright: strict types": lambda: tool("pyright", "--pythonpath", sys.executable),
    "import-linter: rooms": lambda: tool("lint-imports"),
    "generated files": lambda: tool("python", "scripts/generate.py", "--check"),
    "secrets": secrets,
    "no foreign hosts or paths": foreign_places,
    "pinned dependencies": pinned,
    "dependency audit": audit,
}

if __name__ == "__main__":
    sys.exit(main())
