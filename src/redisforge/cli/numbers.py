"""What is said of a value that is no number, or not one that an option takes: Typer's own words name no way out."""

from __future__ import annotations

from typing import Any

from redisforge.errors import UsageError

_WHOLE, _ANY = "int", "float"
"""What Typer calls its kinds of numbers; those with limits have a longer name."""


def number_error(error: Exception) -> UsageError | None:
    """The error of Typer in the form of all others; None where it is about something else than a number.

    Typer's classes for this are private, so its error is known by what it carries.
    """
    parameter: Any = getattr(error, "param", None)
    kind: Any = getattr(parameter, "type", None)
    given, separator, _ = str(getattr(error, "message", "")).partition(" is not ")
    if not (kind and separator and str(kind.name).startswith((_WHOLE, _ANY))):
        return None
    given = given.strip("'\"")
    number = "a whole number" if kind.name.startswith(_WHOLE) else "a number"
    wrong = "out of range" if _is_number(given, kind) else f"not {number}"
    name = _name(parameter)
    wanted = f"{number}{_limits(getattr(kind, 'min', None), getattr(kind, 'max', None))}"
    return UsageError(
        f"{name} {given or repr(given)} is {wrong}",
        next_step=f"give {name} {wanted}; `{_command(error)} --help` says what it is for",
    )


def _name(parameter: Any) -> str:
    """`--abort-over`, or the word that help has for an argument."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name).strip("[].")
    return max(parameter.opts, key=len)


def _is_number(text: str, kind: Any) -> bool:
    try:
        (int if kind.name.startswith(_WHOLE) else float)(text)
    except ValueError:
        return False
    return True


def _limits(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    if least is not None:
        return f", {least:g} or more"
    return "" if most is None else f", {most:g} or less"


def _command(error: Exception) -> str:
    """`redisforge scale add`, whatever the program is called here."""
    words: list[str] = []
    context: Any = getattr(error, "ctx", None)
    while context is not None and context.parent is not None:
        words.append(context.info_name)
        context = context.parent
    return " ".join(("redisforge", *reversed(words)))
