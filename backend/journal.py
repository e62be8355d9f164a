"""What was done with image files on this machine: when each was run, how its last check ended.

One line of JSON for each event, appended in one write(2), so that many processes may note
something at once and a start of a container loses no time.  The journal may be deleted or cut
short at any time: what is not in it was, as far as anybody knows, never done.
``backend.history`` reads it.
"""

from __future__ import annotations

import os
import time

from backend.cachefolder import state_place
from backend.jsontext import write_json

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from typing import Literal

    Verdict = Literal[
        "verified", "intact", "unknown key", "bad signature", "damaged", "equal", "differs"
    ]
    """``intact``: digests match, and nobody signed; ``equal``: to what its source gives today."""

VERDICTS: tuple[Verdict, ...] = (
    "verified", "intact", "unknown key", "bad signature", "damaged", "equal", "differs",
)  # fmt: skip


def journal_path() -> str:
    """Return the path of the journal."""
    return f"{state_place()}/images.jsonl"


def note_run(path: str) -> None:
    """Note that an image file is being run."""
    _append(["ran", os.path.abspath(path), time.time()])


def note_check(path: str, verdict: Verdict) -> None:
    """Note how the check of an image file ended; it holds as long as the file does not change."""
    try:
        status = os.stat(path)
    except OSError:
        return
    _append(["checked", os.path.abspath(path), verdict, status.st_size, status.st_mtime_ns])


def _append(event: list[str | int | float]) -> None:
    """Write one event; a journal that cannot be written knows less and stops nobody."""
    path = journal_path()
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError):
        return
    try:
        os.write(file, write_json(event).encode() + b"\n")
    except OSError:
        return
    finally:
        os.close(file)
