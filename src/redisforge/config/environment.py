"""Which names of the environment and of .env mean which option or password.

The names are those of the common Redis Cluster + Envoy convention, in which every node has a host of its own.
A file of that convention works unchanged: names that mean nothing on one machine are ignored, and so are all
other names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from redisforge.config.messages import shown
from redisforge.config.passwords import weakness
from redisforge.config.problems import ConfigProblem, OptionPath, dotted
from redisforge.config.values import version_numbers
from redisforge.model.secret import Secret
from redisforge.model.topology import UserRole

PROCESS = "environment"
"""Where a variable of the process environment is said to come from."""

OLDEST_ENGINE = (7, 0)
"""ACL files with selectors, CLUSTER ADDSLOTSRANGE and CLUSTER SHARDS came with Redis 7.0."""


class Variable(msgspec.Struct, frozen=True):
    """A variable as it was found; `where` is `FILE:LINE` or `environment`."""

    name: str
    value: str
    where: str

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, ***, {self.where!r})"


class UsedVariable(msgspec.Struct, frozen=True):
    """A variable that took effect, where it came from, and what it set. Never its value."""

    name: str
    where: str
    sets: str


class OptionVariable(msgspec.Struct, frozen=True):
    """A name that sets an option. `read` turns its text into the option's value or raises ValueError."""

    name: str
    path: OptionPath
    read: Callable[[str], object]
    note: str = ""


class Overrides(msgspec.Struct, frozen=True):
    """What the environment says: option values and passwords with the variable of each, and what is wrong."""

    values: dict[OptionPath, object]
    origins: dict[OptionPath, Variable]
    passwords: dict[UserRole, Secret]
    password_origins: dict[UserRole, Variable]
    problems: tuple[ConfigProblem, ...]


def _text(text: str) -> object:
    return text


def _word(text: str) -> object:
    return text.lower()


def _whole_number(text: str) -> object:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _number(text: str) -> object:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError("must be a number")
    return float(text)


def _append_only(text: str) -> object:
    if text.lower() in {"yes", "true", "on", "1"}:
        return "aof"
    if text.lower() in {"no", "false", "off", "0"}:
        return "rdb"
    raise ValueError("must be yes or no")


def _version_floor(text: str) -> object:
    """`8.2`, `v1.32-latest` and `7.2-alpine` name an image of a series: here the oldest version to accept."""
    if re.match(r"(latest|newest|stable)\b", text):
        return "newest"
    match = re.fullmatch(r"(?:>=)?v?([0-9]{1,3})(?:\.([0-9]{1,4}))?(\.[0-9]{1,4})?([-+].*)?", text)
    if not match:
        raise ValueError('must be a version such as "8.2" or "v1.32-latest"')
    return f">={match[1]}.{match[2] or 0}{match[3] or ''}"


def _engine_floor(text: str) -> object:
    """As above; an older engine than RedisForge works with cannot be asked for, only a newer one accepted."""
    floor = str(_version_floor(text))
    oldest = ".".join(str(number) for number in OLDEST_ENGINE)
    return f">={oldest}" if floor != "newest" and version_numbers(floor) < OLDEST_ENGINE else floor


OPTION_VARIABLES = (
    OptionVariable("REDIS_VERSION", ("engine", "version"), _engine_floor, 'The oldest version: 8.2 means ">=8.2".'),
    OptionVariable(
        "REDIS_PORT",
        ("ports", "redis"),
        _whole_number,
        "Not used, with a notice, if the nodes would take an endpoint's port.",
    ),
    OptionVariable(
        "REDIS_AOF_ENABLED",
        ("persistence", "mode"),
        _append_only,
        "yes means aof; no means rdb, unless it is none.",
    ),
    OptionVariable("REDIS_APPEND_FSYNC", ("persistence", "fsync"), _word),
    OptionVariable("REDIS_MAXMEMORY", ("memory", "max"), _word),
    OptionVariable("REDIS_MAXMEMORY_POLICY", ("memory", "policy"), _word),
    OptionVariable("REDIS_LOGLEVEL", ("log_level",), _word),
    OptionVariable("REPLICAS_PER_MASTER", ("replicas",), _whole_number),
    OptionVariable("REDIS_IO_THREADS", ("io_threads",), _whole_number),
    OptionVariable("REDIS_TCP_BACKLOG", ("tcp_backlog",), _whole_number),
    OptionVariable("REDIS_MAX_CLIENTS", ("max_clients",), _whole_number),
    OptionVariable("REDIS_CLUSTER_NODE_TIMEOUT", ("node_timeout_ms",), _whole_number),
    OptionVariable("ENVOY_VERSION", ("envoy", "version"), _version_floor, 'v1.32-latest means ">=1.32".'),
    OptionVariable("ENVOY_ADMIN_PORT", ("envoy", "admin_port"), _whole_number),
    OptionVariable(
        "ENVOY_LISTENER_PORT",
        ("endpoints", "primary", "port"),
        _whole_number,
        "An endpoint that has this port by default takes 6380 instead, with a notice.",
    ),
    OptionVariable("ENVOY_CLUSTER_REFRESH_SECONDS", ("envoy", "refresh_s"), _number),
    OptionVariable("ENVOY_MAX_CONNECTIONS", ("envoy", "max_connections"), _whole_number),
    OptionVariable("ENVOY_MAX_PENDING_REQUESTS", ("envoy", "max_pending_requests"), _whole_number),
    OptionVariable("REDIS_OPERATOR_USER", ("users", "operator", "name"), _text),
    OptionVariable("REDIS_ACL_USER", ("users", "application", "name"), _text),
    OptionVariable("REDIS_READONLY_USER", ("users", "readonly", "name"), _text),
    OptionVariable("REDIS_MONITOR_USER", ("users", "monitor", "name"), _text),
    OptionVariable("REDIS_REPLICATION_USER", ("users", "replication", "name"), _text),
    OptionVariable("REDIS_HANDOFF_USER", ("users", "handoff", "name"), _text),
)

