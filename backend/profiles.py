"""Named sets of flags for ``run``, kept in the user's ``config.toml``.

The file belongs to its user: one line of it is changed or added, comments and order stay, and
what comes out is read again before it replaces the file.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from typing import TYPE_CHECKING

from backend.errors import BackendError, UsageError
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_HEADER = re.compile(r"\s*\[\s*profiles\s*\]\s*(#.*)?")
_ANY_HEADER = re.compile(r"\s*\[")


def check_name(name: str) -> str:
    """Return the name of a profile.

    Raises:
        UsageError: It is none.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{one_line(name, limit=60)!r} is no name for a profile",
            hint="letters, digits, - and _, at most 40",
        )
    return name


def save_profile(path: Path, name: str, flags: Sequence[str]) -> None:
    """Keep flags under a name; no flags take the name away.

    Raises:
        UsageError: The name is none, or the file is written in a way that we do not change.
        BackendError: The file cannot be read or written.
    """
    check_name(name)
    path = path.resolve()
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        changed = _changed(text, name, flags)
        if _settings(changed) != _wanted(text, name, flags):
            raise UsageError(
                f"[profiles] in {one_line(str(path))} is not written a line for each profile",
                hint=f"write it there yourself: {name} = {json.dumps(list(flags))}",
            )
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(changed, encoding="utf-8")
        if path.exists():
            partial.chmod(path.stat().st_mode & 0o777)
        partial.replace(path)
    except (OSError, ValueError) as error:
        raise BackendError(
            f"cannot change {one_line(str(path))}", why=one_line(str(error))
        ) from error


def _changed(text: str, name: str, flags: Sequence[str]) -> str:
    """Return the file with the line of one profile changed, added or gone."""
    lines = text.splitlines()
    entry = [f"{name} = {json.dumps(list(flags))}"] if flags else []
    begin = next((at for at, line in enumerate(lines) if _HEADER.fullmatch(line)), None)
    if begin is None:
        added = ["", "[profiles]", *entry] if entry else []
        return "\n".join([*lines, *added]).lstrip("\n") + "\n"
    section = lines[begin + 1 :]
    length = next((at for at, line in enumerate(section) if _ANY_HEADER.match(line)), len(section))
    own = re.compile(rf"\s*{re.escape(name)}\s*=.*")
    kept = [line for line in section[:length] if not own.fullmatch(line)]
    return "\n".join([*lines[: begin + 1], *entry, *kept, *section[length:]]) + "\n"


def _settings(text: str) -> object:
    """Return a file's settings, the profiles among them."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    document.setdefault("profiles", {})
    return document


def _wanted(text: str, name: str, flags: Sequence[str]) -> object:
    """Return the settings as they are to be."""
    document = tomllib.loads(text)
    profiles = dict(document.get("profiles", {}))
    profiles.pop(name, None)
    return {**document, "profiles": {**profiles, **({name: list(flags)} if flags else {})}}
