"""A text file that grows, read by line number without ever being in memory."""

from __future__ import annotations

import bisect
import os
import re
from array import array
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINE_LIMIT = 4096
"""Characters of a line that are shown.  Nobody reads more, and a screen must stay quick."""

_CHUNK = 1 << 20
_LONGEST = 1 << 18
"""Bytes of one line that are looked at; progress bars write more without a line's end."""


class LogFile:
    r"""The lines of a file; a context manager.

    Lines end with ``\\n``.  Where a program went back with ``\\r`` to write over a line, the
    last version counts.  A file that is not there has no lines, until it is.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._inode = 0
        self._size = 0
        self._starts = array("Q", [0])
        self.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def again(self) -> LogFile:
        """Return the same file once more, for another thread."""
        return LogFile(self.path)

    def close(self) -> None:
        """Close the file; its lines are gone with it."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._inode, self._size, self._starts = -1, 0, 0, array("Q", [0])

    def __len__(self) -> int:
        """Return the number of lines, an unfinished last one included."""
        return len(self._starts) - (self._starts[-1] >= self._size)

    def refresh(self) -> bool:
        """Take in what was written since; return whether there was anything."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        if status.st_ino != self._inode or status.st_size < self._size:  # rotated or begun anew
            self.close()
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                return False
            self._inode = status.st_ino
        if status.st_size == self._size:
            return False
        self._index(status.st_size)
        return True

    def _index(self, size: int) -> None:
        """Note where lines start between what was known and ``size``."""
        while self._size < size:
            chunk = os.pread(self._fd, min(_CHUNK, size - self._size), self._size)
            if not chunk:
                return
            base = self._size
            self._starts.extend(base + match.end() for match in re.finditer(b"\n", chunk))
            self._size += len(chunk)

    def line(self, number: int, limit: int = LINE_LIMIT) -> str:
        """Return a line from 0 without its end, at most ``limit`` characters of it.

        It may hold escape sequences: take them out before showing it.
        """
        start = self._starts[number]
        end = self._starts[number + 1] - 1 if number + 1 < len(self._starts) else self._size
        if end - start > _LONGEST:
            head = os.pread(self._fd, _LONGEST // 2, start)
            tail = os.pread(self._fd, _LONGEST // 2, end - _LONGEST // 2)
            raw = tail if b"\r" in tail else head
        else:
            raw = os.pread(self._fd, end - start, start)
        return shown(raw, limit)

    def find(self, pattern: re.Pattern[bytes], begin: int = 0) -> Iterator[int]:
        """Yield the numbers of the lines in which a pattern occurs, in order.

        Args:
            pattern: Searched in each line's bytes, colours and all.
            begin: The first line that is looked at.
        """
        number, rest = begin, b""
        for chunk in self._chunks(self._starts[begin]):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if pattern.search(line[:_LONGEST]):
                    yield number
                number += 1
            rest = rest[-_LONGEST:]
        if rest and pattern.search(rest):
            yield number

    def _chunks(self, offset: int) -> Iterator[bytes]:
        while offset < self._size:
            chunk = os.pread(self._fd, min(_CHUNK, self._size - offset), offset)
            if not chunk:
                return
            yield chunk
            offset += len(chunk)


class StepLines:
    """The lines of one step of a build in a log, without the ``#7 `` that marks them there.

    Args:
        log: Of the build; lives as long as this.
        step: Number of the step.
    """

    def __init__(self, log: LogFile, step: int) -> None:
        self.step = step
        self._log = log
        self._mark = re.compile(rb"^(?:\S+Z )?#%d " % step)
        self._cut = re.compile(rf"^(\S+Z )?#{step} ")
        self._numbers = array("Q")
        self._seen = 0
        self.refresh()

    def again(self) -> StepLines:
        """Return the same lines once more, for another thread."""
        return StepLines(self._log.again(), self.step)

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._numbers)

    def refresh(self) -> None:
        """Take in what the log was found to have; its last line may not have been whole."""
        begin = self._seen if self._seen < len(self._log) else 0  # it may have begun anew
        while self._numbers and self._numbers[-1] >= begin:
            self._numbers.pop()
        if begin < len(self._log):
            self._numbers.extend(self._log.find(self._mark, begin))
        self._seen = max(0, len(self._log) - 1)

    def line(self, number: int, limit: int = LINE_LIMIT) -> str:
        """Return a line from 0, at most ``limit`` characters of it."""
        return self._cut.sub(r"\1", self._log.line(self._numbers[number], limit), count=1)

    def find(self, pattern: re.Pattern[bytes], begin: int = 0) -> Iterator[int]:
        """Yield the numbers of the lines in which a pattern occurs, from one on, in order."""
        if begin >= len(self._numbers):
            return
        for number in self._log.find(pattern, self._numbers[begin]):
            place = bisect.bisect_left(self._numbers, number)
            if place < len(self._numbers) and self._numbers[place] == number:
                yield place


def shown(raw: bytes, limit: int = LINE_LIMIT) -> str:
    r"""Return what a terminal would show of a line after its last ``\\r``, cut when it is long."""
    visible = raw.rstrip(b"\r").rpartition(b"\r")[2]
    text = visible[: limit * 4].decode("utf-8", "replace")
    return text if len(text) <= limit else f"{text[:limit]}..."
