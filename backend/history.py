"""What the journal knows of image files: the last word on each."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backend.journal import VERDICTS, journal_path

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHORT = 1 << 20
"""Bytes from which on the journal is written anew, with the last word on each file only."""
_MOST = 16 << 20
"""Bytes that are read, the last ones; a journal only grows while nobody reads it."""


class Known(NamedTuple):
    """What the journal knows of a file.

    Attributes:
        used: When it was last run, seconds since 1970; 0 for never.
        verdict: How its last check ended; empty when there was none.
        size: Bytes of the file that was checked.
        modified_ns: Its time of change, nanoseconds since 1970.
    """

    used: float = 0.0
    verdict: str = ""
    size: int = 0
    modified_ns: int = 0


def read_journal() -> Mapping[str, Known]:
    """Return what is known, by absolute path; lines that make no sense are passed over."""
    found: dict[str, Known] = {}
    path = journal_path()
    with contextlib.suppress(OSError):
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _MOST))
            for line in file:
                _take(found, line)
        if size > _SHORT:
            _rewrite(path, found)
    return found


def _take(found: dict[str, Known], line: bytes) -> None:
    try:
        match json.loads(line):
            case ["ran", str(path), float(when)]:
                found[path] = found.get(path, Known())._replace(used=when)
            case ["checked", str(path), str(verdict), int(size), int(changed)]:
                if verdict in VERDICTS:
                    known = found.get(path, Known())
                    found[path] = known._replace(verdict=verdict, size=size, modified_ns=changed)
            case _:
                pass
    except (ValueError, RecursionError):
        return


def _rewrite(path: str, found: Mapping[str, Known]) -> None:
    """Keep the last word on each file that is still there."""
    partial = f"{path}.{os.getpid()}"
    with open(partial, "w", encoding="ascii", opener=_private) as file:
        for name, known in found.items():
            if not os.path.exists(name):
                continue
            if known.used:
                file.write(f"{json.dumps(['ran', name, known.used])}\n")
            if known.verdict:
                event = ["checked", name, known.verdict, known.size, known.modified_ns]
                file.write(f"{json.dumps(event)}\n")
    Path(partial).replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
