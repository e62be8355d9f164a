"""Whether there is room, asked before the work begins.

What a file system has free is one limit and a user's quota is another, which ``statvfs`` does
not tell; where the kernel knows it (``quotactl_fd``, Linux 5.14), it counts too.  This is an
estimate, made to fail in a second rather than after an hour; the work itself still copes with
a disk that fills up.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

from humanize import naturalsize

from backend.errors import SpaceError
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_QUOTACTL_FD = 443
"""The system call's number, the same on every architecture."""
_GET_USER_QUOTA = 0x800007 << 8
_QUOTA = struct.Struct("=8QI4x")
"""``struct if_dqblk``: hard limit, soft limit and use of blocks, the same of inodes, times."""
_QUOTA_BLOCK = 1024
_BLOCK_LIMITS_VALID = 1


def check_space(needs: Mapping[Path, tuple[int, str]]) -> None:
    """Check that there is room for what is going to be written.

    Args:
        needs: By folder (or one that will be made): how many bytes, and what for.

    Raises:
        SpaceError: A file system or a quota has less.
    """
    by_device: dict[int, list[tuple[Path, int, str]]] = {}
    for folder, (size, purpose) in needs.items():
        place = _existing(folder)
        by_device.setdefault(place.stat().st_dev, []).append((place, size, purpose))
    for wanted in by_device.values():
        place = wanted[0][0]
        total = sum(size for _, size, _ in wanted)
        free = free_space(place)
        if total > free:
            parts = ", ".join(f"{naturalsize(size)} for {purpose}" for _, size, purpose in wanted)
            raise SpaceError(
                f"there is not enough room in {one_line(str(place))}",
                why=f"about {naturalsize(total)} are needed ({parts}), "
                f"{naturalsize(free)} are free",
                hint="make room with sifdeck cache clean, or name another place: the target's "
                "folder, or SIFDECK_CACHE_DIR for the cache",
            )


def free_space(folder: Path) -> int:
    """Return the bytes that this user can still write in a folder."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    left = _quota_left(folder)
    return free if left is None else min(free, left)


def _quota_left(folder: Path) -> int | None:
    """Return the bytes that the user's quota leaves; None where there is none, or none knows."""
    answer = ctypes.create_string_buffer(_QUOTA.size)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        status = libc.syscall(_QUOTACTL_FD, fd, _GET_USER_QUOTA, os.getuid(), answer)
    finally:
        os.close(fd)
    if status:
        return None
    return _left(answer.raw)


def _left(answer: bytes) -> int | None:
    """Return what a quota leaves; None when it limits nothing."""
    hard, soft, used, *_, valid = map(int, _QUOTA.unpack(answer))
    limit = hard or soft
    if not limit or not valid & _BLOCK_LIMITS_VALID:
        return None
    return max(0, limit * _QUOTA_BLOCK - used)


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())
