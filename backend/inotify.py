"""Waiting for changes in folders without asking again and again: inotify(7) through ctypes.

inotify does not see what another host writes to a shared folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE = 0x100, 0x200

_EVENT = struct.Struct("iIII")
"""``struct inotify_event`` without the name: watch, mask, cookie, length of the name."""


class Inotify:
    """Tells when something in the folders that were added changed.

    Where the kernel grants no inotify, :meth:`wait` just waits out its limit, and
    :meth:`fileno` is a descriptor that never becomes readable.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        number: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._spare = -1
        if number < 0:  # the limit of instances for this user is reached
            number, self._spare = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._number = number

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

    def add(self, folder: Path, mask: int) -> int:
        """Watch a folder for some events; return its handle, negative when that cannot be."""
        return int(self._libc.inotify_add_watch(self._number, os.fsencode(folder), mask))

    def remove(self, handle: int) -> None:
        """Watch a folder no longer."""
        self._libc.inotify_rm_watch(self._number, handle)

    def names(self) -> set[str]:
        """Return the names of what changed so far, without their folders, and forget them."""
        found: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._number, 65536):
                found |= set(_names(data))
        return found

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


def _names(data: bytes) -> Iterator[str]:
    place = 0
    while place + _EVENT.size <= len(data):
        *_, length = _EVENT.unpack_from(data, place)
        place += _EVENT.size
        yield os.fsdecode(data[place : place + length].rstrip(b"\0"))
        place += length
