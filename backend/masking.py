"""Secrets in addresses and command lines, masked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MASK = "***"
SECRET_NAME = re.compile(r"(?i)pass(word|wd|phrase)|token|secret|api_?key|credential|_auth$")
"""Found in the names of variables that hold secrets."""

_SECRET_OPTIONS = frozenset({"-p", "--password", "--docker-password", "--passphrase"})

_NAMES = r"pass(?:word|wd|phrase)?|token|secret|api_?key|credential|sig(?:nature)?|auth"
_USER_INFO = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]+@")
_IN_QUERY = re.compile(rf"(?i)([?&][\w.-]*(?:{_NAMES})=)[^&#\s]+")


def mask_url(text: str) -> str:
    """Return text with the passwords and signatures in its addresses masked.

    These are ``scheme://user:PASSWORD@host`` and ``?token=SECRET``.
    """
    return _IN_QUERY.sub(rf"\1{MASK}", _USER_INFO.sub(rf"\1:{MASK}@", text))


def mask_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the command line with the values of passwords and of ``TOKEN=...`` masked.

    What comes after ``--`` belongs to another program and is treated in the same way.
    """
    masked: list[str] = []
    follows = False
    for word in argv:
        masked.append(MASK if follows else _mask_word(word))
        follows = not follows and word in _SECRET_OPTIONS
    return tuple(masked)


def _mask_word(word: str) -> str:
    if word.startswith("-p") and not word.startswith("--") and len(word) > 2:
        return f"-p{MASK}"
    option, equals, value = word.partition("=")
    if equals and option in _SECRET_OPTIONS:
        return f"{option}={MASK}"
    if option.startswith("--") and equals:
        return f"{option}={_mask_assignment(value)}"
    return _mask_assignment(word)


def _mask_assignment(text: str) -> str:
    """Return ``NAME=value`` with its value masked when the name is one of a secret."""
    name, equals, _ = text.partition("=")
    if equals and re.fullmatch(r"\w+", name) and SECRET_NAME.search(name):
        return f"{name}={MASK}"
    return mask_url(text)
