"""The log of a job: every line with its time, the oldest half dropped when it grows too long."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

MAX_BYTES = 64 << 20
"""Bytes of both halves of a log."""

_MAX_LINE = 64 << 10
"""Bytes of a line; a longer one is broken."""


def logs_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a log, the older half first, also if they are not there."""
    return path.with_name(f"{path.name}.1"), path


class Log:
    """Writes bytes as lines with the time at which each was complete.

    Args:
        path: The file; made with mode 0600.
        clock: Seconds since 1970, UTC.
        max_bytes: When half of it is full, the file becomes ``PATH.1``.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, max_bytes: int = MAX_BYTES
    ) -> None:
        self._path = path
        self._clock = clock
        self._half = max_bytes // 2
        self._rest = b""
        self._file = self._open()

    def write(self, data: bytes) -> None:
        """Write what a program printed; the end of it may wait for the end of its line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._write_line(line)
        while len(self._rest) > _MAX_LINE:
            self._write_line(self._rest[:_MAX_LINE])
            self._rest = self._rest[_MAX_LINE:]
        self._file.flush()

    def close(self) -> None:
        """Write the last line, also without its end."""
        if self._rest:
            self._write_line(self._rest)
        self._file.close()

    def _write_line(self, line: bytes) -> None:
        # A bar that draws over itself is worth its last state only.
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        stamped = f"{_stamp(self._clock())} ".encode() + shown + b"\n"
        if self._file.tell() + len(stamped) > self._half:
            self._file.close()
            self._path.replace(logs_of(self._path)[0])
            self._file = self._open()
        self._file.write(stamped)

    def _open(self) -> BinaryIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.fdopen(os.open(self._path, flags, 0o600), "ab")


class LogReader:
    """Reads a log while it grows.

    Args:
        path: The file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._began = False
        self._rest = b""

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> Iterator[bytes]:
        """Yield the complete lines that were not read yet, without their ends."""
        if not self._began:
            self._began = True
            yield from self._older_half()
        while self._file is not None or self._open_next():
            yield from self._lines()
            if not self._was_replaced():
                return
            self.close()

    def _older_half(self) -> Iterator[bytes]:
        older = logs_of(self._path)[0]
        if older.exists():
            with older.open("rb") as file:
                yield from (line.rstrip(b"\n") for line in file)

    def _open_next(self) -> bool:
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            return False
        return True

    def _lines(self) -> Iterator[bytes]:
        while self._file and (data := self._file.read(1 << 20)):
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from lines

    def _was_replaced(self) -> bool:
        """Tell whether the writer went on in a new file, and let go of the old one."""
        if self._file is None:
            return False
        try:
            current = self._path.stat().st_ino
        except FileNotFoundError:
            return False
        return current != os.fstat(self._file.fileno()).st_ino


def _stamp(now: float) -> str:
    """Return a time as ``2026-11-23T14:41:02.123Z``."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{whole}.{int(now % 1 * 1000):03}Z"
