"""A blob that is read while it arrives: conversion begins before the download has ended.

Whoever reads along gets bytes that nobody has verified yet; so the end of the file is only
told once the blob is whole and its digest right.  What was made of the bytes must not be
given to anybody before that.
"""

from __future__ import annotations

import io
import os
from threading import Condition
from typing import TYPE_CHECKING

from backend.errors import FormatError

if TYPE_CHECKING:
    from backend.oci.image import Descriptor


class Arrival:
    """What one thread writes to a file, for others that read along.

    Args:
        fd: The file that grows; it stays open until :meth:`end`.
        descriptor: Of the blob.
    """

    def __init__(self, fd: int, descriptor: Descriptor) -> None:
        self.total = descriptor.size
        self._fd = fd
        self._digest = descriptor.digest
        self._size = 0
        self._is_over = self._is_whole = False
        self._changed = Condition()

    def grow(self, size: int) -> None:
        """Tell that the first ``size`` bytes are there."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def end(self, *, is_whole: bool) -> None:
        """Tell that the blob is there and verified, or that it will not be; the first call counts.

        The writer may close its file afterwards.
        """
        with self._changed:
            if not self._is_over:
                self._is_over, self._is_whole = True, is_whole
            self._changed.notify_all()

    def open(self) -> ArrivingFile | None:
        """Return a file that waits for its bytes; None once the writer has ended."""
        with self._changed:
            return None if self._is_over else ArrivingFile(self, os.dup(self._fd))

    def wait(self, file: ArrivingFile) -> int:
        """Wait until there is more than ``file`` has read, and return how much is there.

        Raises:
            FormatError: No more will come, or nobody wants it: the writer knows why.
        """

        def is_over() -> bool:
            return file.stopped or self._is_over

        with self._changed:
            self._changed.wait_for(lambda: is_over() or file.tell() < self._size)
            if file.stopped or (self._is_over and not self._is_whole):
                raise FormatError(f"blob {self._digest} did not arrive")
            return self._size

    def stop(self, file: ArrivingFile) -> None:
        """Let whoever waits in ``file`` wait no longer."""
        with self._changed:
            file.stopped = True
            self._changed.notify_all()


class ArrivingFile(io.RawIOBase):
    """The file of an :class:`Arrival`; reads wait for what is not there yet.

    Attributes:
        stopped: Nobody wants to read on; see :meth:`stop`.
    """

    def __init__(self, arrival: Arrival, fd: int) -> None:
        super().__init__()
        self.stopped = False
        self._arrival = arrival
        self._fd = fd
        self._position = 0

    def stop(self) -> None:
        """End a read in another thread, and all later ones, with an error."""
        self._arrival.stop(self)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # noqa: D102
        there = self._arrival.wait(self) - self._position
        count = os.preadv(self._fd, [memoryview(buffer)[: max(0, there)]], self._position)
        self._position += count
        return count

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def tell(self) -> int:  # noqa: D102
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:  # noqa: D102
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._arrival.total}
        self._position = max(0, start[whence] + offset)
        return self._position

    def close(self) -> None:  # noqa: D102
        if not self.closed:
            os.close(self._fd)
        super().close()
