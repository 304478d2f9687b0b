"""Which passwords are refused. Pure; no message ever holds a part of the password."""

from __future__ import annotations

import re

MIN_LENGTH = 12
MAX_LENGTH = 512
"""Redis takes longer ones; every client and URL parser takes these."""
MIN_DIFFERENT_CHARACTERS = 6

_PLACEHOLDERS = (
    "changeme",
    "change_me",
    "change-me",
    "replaceme",
    "replace_me",
    "your_password",
    "yourpassword",
)
_COMMON = tuple(
    """
    iloveyou password passwort passw0rd p@ssw0rd princess football baseball superman 1234567890
    0123456789 123456789 12345678 1234567 123456 12345 1234 abcdefgh qwertyuiop asdfghjkl qwertz qwerty
    asdfgh zxcvbn 1q2w3e4r abcdef abc123 administrator admin letmein welcome monkey dragon master shadow
    sunshine trustno1 foobared foobar redisforge redis cluster replica replication secret default
    operator monitor readonly application envoy cache database server login example testing test pass
    user root guest demo
    """.split()  # noqa: SIM905 (a list of words reads better as words)
)
"""Words that make up most guessed passwords, longer ones first where one holds another."""

_REFERENCE = re.compile(r"\$(\{[^}]*\}|\([^)]*\)|[A-Za-z_][A-Za-z0-9_]*)\Z")


def weakness(password: str) -> str:
    """Why `password` cannot be used, as the rest of a sentence; empty if it can."""
    folded = password.lower()
    if not password:
        return "is empty"
    if any(word in folded for word in _PLACEHOLDERS) or re.fullmatch(r"<.*>", password):
        return "is a placeholder"
    if _REFERENCE.match(password):
        return "is a reference to another variable, and those are not expanded here"
    if any(not character.isprintable() for character in password):
        return "holds a control character or an unprintable one"
    if len(password) < MIN_LENGTH:
        return f"has {len(password)} characters, fewer than {MIN_LENGTH}"
    if len(password) > MAX_LENGTH:
        return f"has {len(password)} characters, more than {MAX_LENGTH}"
    if len(set(password)) < MIN_DIFFERENT_CHARACTERS:
        return f"has fewer than {MIN_DIFFERENT_CHARACTERS} different characters"
    if len(set(_without_common_words(folded))) < MIN_DIFFERENT_CHARACTERS:
        return "is made of common words"
    return ""


def _without_common_words(folded: str) -> str:
    for word in _COMMON:
        folded = folded.replace(word, "")
    return folded
