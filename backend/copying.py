"""Bytes from one file into another: shared where the file system can, holes left as holes."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from backend.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEP = 64 << 20
_CHUNK = 4 << 20
_CANNOT = frozenset(
    {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY}
)


def copy_range(source: int, target: int, *, start: int, size: int, at: int) -> None:
    """Copy ``size`` bytes at ``start`` of a file to ``at`` of another, which has none there yet.

    Blocks are shared by file systems that can (btrfs, XFS), without a copy; elsewhere the
    kernel copies.  What is a hole in the source is one in the target.

    Args:
        source: Descriptor of a file, open for reading.
        target: Descriptor of a file, open for writing.
        start: Byte to start from.
        size: How many bytes.
        at: Where they go.

    Raises:
        FormatError: The source ends before that.
        OSError: Reading or writing failed.
    """
    if start + size > os.fstat(source).st_size:
        raise FormatError("the file to copy from is cut short", offset=start)
    for begin, end in _parts_with_data(source, start, start + size):
        _copy(source, target, begin, end - begin, at + begin - start)
    if os.fstat(target).st_size < at + size:
        os.ftruncate(target, at + size)


def _parts_with_data(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            yield start, end
            return
        if start >= end:
            return
        stop = min(end, os.lseek(fd, start, os.SEEK_HOLE))
        yield start, stop
        start = stop


def _copy(source: int, target: int, start: int, size: int, at: int) -> None:
    while size:
        try:
            count = os.copy_file_range(source, target, min(size, _STEP), start, at)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            count = _copy_by_hand(source, target, start, min(size, _CHUNK), at)
        if not count:  # some file systems cannot, and say so with a zero
            count = _copy_by_hand(source, target, start, min(size, _CHUNK), at)
        start, at, size = start + count, at + count, size - count


def _copy_by_hand(source: int, target: int, start: int, size: int, at: int) -> int:
    data = os.pread(source, size, start)
    if not data:
        raise FormatError("the file to copy from is cut short", offset=start)
    write_at(target, data, at)
    return len(data)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at a position, which one call need not do."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
