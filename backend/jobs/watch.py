"""Waiting for changes of jobs without asking again and again: inotify(7) through ctypes.

A job's state changes touch the folder of all jobs, its events and log only its own folder.
inotify does not see what another host writes to a shared home, so a wait always has a limit.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MODIFY, _ATTRIB, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x4, 0x80, 0x100, 0x200
_ROOT_EVENTS = _ATTRIB | _MOVED_TO | _CREATE | _DELETE
_JOB_EVENTS = _MODIFY | _MOVED_TO | _CREATE


class Watch:
    """Tells when something about the jobs changed.

    Where the kernel grants no inotify, :meth:`wait` just waits out its limit, and
    :meth:`fileno` is a descriptor that never becomes readable.

    Args:
        root: The folder of all jobs; made when it is missing.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self._libc = ctypes.CDLL(None, use_errno=True)
        number: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._spare = -1
        if number < 0:  # the limit of instances for this user is reached
            number, self._spare = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._number = number
        self._followed: dict[int, int] = {}
        self._add(root, _ROOT_EVENTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching."""
        for number in (self._number, self._spare):
            if number >= 0:
                os.close(number)
        self._number = self._spare = -1

    def fileno(self) -> int:
        """Return the descriptor that is readable after a change, for an event loop."""
        return self._number

    def follow(self, numbers: Iterable[int]) -> None:
        """Watch the events and logs of these jobs, and of no others any more."""
        wanted = set(numbers)
        for number in self._followed.keys() - wanted:
            self._libc.inotify_rm_watch(self._number, self._followed.pop(number))
        for number in wanted - self._followed.keys():
            handle = self._add(self._root / str(number), _JOB_EVENTS)
            if handle >= 0:
                self._followed[number] = handle

    def drain(self) -> bool:
        """Forget the changes so far; return whether there were any."""
        changed = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._number, 65536):
                changed = True
        return changed

    def wait(self, limit_s: float, *others: int) -> bool:
        """Wait for a change, at most ``limit_s`` seconds; return whether there was one.

        Args:
            limit_s: Seconds.
            others: Descriptors that end the wait as well.
        """
        select.select([self._number, *others], [], [], limit_s)
        return self.drain()

    def _add(self, folder: Path, mask: int) -> int:
        return int(self._libc.inotify_add_watch(self._number, os.fsencode(folder), mask))
