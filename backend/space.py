"""Whether there is room, asked before the work begins.

What a file system has free is one limit; what a user or a group may have there is another,
which ``statvfs`` does not tell but the kernel does (``quotactl_fd``, Linux 5.14); how large a
file may become (``ulimit -f``) is a third.  Files count as bytes do: many a quota has its end
there first.  This is an estimate, made to fail in a second rather than after an hour; the work
itself still copes with a disk that fills up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from humanize import naturalsize

from backend.errors import SpaceError
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

_QUOTACTL_FD = 443
"""The system call's number, the same on every architecture."""
_GET_QUOTA = 0x800007 << 8
_USER, _GROUP = 0, 1
_QUOTA = struct.Struct("=8QI4x")
"""``struct if_dqblk``: hard limit, soft limit and use of blocks, the same of inodes, times."""
_QUOTA_BLOCK = 1024
_BLOCK_LIMITS_VALID, _INODE_LIMITS_VALID = 1, 4
LEAST_OF_FILES = 0.3
"""What a squashfs has of the bytes of the files in it, at the least as a rule."""
_DISK_BLOCK = 4096
"""What file systems give to a file at once, as a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something that is going to be written.

    Attributes:
        folder: Where, or where a folder will be made.
        size: Bytes.
        purpose: What for, in words.
        files: How many files and folders, where there are many.
        is_file: All of it is one file.
    """

    folder: Path
    size: int
    purpose: str
    files: int = 0
    is_file: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a user can still write to a folder; None means that nothing limits it."""

    size: int
    files: int | None


def check_space(needs: Iterable[Need]) -> None:
    """Check that there is room for what is going to be written.

    Raises:
        SpaceError: A file system or a quota has less, or no file may be as large.
    """
    by_device: dict[int, list[tuple[Path, Need]]] = {}
    for need in needs:
        place = _existing(need.folder)
        by_device.setdefault(place.stat().st_dev, []).append((place, need))
        _check_file_size(need)
    for wanted in by_device.values():
        _check_device(wanted[0][0], [need for _, need in wanted])


def _check_file_size(need: Need) -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if need.is_file and limit != resource.RLIM_INFINITY and need.size > limit:
        raise SpaceError(
            f"no file may be as large as {need.purpose}",
            why=f"about {naturalsize(need.size)} are needed, "
            f"the limit of this shell is {naturalsize(limit)}",
            hint="ulimit -f unlimited, or ask your administrator",
        )


def _check_device(place: Path, needs: Sequence[Need]) -> None:
    room = free_room(place)
    limits: list[tuple[Callable[[Need], int], int | None, Callable[[int], str]]] = [
        (lambda need: need.size, room.size, naturalsize),
        (lambda need: need.files, room.files, "{} files".format),
    ]
    for amount, free, shown in limits:
        total = sum(amount(need) for need in needs)
        if free is None or total <= free:
            continue
        parts = ", ".join(f"{shown(amount(n))} for {n.purpose}" for n in needs if amount(n))
        raise SpaceError(
            f"there is not enough room in {one_line(str(place))}",
            why=f"about {shown(total)} are needed ({parts}), {shown(free)} are free",
            hint="make room with sifdeck cache clean, or name another place: the target's "
            "folder, or SIFDECK_CACHE_DIR for the cache",
        )


def free_room(folder: Path) -> Room:
    """Return what this user can still write to a folder."""
    found = os.statvfs(folder)
    sizes, counts = [found.f_bavail * found.f_frsize], []
    if found.f_files:  # some file systems make inodes as they are needed, and say 0
        counts.append(found.f_favail)
    for size, count in _quotas_left(folder):
        sizes += [] if size is None else [size]
        counts += [] if count is None else [count]
    return Room(size=min(sizes), files=min(counts, default=None))


def measure_folder(folder: Path) -> tuple[int, int]:
    """Return how many bytes the files below a folder take, and how many things are there.

    What cannot be read counts as nothing: whoever reads it says so.
    """
    sizes: dict[tuple[int, int], int] = {}  # names of one file share its bytes
    count = 0
    for base, folders, files in os.walk(os.fsencode(folder)):
        count += len(folders) + len(files)
        for name in files:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(base, name))
                if stat.S_ISREG(found.st_mode):
                    sizes[found.st_dev, found.st_ino] = min(found.st_size, found.st_blocks * 512)
    return sum(sizes.values()), count


def size_on_disk(size: int) -> int:
    """Return how many bytes a file of ``size`` takes on a disk."""
    return -(-size // _DISK_BLOCK) * _DISK_BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The place where images are kept, as its user may use it.

    Attributes:
        used: Bytes; on a file system without a quota also those of others.
        total: Bytes.
        is_quota: Whether ``total`` is what the user or the group may have there.
    """

    used: int
    total: int
    is_quota: bool = False

    @property
    def free(self) -> int:
        """Bytes that may still be written."""
        return max(0, self.total - self.used)


def find_store(folder: Path) -> Store:
    """Return how full a folder's file system is, or the quota where that has less left.

    Raises:
        OSError: It cannot be asked.
    """
    found = os.statvfs(folder)
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    stores = [Store(used=total - free, total=total)]
    for answer in _quotas(folder):
        hard, soft, used, *_, valid = map(int, _QUOTA.unpack(answer))
        if valid & _BLOCK_LIMITS_VALID and (limit := hard or soft):
            stores.append(Store(used=used, total=limit * _QUOTA_BLOCK, is_quota=True))
    return min(stores, key=lambda store: store.free)


def _quotas_left(folder: Path) -> Iterator[tuple[int | None, int | None]]:
    """Yield the bytes and files that the quotas of the user and the group leave."""
    return map(_left, _quotas(folder))


def _quotas(folder: Path) -> Iterator[bytes]:
    """Yield what the kernel says of the quotas of the user and the group."""
    found = folder.stat()
    group = found.st_gid if found.st_mode & stat.S_ISGID else os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for kind, number in ((_USER, os.getuid()), (_GROUP, group)):
            answer = ctypes.create_string_buffer(_QUOTA.size)
            if not libc.syscall(_QUOTACTL_FD, fd, _GET_QUOTA | kind, number, answer):
                yield answer.raw
    finally:
        os.close(fd)


def _left(answer: bytes) -> tuple[int | None, int | None]:
    """Return the bytes and the files that a quota leaves; None where it has no limit."""
    numbers = [int(number) for number in _QUOTA.unpack(answer)]
    hard, soft, used, hard_files, soft_files, used_files, *_, valid = numbers
    size = count = None
    if valid & _BLOCK_LIMITS_VALID and (limit := hard or soft):
        size = max(0, limit * _QUOTA_BLOCK - used)
    if valid & _INODE_LIMITS_VALID and (limit := hard_files or soft_files):
        count = max(0, limit - used_files)
    return size, count


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())
