"""The layers on top of one another: defaults, redisforge.yaml, then what the environment overrides.

Everything that is wrong is found in one pass: what the schema refuses is taken out again, so that the rules
on the rest can still be checked.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from redisforge.config.environment import Overrides
from redisforge.config.problems import MAX_COUNTED, ConfigProblem, OptionPath, dotted
from redisforge.model.topology import Topology

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from redisforge.config.broken import BrokenRule
    from redisforge.config.schema import Declaration

_NODE_PORT: OptionPath = ("ports", "redis")
_PRIMARY_PORT: OptionPath = ("endpoints", "primary", "port")
_MODE: OptionPath = ("persistence", "mode")


class Written(msgspec.Struct, frozen=True):
    """What the file says: its data, the line of each option, its name in messages, its absolute path."""

    data: dict[str, Any]
    lines: dict[OptionPath, int]
    label: str
    source: str


class Declared(msgspec.Struct, frozen=True):
    """The outcome. With `problems`, the topology is not the one that was meant."""

    topology: Topology
    problems: tuple[ConfigProblem, ...]
    notices: tuple[str, ...]
    left_out: tuple[OptionPath, ...]
    """Options of the environment that were not used, with a notice."""


def declare(written: Written, overrides: Overrides, folder: Path) -> Declared:
    """Validate the layers and resolve them. `folder` (absolute) is where relative paths in the file start."""
    attempt = _Attempt(written, overrides, dict(overrides.values), folder)
    notices = attempt.make_room_for_primary()
    attempt.run()
    if attempt.nodes_in_the_way():
        notices.append(attempt.give_up_node_port())
        attempt.run()
    return Declared(
        topology=attempt.topology,
        problems=tuple(attempt.problems),
        notices=(*notices, *attempt.notices),
        left_out=tuple(path for path in overrides.values if path not in attempt.values),
    )


class _Attempt:
    """One way to combine the layers; `values` are the overrides that are still in force."""

    def __init__(self, written: Written, overrides: Overrides, values: dict[OptionPath, object], folder: Path) -> None:
        self.written = written
        self.overrides = overrides
        self.values = values
        self.folder = folder
        self.moved: dict[OptionPath, object] = {}
        self.problems: list[ConfigProblem] = []
        self.notices: list[str] = []
        self.topology: Topology
        self._broken: list[BrokenRule] = []

    def run(self) -> None:
        from redisforge.config.ports import broken_port_rules
        from redisforge.config.resolve import topology_of
        from redisforge.config.rules import broken_rules, notable

        declaration, errors, refused = _validate(self._layered())
        self.topology = topology_of(declaration, self.folder, self.written.source)
        self._broken = [
            broken
            for broken in (*broken_rules(declaration), *broken_port_rules(self.topology))
            if not any(_overlaps(path, wrong) for path in broken.paths for wrong in refused)
        ]
        self.problems = [self._refusal(error) for error in errors[:MAX_COUNTED]]
        self.problems += [self._violation(broken) for broken in self._broken]
        self.problems.sort(key=lambda problem: _line_of(problem.where))
        self.notices = notable(declaration)

    def make_room_for_primary(self) -> list[str]:
        """ENVOY_LISTENER_PORT knows one port only: a default endpoint that has it takes primary's default."""
        from redisforge.config.schema import DEFAULT_ENDPOINTS

        port, notices = self.values.get(_PRIMARY_PORT), list[str]()
        for name, default in DEFAULT_ENDPOINTS.items():
            path: OptionPath = ("endpoints", name, "port")
            if name == "primary" or default.port != port or path in self.written.lines:
                continue
            if _get(self.written.data, path[:2], {}) is None:
                continue  # switched off
            self.moved[path] = DEFAULT_ENDPOINTS["primary"].port
            notices.append(
                f"ENVOY_LISTENER_PORT={port} is the default port of endpoint {name}, which therefore "
                f"takes {self.moved[path]}"
            )
        return notices

    def nodes_in_the_way(self) -> bool:
        """Whether REDIS_PORT, meant for a node with a host of its own, puts nodes on an endpoint's port."""
        if _NODE_PORT not in self.values:
            return False
        return any(
            _NODE_PORT in broken.paths
            and any(
                path[0] in {"endpoints", "envoy"} and (path not in self.written.lines or path in self.values)
                for path in broken.paths
            )
            for broken in self._broken
        )

    def give_up_node_port(self) -> str:
        """Leave REDIS_PORT out; returns the notice."""
        port = self.values.pop(_NODE_PORT)
        return (
            f"REDIS_PORT={port} is not used: on one machine the nodes would take the port of an endpoint. "
            "Set ports.redis in redisforge.yaml to choose where they start"
        )

    def _layered(self) -> dict[str, Any]:
        data: dict[str, Any] = copy.deepcopy(self.written.data)
        for path, value in (self.moved | self.values).items():
            if path == _MODE and value == "rdb" and _get(data, path, "") == "none":
                continue  # REDIS_AOF_ENABLED=no says "no AOF", and there is none
            _put(data, path, value)
        return data

    def _refusal(self, error: ErrorDetails) -> ConfigProblem:
        from redisforge.config.messages import advice, sentence
        from redisforge.config.schema import model_at

        path = _path_of(error)
        parent = model_at(path[:-1])
        fields = parent.model_fields if parent else {}
        field = fields.get(str(path[-1])) if path else None
        default = field.default if field and not field.is_required() else None
        where, subject = self._origin(path)
        return ConfigProblem(where, subject, sentence(error), advice(error, fields, default))

    def _violation(self, broken: BrokenRule) -> ConfigProblem:
        given = [path for path in broken.paths if path in self.values or path in self.written.lines]
        where, subject = self._origin(given[0] if given else broken.paths[0])
        return ConfigProblem(where, subject, broken.what, broken.next_step)

    def _origin(self, path: OptionPath) -> tuple[str, str]:
        """Where an option was set, and what it is called there."""
        if path in self.values:
            variable = self.overrides.origins[path]
            return variable.where, f"{variable.name} ({dotted(path)})"
        label, nearest = self.written.label, path
        while nearest and nearest not in self.written.lines:
            nearest = nearest[:-1]
        line = self.written.lines.get(nearest) if nearest else None
        return (f"{label}:{line}" if line else label), dotted(path)


