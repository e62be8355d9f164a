"""``.dockerignore``: which files of a context are not sent to the builder.

Patterns as the Dockerfile reference has them: Go's ``filepath.Match`` with ``**`` for any number
of folders, ``!`` for exceptions, ``#`` for comments; the last pattern that matches decides, and a
pattern that matches a folder matches what is in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES = 1 << 20


class Ignore:
    """The patterns of one file.

    Args:
        lines: The file's lines.
    """

    def __init__(self, lines: list[str]) -> None:
        self._patterns: list[tuple[bool, re.Pattern[str]]] = []
        for line in lines:
            text = line.strip()
            if not text or line.startswith("#"):
                continue
            exception = text.startswith("!")
            clean = _clean(text.removeprefix("!").strip())
            if clean:
                self._patterns.append((exception, re.compile(_expression(clean))))

    @property
    def has_exceptions(self) -> bool:
        """Whether something in an ignored folder may be wanted all the same."""
        return any(exception for exception, _ in self._patterns)

    def ignores(self, path: str) -> bool:
        """Tell whether a path below the context, with slashes, is left out."""
        ignored = False
        for exception, pattern in self._patterns:
            if pattern.fullmatch(path):
                ignored = not exception
        return ignored


def read_ignore(context: Path, dockerfile: Path | None) -> Ignore:
    """Return the patterns of ``DOCKERFILE.dockerignore``, else of ``.dockerignore``."""
    candidates = [context / ".dockerignore"]
    if dockerfile is not None:
        candidates.insert(0, dockerfile.with_name(f"{dockerfile.name}.dockerignore"))
    for path in candidates:
        if path.is_file():
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                return Ignore(file.read(_MAX_BYTES).splitlines())
    return Ignore([])


def _clean(pattern: str) -> str:
    """Return a pattern relative to the context, without ``.``, ``..`` and double slashes."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def _expression(pattern: str) -> str:
    """Return the regular expression for a pattern and everything below what it matches."""
    out = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if pattern.startswith("**/", index):
            out.append("(?:.*/)?")
            index += 3
            continue
        if pattern.startswith("**", index):
            out.append(".*")
            index += 2
            continue
        if char == "[" and (end := pattern.find("]", index + 2)) > 0:
            out.append(_character_class(pattern[index + 1 : end]))
            index = end + 1
            continue
        if char == "\\" and index + 1 < len(pattern):
            index += 1
            char = "\\" + pattern[index]
        out.append({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char[-1]))
        index += 1
    return f"{''.join(out)}(?:/.*)?"


def _character_class(inside: str) -> str:
    """Return the regular expression for ``[inside]``; a range that is none matches nothing."""
    negated = inside.startswith("^")
    rest = inside.removeprefix("^")
    members = []
    while rest:
        if len(rest) > 2 and rest[1] == "-":
            first, last, rest = rest[0], rest[2], rest[3:]
            if first <= last:
                members.append(f"{re.escape(first)}-{re.escape(last)}")
        else:
            members.append(re.escape(rest[0]))
            rest = rest[1:]
    if not members:
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(members)}]"
