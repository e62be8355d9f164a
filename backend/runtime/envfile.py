"""The file of ``--env-file``: a shell's assignments, evaluated without a shell.

``NAME=value`` on each line, with a shell's quotes, backslashes and ``$NAME``, ``${NAME}``,
``${NAME:-default}``, as SingularityCE evaluates it; and as in Docker's files a value may hold
spaces without quotes, and a lone ``NAME`` takes the host's value.  No commands are run.
"""

from __future__ import annotations

import os
import re

from backend.errors import UsageError
from backend.escape import quoted

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_FILE = 1 << 20
_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*(=?)")
_PIECE = re.compile(
    r"""
    '(?P<literal>[^']*)'
    | "(?P<quoted>(?:[^"\\]|\\.)*)"
    | \\(?P<escaped>.)
    | (?P<variable>\$\{[^}]*\}|\$[A-Za-z_][A-Za-z0-9_]*)
    | (?P<end>\n|[ \t]\#[^\n]*)
    | (?P<command>\$\(|`)
    | (?P<open>['"])
    | (?P<plain>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_INNER = re.compile(r"\\([$`\"\\])|\\\n|(\$\{[^}]*\}|\$[A-Za-z_][A-Za-z0-9_]*)|(\$\(|`)")
_REFERENCE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}?")


def read_env_file(path: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that a file sets, in order.

    Raises:
        UsageError: It cannot be read, or something in it is no assignment.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read the env file {quoted(path)}: {error.strerror}") from error
    if len(data) > _MAX_FILE:
        raise UsageError(f"the env file {quoted(path)} is larger than 1 MiB")
    text = data.decode("utf-8", "surrogateescape")
    known = dict(os.environ)
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
        elif text[position] == "#":
            position = _line_end(text, position)
        else:
            name, value, position = _assignment(text, position, known, path)
            if value is not None:
                found.append((name, value))
                known[name] = value
    return tuple(found)


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _assignment(
    text: str, position: int, known: Mapping[str, str], path: str
) -> tuple[str, str | None, int]:
    """Return a variable's name, its value (None: the host has none), and where it ends."""
    match = _NAME.match(text, position)
    end = _line_end(text, position)
    if not match or (not match[2] and text[match.end() : end].strip()):
        line = text[position:end]
        raise UsageError(
            f"not a variable in {quoted(path)}: {quoted(line, limit=60)}",
            hint="write it as NAME=value",
        )
    if not match[2]:
        return match[1], os.environ.get(match[1]), end
    value, end = _value(text, match.end(), known, path)
    return match[1], value, end


def _value(text: str, position: int, known: Mapping[str, str], path: str) -> tuple[str, int]:
    parts: list[str] = []
    blanks = ""  # those at the end do not count
    while piece := _PIECE.match(text, position):
        kind, content = piece.lastgroup or "", piece[piece.lastgroup or 0]
        if kind == "end":
            break
        position = piece.end()
        if kind in {"command", "open"}:
            what = "commands are not run" if kind == "command" else "a quote is not closed"
            raise UsageError(f"in the env file {quoted(path)} {what}")
        if kind == "plain" and content.isspace():
            blanks += content
            continue
        parts.append((blanks if parts else "") + _meaning(kind, content, known, path))
        blanks = ""
    return "".join(parts), _line_end(text, position)


def _meaning(kind: str, content: str, known: Mapping[str, str], path: str) -> str:
    if kind == "variable":
        return _look_up(content, known, path)
    if kind == "escaped":
        return "" if content == "\n" else content
    if kind == "quoted":
        return _INNER.sub(lambda match: _inner(match, known, path), content)
    return content


def _inner(match: re.Match[str], known: Mapping[str, str], path: str) -> str:
    if match[3]:
        raise UsageError(f"in the env file {quoted(path)} commands are not run")
    return _look_up(match[2], known, path) if match[2] else match[1] or ""


def _look_up(reference: str, known: Mapping[str, str], path: str) -> str:
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise UsageError(f"the env file {quoted(path)} has {quoted(reference, limit=60)}",
                         hint="$NAME, ${NAME} and ${NAME:-default} can be used")  # fmt: skip
    return known.get(match[1]) or match[2] or ""