def _validate(data: dict[str, Any]) -> tuple[Declaration, list[ErrorDetails], list[OptionPath]]:
    """The declaration without what is wrong, the errors, and the options that were taken out for them."""
    from pydantic import ValidationError

    from redisforge.config.schema import Declaration

    errors: list[ErrorDetails] = []
    refused: list[OptionPath] = []
    while True:
        try:
            return Declaration.model_validate(data), errors, refused
        except ValidationError as error:
            found = _essential(error.errors(include_url=False))
        if not refused:
            errors = found  # later rounds only meet what the taking out left behind
        refused += [_path_of(detail) for detail in found]
        # hosts go together: the list without the wrong ones would break rules that the file does not break
        paths = [path[:1] if path[:1] == ("hosts",) else path for path in refused]
        if not any([_take_out(data, path) for path in paths]):  # noqa: C419 (all of them are to be taken out)
            return Declaration(), errors, refused


def _essential(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the complaint that a list is too short, which pydantic adds when its items are wrong."""
    paths = [_path_of(error) for error in errors]
    return [
        error
        for error, path in zip(errors, paths, strict=True)
        if error["type"] != "too_short" or not any(other[:-1][: len(path)] == path for other in paths)
    ]


def _path_of(error: ErrorDetails) -> OptionPath:
    """The option that an error is about; pydantic marks an error of a key with a last part "[key]"."""
    return tuple(part for part in error["loc"] if part != "[key]")


def _take_out(data: dict[str, Any], path: OptionPath) -> bool:
    """Remove the option at `path`, or the nearest one around it that is there. Whether there was one."""
    for length in range(len(path), 0, -1):
        parent = _section(_get(data, path[: length - 1], None))
        if parent is not None and path[length - 1] in parent:
            del parent[path[length - 1]]
            return True
    return False


def _section(value: object) -> dict[Any, Any] | None:
    return cast("dict[Any, Any]", value) if isinstance(value, dict) else None


def _get(data: dict[str, Any], path: OptionPath, default: Any) -> Any:
    current: Any = data
    for part in path:
        section = _section(current)
        if section is None or part not in section:
            return default
        current = section[part]
    return current


def _put(data: dict[str, Any], path: OptionPath, value: object) -> None:
    """Set the option at `path`, unless something that is no section is in its way (reported elsewhere)."""
    section: dict[Any, Any] = data
    for name in path[:-1]:
        if section.get(name) is None:
            section[name] = {}
        inner = _section(section[name])
        if inner is None:
            return
        section = inner
    section[path[-1]] = value


def _overlaps(path: OptionPath, other: OptionPath) -> bool:
    shorter = min(len(path), len(other))
    return path[:shorter] == other[:shorter]


def _line_of(where: str) -> int:
    line = where.rpartition(":")[2]
    return int(line) if line.isdigit() else 0