OPERATOR_VARIABLE = "REDIS_REQUIREPASS"
"""Holds the password with which RedisForge itself logs in."""
PASSWORD_VARIABLES = {
    OPERATOR_VARIABLE: UserRole.OPERATOR,
    "REDIS_ACL_PASS": UserRole.APPLICATION,
    "REDIS_READONLY_PASS": UserRole.READONLY,
    "REDIS_MONITOR_PASS": UserRole.MONITOR,
    "REDIS_REPLICATION_PASS": UserRole.REPLICATION,
    "REDIS_HANDOFF_PASS": UserRole.HANDOFF,
}


TOOL_VARIABLES = {
    "REDISFORGE_HOME": "The folder of all state of this user's clusters. Default: `redisforge` in the platform's state "
    "folder (`~/.local/state` on Linux).",
    "REDISFORGE_CACHE": "The folder of fetched programs. Default: `redisforge` in the platform's cache folder "
    "(`~/.cache` on Linux).",
    "REDISFORGE_LOST_HOSTS": "Names of hosts as redisforge.yaml has them, with commas between; blanks beside them do "
    "not count. A verb that changes a cluster over SSH takes its lock on more than half of the hosts: those named "
    "here are not asked for it and not counted, so it is more than half of the others. Nothing else goes by it: what "
    "runs on such a host is still asked for, and is unknown if the host does not answer. A name of no host has no "
    "effect; with all hosts named the lock cannot be had. For hosts that are lost, and on which nobody else operates.",
    "REDISFORGE_DEBUG": "Anything but empty: an error shows its traceback, as with `--debug`.",
}
"""What the tool itself goes by, of the process environment alone: not of .env."""


def known_names() -> tuple[str, ...]:
    """All names that mean something."""
    return (*(variable.name for variable in OPTION_VARIABLES), *PASSWORD_VARIABLES)


def read_overrides(variables: Mapping[str, Variable]) -> Overrides:
    """What `variables` say. A name without a value sets nothing, except that a password must not be empty."""
    found = Overrides({}, {}, {}, {}, ())
    problems: list[ConfigProblem] = []
    for option in OPTION_VARIABLES:
        variable = variables.get(option.name)
        if variable is None or not variable.value.strip():
            continue
        text = variable.value.strip()
        try:
            found.values[option.path] = option.read(text)
        except ValueError as error:
            what = f"{error} (got {shown(text)})"
            problems.append(ConfigProblem(variable.where, variable.name, what, _advice(variable)))
        else:
            found.origins[option.path] = variable
    for name, role in PASSWORD_VARIABLES.items():
        if (variable := variables.get(name)) is None:
            continue
        if weak := weakness(variable.value):
            problems.append(ConfigProblem(variable.where, name, weak, "Give a longer, random one.", is_secret=True))
        found.passwords[role] = Secret(variable.value)
        found.password_origins[role] = variable
    return msgspec.structs.replace(found, problems=tuple(problems))


def _advice(variable: Variable) -> str:
    if variable.where == PROCESS and variable.value.startswith(("tcp://", "udp://")):
        return f"A container platform sets it for a service of this name: unset {variable.name}."
    return f"Correct it or unset {variable.name}." if variable.where == PROCESS else "Correct it or remove the line."


def used_variables(overrides: Overrides, left_out: Iterable[OptionPath]) -> tuple[UsedVariable, ...]:
    """The variables that took effect: all that were read, except for the options in `left_out`."""
    skipped = set(left_out)
    options = [
        UsedVariable(variable.name, variable.where, dotted(path))
        for path, variable in overrides.origins.items()
        if path not in skipped
    ]
    passwords = [
        UsedVariable(variable.name, variable.where, f"password of the {role} user")
        for role, variable in overrides.password_origins.items()
    ]
    return (*options, *passwords)
