"""A private apt: reads package lists and fetches packages, and leaves the machine's own as it is.

Everything it writes lies in one folder. No root is needed. apt checks the suite's signature, the lists
against it, and each package against the lists.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from redisforge.fleet.binaries.apt_sources import (
    Repository,
    apt_configuration,
    library_closure,
    preferences_file,
    read_dependencies,
    read_sources,
    source_file,
)
from redisforge.fleet.binaries.command import Outcome, run

_COMMAND_LIMIT_S = 600.0
_NO_NETWORK = re.compile(
    r"Could not resolve|Temporary failure|Could not connect|Unable to connect|Connection refused"
    r"|Network is unreachable|[Cc]onnection timed out|Connection failed"
)
_NEEDED_PROGRAMS = ("apt-get", "apt-cache", "apt-config", "dpkg", "dpkg-deb")


class AptError(Exception):
    """apt or dpkg did not do what was asked; the caller tells the user, or tries elsewhere.

    `is_offline`: the repository could not be reached at all, so another suite of it need not be tried.
    """

    def __init__(self, why: str, *, is_offline: bool = False) -> None:
        super().__init__(why)
        self.is_offline = is_offline


def missing_program(environment: Mapping[str, str]) -> str:
    """The first program of apt and dpkg that is not on PATH; empty when all are there."""
    return next((name for name in _NEEDED_PROGRAMS if not find_program(name, environment)), "")


def find_program(name: str, environment: Mapping[str, str]) -> str:
    """The path of `name` on PATH, or empty."""
    return shutil.which(name, path=environment.get("PATH", "")) or ""


def machine_repositories(environment: Mapping[str, str]) -> tuple[Repository, ...]:
    """Every repository that the machine's own apt is set to read; empty when there is none, or no apt."""
    asked = ("apt-config", "shell", "LIST", "Dir::Etc::SourceList/f", "PARTS", "Dir::Etc::SourceParts/d")
    outcome = run(asked, environment, timeout_s=_COMMAND_LIMIT_S)
    if not outcome.succeeded:
        return ()
    places = dict(word.split("=", 1) for word in shlex.split(outcome.output) if "=" in word)
    parts = Path(places.get("PARTS") or "/nonexistent")
    files = [
        Path(places.get("LIST") or "/nonexistent"),
        *sorted(parts.glob("*.list")),
        *sorted(parts.glob("*.sources")),
    ]
    return tuple(repository for file in files for repository in read_sources(_read(file)))


def runs_debian() -> bool:
    """Whether this machine says that it is Debian itself, not one of its children. Source: os-release(5)."""
    return re.search(r'^ID="?debian"?$', _read(Path("/etc/os-release")), re.MULTILINE) is not None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class PrivateApt:
    """apt over `repositories`, all inside `folder` (absolute, exists)."""

    def __init__(self, folder: Path, repositories: Iterable[Repository], environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**environment, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        for name in ("state", "lists/partial", "cache/archives/partial", "packages"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        architecture = self._do(("dpkg", "--print-architecture")).output.strip()
        (folder / "status").write_text("")
        (folder / "preferences").write_text("")
        (folder / "machine.sources").write_text(source_file(repositories, architecture))
        (folder / "apt.conf").write_text(apt_configuration(str(folder)))

    def pin(self, packages: Sequence[str], suite: str) -> None:
        """Take `packages` from `suite`, whatever else is newer or ranks higher."""
        (self._folder / "preferences").write_text(preferences_file(packages, suite))

    def update(self) -> None:
        """Read the package lists. Every method may raise AptError."""
        self._apt("apt-get", "update")

    def candidate(self, package: str) -> str:
        """The version of `package` that would be fetched (`5:8.6.3-1`); empty when there is none."""
        match = re.search(r"^\s+Candidate: (\S+)$", self._apt("apt-cache", "policy", package).output, re.MULTILINE)
        return match[1] if match and match[1] != "(none)" else ""

    def closure(self, packages: Sequence[str]) -> tuple[str, ...]:
        """`packages` with every library package that they need."""
        unwanted = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        options = tuple(f"--no-{kind}" for kind in unwanted)
        outcome = self._apt("apt-cache", "depends", "--recurse", *options, *packages)
        return library_closure(read_dependencies(outcome.output), packages)

    def download(self, packages: Sequence[str]) -> tuple[Path, ...]:
        """Fetch the .deb files of `packages`; apt has checked their hashes when this returns."""
        folder = self._folder / "packages"
        self._apt("apt-get", "download", *packages, folder=folder)
        return tuple(sorted(folder.glob("*.deb")))

    def unpack(self, package: Path, root: Path) -> None:
        """Unpack a .deb below `root`; none of its scripts run."""
        self._do(("dpkg-deb", "--extract", str(package), str(root)))

    def package_versions(self, packages: Iterable[Path]) -> dict[str, str]:
        """Versions by package name, read from the .deb files themselves."""
        versions: dict[str, str] = {}
        for file in packages:
            shown = self._do(("dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(file)))
            name, _, version = shown.output.strip().partition(" ")
            versions[name] = version
        return versions

    def _apt(self, program: str, *arguments: str, folder: Path | None = None) -> Outcome:
        return self._do((program, "-q", f"--config-file={self._folder}/apt.conf", *arguments), folder)

    def _do(self, argv: Sequence[str], folder: Path | None = None) -> Outcome:
        outcome = run(argv, self._environment, timeout_s=_COMMAND_LIMIT_S, folder=folder or self._folder)
        if outcome.succeeded:
            return outcome
        is_offline = _NO_NETWORK.search(outcome.output) is not None
        # apt's own warnings and errors say it; what else it prints is progress.
        said = dict.fromkeys(line for line in outcome.output.splitlines() if line.startswith(("W: ", "E: ")))
        why = "\n  ".join([*said][:4]) or outcome.why()
        raise AptError(f"{argv[0]}: {why}", is_offline=is_offline)
