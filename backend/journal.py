"""What was done with image files on this machine: when each was run, how its last check ended.

One line of JSON for each event, appended in one write(2), so that many processes may note
something at once and a start of a container loses no time.  The journal may be deleted or cut
short at any time: what is not in it was, as far as anybody knows, never done.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from backend.cachefolder import state_place

if TYPE_CHECKING:
    from collections.abc import Mapping

Verdict = Literal[
    "verified", "intact", "unknown key", "bad signature", "damaged", "equal", "differs"
]
"""``intact``: digests match, and nobody signed; ``equal``: to what its source gives today."""

VERDICTS: tuple[Verdict, ...] = (
    "verified", "intact", "unknown key", "bad signature", "damaged", "equal", "differs",
)  # fmt: skip
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


def journal_path() -> str:
    """Return the path of the journal."""
    return f"{state_place()}/images.jsonl"


def note_run(path: str) -> None:
    """Note that an image file is being run."""
    _append(["ran", os.path.abspath(path), time.time()])


def note_check(path: str, verdict: Verdict) -> None:
    """Note how the check of an image file ended; it holds as long as the file does not change."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        _append(["checked", os.path.abspath(path), verdict, status.st_size, status.st_mtime_ns])


def read_journal() -> Mapping[str, Known]:
    """Return what is known, by absolute path; lines that make no sense are passed over."""
    found: dict[str, Known] = {}
    path = journal_path()
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
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


def _append(event: list[str | int | float]) -> None:
    """Write one event; a journal that cannot be written knows less and stops nobody."""
    path = journal_path()
    with contextlib.suppress(OSError, ValueError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, json.dumps(event).encode() + b"\n")
        finally:
            os.close(file)


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
    os.replace(partial, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
