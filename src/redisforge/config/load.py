"""redisforge.yaml, .env and the environment become a Topology, or one error that lists every problem.

Order of precedence: the process environment, then .env beside redisforge.yaml (in the current folder if there
is no redisforge.yaml), then redisforge.yaml, then the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from redisforge.config import dotenv, yaml_lines
from redisforge.config.environment import (
    OPERATOR_VARIABLE,
    PROCESS,
    UsedVariable,
    Variable,
    known_names,
    read_overrides,
    used_variables,
)
from redisforge.config.files import UnreadableFileError, read_bounded
from redisforge.config.layers import Declared, Written, declare
from redisforge.config.problems import USUAL_ADVICE, Advice, ConfigProblem, error_for
from redisforge.model.secret import Secret
from redisforge.model.topology import Topology, UserRole

CONFIG_NAME = "redisforge.yaml"
DOTENV_NAME = ".env"

_EMPTY_ADVICE = "Write a commented example with: redisforge init. Without the file the built-in topology is used."


class LoadedConfig(msgspec.Struct, frozen=True):
    """What was declared. `passwords` holds, by user name, those that were supplied; the others are generated.

    `notices` are sentences for the operator; `used_environment` the variables that took effect.
    """

    topology: Topology
    passwords: dict[str, Secret]
    notices: tuple[str, ...]
    used_environment: tuple[UsedVariable, ...]


def load(
    path: Path | None,
    environment: Mapping[str, str],
    working_folder: Path,
    *,
    without: frozenset[str] = frozenset(),
    found: Sequence[ConfigProblem] = (),
    advice: Advice = USUAL_ADVICE,
) -> LoadedConfig:
    """Read the declaration.

    Args:
        path: the file (`--config`); None: redisforge.yaml in `working_folder` if there, else the defaults.
        environment: the process environment.
        working_folder: where relative paths start.
        without: names of variables that are not to be regarded.
        found: what is known to be wrong already, to be told with the rest.
        advice: what the error says is to be done.

    Raises:
        ConfigError: with every problem found.
        SecretError: all problems are weak passwords.
    """
    folder = working_folder.absolute()
    written, problems = _read_config(path, folder)
    base = Path(written.source).parent if written.source else folder
    label = DOTENV_NAME if base == folder else str(base / DOTENV_NAME)
    known = [name for name in known_names() if name not in without]
    variables, notices, dotenv_problems = read_variables(base / DOTENV_NAME, label, known, environment)
    overrides = read_overrides(variables)
    declared = declare(written, overrides, base)
    of_variables = list(overrides.problems)
    if declared.topology.access:  # whoever runs the nodes has chosen their password
        weak = [problem for problem in of_variables if problem.subject == OPERATOR_VARIABLE]
        of_variables = [problem for problem in of_variables if problem not in weak]
        notices += [f"{problem.subject} {problem.what}: whoever guesses it may do everything" for problem in weak]
    problems = list(dict.fromkeys((*found, *problems, *dotenv_problems, *of_variables, *declared.problems)))
    if problems:
        raise error_for(problems, _blamed(problems), advice)
    return _loaded(declared, notices, overrides.passwords, used_variables(overrides, declared.left_out))


def _loaded(
    declared: Declared,
    notices: list[str],
    passwords: Mapping[UserRole, Secret],
    used: tuple[UsedVariable, ...],
) -> LoadedConfig:
    topology = declared.topology
    by_user = {user.name: passwords[user.role] for user in topology.users if user.role in passwords}
    return LoadedConfig(topology, by_user, (*notices, *declared.notices), used)


def _blamed(problems: list[ConfigProblem]) -> str:
    """What is called invalid: the file that holds all problems, or the configuration as a whole."""
    names = {problem.where.rpartition(":")[0] or problem.where for problem in problems}
    return names.pop() if len(names) == 1 else "the configuration"


def _read_config(path: Path | None, folder: Path) -> tuple[Written, list[ConfigProblem]]:
    label = CONFIG_NAME if path is None else str(path)
    file = folder / (path or CONFIG_NAME)
    try:
        content, _ = read_bounded(file, yaml_lines.MAX_BYTES)
    except UnreadableFileError as error:
        if path is None and str(error) == "does not exist" and not file.is_symlink():
            return Written(data={}, lines={}, label=label, source=""), []
        advice = _EMPTY_ADVICE if str(error) == "does not exist" else ""
        return Written({}, {}, label, str(file)), [ConfigProblem(label, "", str(error), advice)]
    try:
        document = yaml_lines.read_yaml(content)
    except yaml_lines.UnreadableYamlError as error:
        where = f"{label}:{error.line}" if error.line else label
        return Written({}, {}, label, str(file)), [ConfigProblem(where, "", error.what, error.next_step)]
    if isinstance(document.data, dict):
        return Written(document.data, document.lines, label, str(file)), []  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]
    where = f"{label}:{document.lines.get((), 1)}"
    if document.data is None:
        problem = ConfigProblem(label, "", "is empty: it declares nothing", _EMPTY_ADVICE)
    else:
        what = "must hold options, one `key: value` on a line"
        problem = ConfigProblem(where, "", what, _EMPTY_ADVICE)
    return Written({}, {}, label, str(file)), [problem]


def read_variables(
    file: Path, label: str, known: Sequence[str], environment: Mapping[str, str]
) -> tuple[dict[str, Variable], list[str], list[ConfigProblem]]:
    """The variables called `known`: those of .env, if it is there (`label` in messages), and over them those of the
    environment; with what is to be noticed and what is wrong."""
    variables, notices, problems = _read_dotenv(file, label, frozenset(known))
    for name in known:
        if name in environment:
            variables[name] = Variable(name, environment[name], PROCESS)
    return variables, notices, problems


def _read_dotenv(
    file: Path, label: str, known: frozenset[str]
) -> tuple[dict[str, Variable], list[str], list[ConfigProblem]]:
    try:
        content, mode = read_bounded(file, dotenv.MAX_BYTES)
    except UnreadableFileError as error:
        absent = str(error) == "does not exist"
        return {}, [], [] if absent else [ConfigProblem(label, "", str(error))]
    if len(content) > dotenv.MAX_BYTES:
        return {}, [], [ConfigProblem(label, "", f"is larger than {dotenv.MAX_BYTES // 1024} KiB")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return {}, [], [ConfigProblem(f"{label}:{line}", "", "is not UTF-8 text", "Save it as UTF-8.")]
    lines, unreadable = dotenv.read_dotenv(text)
    problems = [ConfigProblem(f"{label}:{found.line}", "", found.what) for found in unreadable]
    variables = {
        name: Variable(name, line.value, f"{label}:{line.line}") for name, line in lines.items() if name in known
    }
    notices: list[str] = []
    if mode & 0o077 and any(name.endswith("PASS") for name in variables):
        notices.append(f"{label} holds passwords and others can read it (mode {mode:04o}): chmod 600 {label}")
    return variables, notices, problems
