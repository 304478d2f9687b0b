"""What is wrong with a declaration: every finding, so that one run shows them all."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from redisforge.errors import ConfigError, RedisForgeError, SecretError

OptionPath = tuple[str | int, ...]
"""Where an option stands, from the top: `("hosts", 0, "address")`."""

MAX_SHOWN = 40
"""Problems shown in one run. More than that share a cause, and would scroll the first ones away."""
MAX_COUNTED = 200
"""Problems that are worded at all; a file of nothing but mistakes has tens of thousands."""


class ConfigProblem(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    `where` is `FILE:LINE`, `FILE` or `environment`; `subject` the option's dotted path or a variable's name
    (may be empty); `next_step` what to do, a full sentence. `is_secret` marks a problem of a password.
    """

    where: str
    subject: str
    what: str
    next_step: str = ""
    is_secret: bool = False

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.where, self.subject, self.what) if part)
        return printable(f"{text}. {self.next_step}" if self.next_step else text)


def printable(text: str) -> str:
    """The text on one line, with escapes for what a terminal would obey or cannot show."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def dotted(path: OptionPath) -> str:
    """`("hosts", 0, "address")` as `hosts[0].address`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


class Advice(msgspec.Struct, frozen=True):
    """What to do next where only passwords are wrong, and else."""

    passwords: str = "set strong passwords, or remove the lines: RedisForge then generates them"
    others: str = "correct them and check again with: redisforge config check"


USUAL_ADVICE = Advice()


def error_for(problems: Sequence[ConfigProblem], source: str, advice: Advice = USUAL_ADVICE) -> RedisForgeError:
    """The error that shows all `problems`: a SecretError if only passwords are wrong, else a ConfigError."""
    shown = [str(problem) for problem in problems[:MAX_SHOWN]]
    if len(problems) > MAX_SHOWN:
        shown.append(f"... and at least {len(problems) - MAX_SHOWN} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    if all(problem.is_secret for problem in problems):
        return SecretError(
            "a password cannot be used" if len(problems) == 1 else f"{len(problems)} passwords cannot be used",
            why="\n".join(shown),
            next_step=advice.passwords,
        )
    return ConfigError(
        f"{source} is not valid: {count}",
        problems=tuple(shown),
        next_step=advice.others,
    )
