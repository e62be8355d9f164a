"""A job seen from outside: its record, and its events as they come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from backend.errors import FormatError
from backend.events import decode
from backend.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAX_READ = 4 << 20
"""Bytes of events taken in at once, so that a screen is never kept waiting."""


class JobView:
    """Where a job stands.  Reads only what was added to ``events.jsonl`` since last time.

    Args:
        folder: The job's folder.
        clock: Seconds, for rates.

    Attributes:
        progress: What the events so far add up to.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.progress = Progress(clock)
        self._path = folder / "events.jsonl"
        self._offset = 0

    def refresh(self) -> bool:
        """Take in new events; return whether there were any."""
        first = self._offset == 0
        lines = self._new_lines()
        for line in lines:
            try:
                self.progress.feed(decode(line))
            except FormatError:
                continue  # written by another version of ours; the rest still counts
        if first:
            # What happened before we looked took longer than the reading of it.
            self.progress.restart_meter()
        return bool(lines)

    def _new_lines(self) -> list[bytes]:
        """Return the complete lines that were not read yet."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_MAX_READ)
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.splitlines()
