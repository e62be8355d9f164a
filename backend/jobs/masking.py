"""Secrets taken out of what a job's record keeps of its command line and environment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from backend.masking import MASK, mask_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SECRET_OPTIONS = frozenset({"-p", "--password", "--docker-password", "--passphrase"})
_SECRET_NAME = re.compile(r"(?i)pass(word|wd|phrase)|token|secret|api_?key|credential|_auth$")

_KEPT_PREFIXES = ("SIFDECK_", "SINGULARITY_", "APPTAINER_", "BUILDAH_", "DOCKER_")
_KEPT_NAMES = frozenset({"BUILDKIT_HOST", "CONTAINER_HOST", "SOURCE_DATE_EPOCH", "TMPDIR"})


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


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that change what a verb does, without their secrets."""
    return {
        name: MASK if _SECRET_NAME.search(name) else mask_url(value)
        for name, value in sorted(environment.items())
        if name.startswith(_KEPT_PREFIXES) or name in _KEPT_NAMES or name.lower().endswith("_proxy")
    }


def is_masked(values: Iterable[str]) -> bool:
    """Tell whether something was taken out, so that the values cannot be used again."""
    return any(MASK in value for value in values)


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
    if equals and re.fullmatch(r"\w+", name) and _SECRET_NAME.search(name):
        return f"{name}={MASK}"
    return mask_url(text)
