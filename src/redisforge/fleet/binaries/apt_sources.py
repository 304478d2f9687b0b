"""Where this machine gets its packages from, and the private apt made of it. Pure: texts in, texts out.

The address of a mirror is never written into RedisForge: it is read from the machine's own source files, with
the options beside it that say which keys sign it. They are read here, and not asked of apt, because apt names
the repositories only after an `apt-get update`, which a fresh machine has not had. Formats: sources.list(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

_KEPT_OPTIONS = ("signed-by", "trusted", "allow-insecure", "allow-weak")
_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>[^#]*)")
_DEBIAN_SUITES = re.compile(r"bookworm|trixie|forky|duke|sid|experimental|unstable|testing|(?:old)*stable|rc-buggy")


class Repository(msgspec.Struct, frozen=True):
    """One suite and component at one address. `options` are deb822 lines that say which keys sign it."""

    uri: str
    suite: str
    component: str
    options: tuple[str, ...] = ()


def read_sources(text: str) -> tuple[Repository, ...]:
    """Read a source file of either format; what is disabled or not for binary packages is left out."""
    lines = [match for line in text.splitlines() if (match := _ONE_LINE.match(line))]
    return tuple(
        dict.fromkeys(
            [
                *(repository for match in lines for repository in _from_line(match)),
                *(repository for stanza in _read_stanzas(text) for repository in _from_stanza(stanza)),
            ]
        )
    )


def _from_line(match: re.Match[str]) -> Iterator[Repository]:
    pairs = (option.partition("=") for option in (match["options"] or "").split())
    options = tuple(f"{name.title()}: {value}" for name, _, value in pairs if name.lower() in _KEPT_OPTIONS)
    for component in match["components"].split() or [""]:
        yield Repository(match["uri"], match["suite"], component, options)


def _from_stanza(stanza: dict[str, str]) -> Iterator[Repository]:
    if "deb" not in stanza.get("types", "").split() or stanza.get("enabled", "yes").lower() in (
        "no",
        "false",
    ):
        return
    options = tuple(f"{name.title()}: {stanza[name]}" for name in _KEPT_OPTIONS if name in stanza)
    for uri in stanza.get("uris", "").split():
        for suite in stanza.get("suites", "").split():
            for component in stanza.get("components", "").split() or [""]:
                yield Repository(uri, suite, component, options)


def _read_stanzas(text: str) -> Iterator[dict[str, str]]:
    """Fields of each deb822 stanza by lower-case name; a continued value keeps its lines."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line.startswith("#"):
            continue
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()


def debian_mirror(repositories: Iterable[Repository], *, is_debian: bool) -> Repository | None:
    """The repository whose address also serves Debian's other suites; None when this machine knows none.

    Others than Debian name their suites after Debian's, so the keys and the address count too. `is_debian`:
    the machine runs Debian; only then is a mirror believed that neither names.
    """
    candidates = [
        repository
        for repository in repositories
        if repository.component == "main" and _DEBIAN_SUITES.fullmatch(repository.suite.removesuffix("-updates"))
    ]

    def likeness(repository: Repository) -> int:
        is_signed_so = any("debian-archive" in option for option in repository.options)
        is_named_so = re.search(r"/debian(?!-security)", repository.uri) is not None
        return 4 * is_signed_so + 2 * is_named_so + is_debian

    best = max(candidates, key=likeness, default=None)
    return best if best is not None and likeness(best) > 0 else None


def source_file(repositories: Iterable[Repository], architecture: str) -> str:
    """A deb822 source file for `repositories`; of their indexes only the package lists are read."""
    stanzas = [
        "\n".join(
            (
                "Types: deb",
                f"URIs: {repository.uri}",
                f"Suites: {repository.suite}",
                # A flat repository has a path in place of a suite, and no component.
                *([f"Components: {repository.component}"] if repository.component else []),
                f"Architectures: {architecture}",
                "Targets: Packages",
                *repository.options,
            )
        )
        for repository in repositories
    ]
    return "\n\n".join(stanzas) + "\n"


def preferences_file(packages: Iterable[str], suite: str) -> str:
    """Pins `packages` to `suite`: experimental ranks below every other suite unless it is asked for."""
    return f"Package: {' '.join(packages)}\nPin: release a={suite}\nPin-Priority: 1001\n"


def apt_configuration(folder: str) -> str:
    """Settings that keep apt inside `folder`; of the machine's own it reads the keys and the proxy.

    Read last (`--config-file`), so that it wins over the machine's own. No hook of the machine runs, and no
    sandbox user is taken, who could not read a private folder. Release files past their date are accepted: a
    snapshot or a stale mirror serves them, and each package is still checked against signed hashes.
    """
    lines = (
        f'Dir::State "{folder}/state";',
        f'Dir::State::lists "{folder}/lists";',
        f'Dir::State::status "{folder}/status";',
        f'Dir::Cache "{folder}/cache";',
        f'Dir::Etc::SourceList "{folder}/machine.sources";',
        'Dir::Etc::SourceParts "/dev/null";',
        f'Dir::Etc::Preferences "{folder}/preferences";',
        'Dir::Etc::PreferencesParts "/dev/null";',
        'APT::Default-Release "";',
        'APT::Sandbox::User "root";',
        'APT::Update::Error-Mode "any";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::Languages "none";',
        'Acquire::Retries "1";',
        'Acquire::http::Timeout "20";',
        'Acquire::https::Timeout "20";',
        "#clear APT::Update::Pre-Invoke;",
        "#clear APT::Update::Post-Invoke;",
        "#clear APT::Update::Post-Invoke-Success;",
    )
    return "\n".join(lines) + "\n"


def read_dependencies(output: str) -> dict[str, tuple[str, ...]]:
    """Direct dependencies by package, from `apt-cache depends --recurse`.

    A package stands at the line's start, its dependencies below it, indented (`  Depends: libc6`,
    ` |PreDepends: x`); a virtual one stands in angle brackets, and what provides it further indented, which
    is not needed here.
    """
    dependencies: dict[str, tuple[str, ...]] = {}
    package = ""
    for line in output.splitlines():
        if line and not line[0].isspace():
            package = line.strip()
            dependencies.setdefault(package, ())
            continue
        match = re.match(r"^ [ |](?:Pre)?Depends: ([^<\s]+)", line)
        if match and package and match[1] not in dependencies[package]:
            dependencies[package] = (*dependencies[package], match[1])
    return dependencies


def library_closure(dependencies: dict[str, tuple[str, ...]], roots: Iterable[str]) -> tuple[str, ...]:
    """`roots` and every shared library that they need, directly or not.

    Only packages named as Debian names libraries (lib*, zlib*; lua-* are Redis 7.0's) are followed: what else
    a package depends on (adduser, init scripts) serves its installation, and nothing is installed here.
    Whether the set is complete, the loader decides afterwards.
    """
    order: dict[str, None] = {}
    waiting = list(roots)
    while waiting:
        package = waiting.pop()
        if package in order:
            continue
        order[package] = None
        waiting += [
            name for name in dependencies.get(package, ()) if re.match(r"lib|zlib|lua", name) and "gconv" not in name
        ]
    return tuple(sorted(order))
