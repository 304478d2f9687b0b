"""What pydantic found, in words for the person who wrote the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from redisforge.config.problems import dotted, printable

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a section with keys",
    "model_type": "a section with keys",
    "model_attributes_type": "a section with keys",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("above", "gt"),
    "less_than": ("below", "lt"),
}
_ADVICE = {
    "shards": "A failover needs the votes of a majority of masters, so a cluster needs three of them.",
    "endpoints.primary": "It cannot be switched off: it is the endpoint that every client can use.",
    "hosts": "List hosts as `- {name: a, address: 127.0.0.1}`, or remove it to use this machine.",
}
_ENV_ADVICE = (
    "Passwords do not belong into this file: put them into .env, for example REDIS_ACL_PASS=... "
    "(docs/reference/env.md has the names)."
)
_PASSWORD_WORDS = ("password", "passwd", "pass", "secret", "requirepass", "masterauth")


def sentence(error: ErrorDetails) -> str:
    """What is wrong, for example "must be at least 3 (got 2)"."""
    kind, context = error["type"], error.get("ctx", {})
    got = shown(error.get("input"))
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is not an option"
    if kind in _WANTED:
        return f"must be {_WANTED[kind]} (got {got})"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"must be {words} {_number(context[name])} (got {got})"
    if kind == "literal_error":
        return f"must be one of {_choices(error)} (got {got})"
    if kind == "too_short":
        return f"must have at least {context['min_length']} entries (got {context['actual_length']})"
    if kind == "too_long":
        return f"must have at most {context['max_length']} entries"
    if kind == "value_error":
        return f"{context['error']} (got {got})"
    return f"{error['msg']} (got {got})"


def advice(error: ErrorDetails, siblings: Iterable[str], default: object) -> str:
    """What to do about it. `siblings`: the keys that exist there; `default`: the option's default or None."""
    kind, path = error["type"], dotted(error["loc"])
    name = str(error["loc"][-1]) if error["loc"] else ""
    if kind == "extra_forbidden":
        if any(word in name.lower() for word in _PASSWORD_WORDS):
            return _ENV_ADVICE
        return _unknown_key_advice(name, list(siblings))
    if kind == "missing":
        return "Add it."
    if kind == "literal_error" and isinstance(error["input"], str):
        return _nearest(error["input"], _choice_list(error))
    if path in _ADVICE:
        return _ADVICE[path]
    if isinstance(default, str | int | float) and default != "" and kind != "value_error":
        return f"The default is {shown(default)}."
    return ""


def _unknown_key_advice(name: str, siblings: list[str]) -> str:
    nearest = _nearest(name, siblings)
    if nearest or not siblings:
        return nearest or "Remove it."
    return f"Known here: {', '.join(siblings)}."


def _nearest(name: str, known: list[str], cutoff: float = 0.6) -> str:
    folded = name.lower().replace("_", "-")
    by_folded = {word.lower().replace("_", "-"): word for word in known}
    found = difflib.get_close_matches(folded[:80], by_folded, n=1, cutoff=cutoff)
    return f"Did you mean {by_folded[found[0]]}?" if found else ""


def nearest_of(name: str, known: Iterable[str]) -> str:
    """`Did you mean NAME?`, or nothing if no known name is near. Among hundreds only a close one counts."""
    return _nearest(name, list(known), cutoff=0.8)


def shown(value: object) -> str:
    """A value in a message: short, on one line, and saying its type where that matters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = printable(value[:61])
        return f'"{text[:60]}..."' if len(text) > 60 else f'"{text}"'
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list | tuple):
        return "a list"
    return f"{value}"[:60]


def _choice_list(error: ErrorDetails) -> list[str]:
    expected: str = error.get("ctx", {}).get("expected", "")
    return [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]


def _choices(error: ErrorDetails) -> str:
    return ", ".join(_choice_list(error))


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
