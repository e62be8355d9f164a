"""Delete image files so that it can be undone for a day, where there is room for that.

A deleted file is renamed into ``.sifdeck-trash`` beside it: at once, whatever it weighs, and
without leaving its file system.  What has been there for a day is removed by the next delete.
Where the file system is nearly full, keeping it would defeat the purpose: it is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import BackendError, ExistsError, NotFoundError, SpaceError, UsageError
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FOLDER = ".sifdeck-trash"
KEPT_S = 86_400
"""Seconds that a deleted file is kept."""
ROOM = 0.10
"""Share of the file system that must be free for deleted files to be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """One deleted file.

    Attributes:
        path: Where it was.
        size: Its bytes.
        kept: Where it is for a day; None when it is gone for good.
    """

    path: Path
    size: int
    kept: Path | None


def delete(
    path: Path,
    *,
    for_good: bool = False,
    free_share: Callable[[Path], float] | None = None,
    now: Callable[[], float] = time.time,
) -> Deleted:
    """Delete one file.

    Args:
        path: The file.
        for_good: Do not keep it.
        free_share: Which part of the file system of a folder is free, 0 to 1; None asks it.
        now: Seconds since 1970, UTC.

    Raises:
        NotFoundError: There is no such file.
        UsageError: It is a folder.
        BackendError: It may not be deleted.
    """
    shown = one_line(str(path))
    try:
        status = path.lstat()
    except OSError as error:
        raise NotFoundError(f"there is no file {shown}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{shown} is a folder; only image files are deleted")
    folder = path.parent / FOLDER
    _empty(folder, older_than=now() - KEPT_S)
    keep = not for_good and (free_share or _free_share)(path.parent) >= ROOM
    try:
        kept = _move(path, folder, now()) if keep else None
        if kept is None:
            path.unlink()
    except OSError as error:
        raise BackendError(f"cannot delete {shown}", why=str(error.strerror)) from error
    return Deleted(path=path, size=status.st_size, kept=kept)


def restore(path: Path) -> Path:
    """Bring back the file that was last deleted under this name; return where it is.

    Raises:
        NotFoundError: Nothing of this name is kept.
        ExistsError: There is a file of this name again.
    """
    shown = one_line(str(path))
    names = sorted(
        name
        for name in _names(path.parent / FOLDER)
        if name.partition("-")[0].isdecimal() and name.partition("-")[2] == path.name
    )
    if not names:
        raise NotFoundError(f"{shown} is not in the trash", why="files are kept there for a day")
    if path.exists():
        raise ExistsError(f"there is a file {shown} again", hint="rename it first")
    kept = path.parent / FOLDER / names[-1]
    try:
        kept.rename(path)
    except OSError as error:
        raise BackendError(f"cannot bring back {shown}", why=str(error.strerror)) from error
    with contextlib.suppress(OSError):  # others are in it
        kept.parent.rmdir()
    return path


def _move(path: Path, folder: Path, now: float) -> Path | None:
    """Rename a file into the trash; None where the trash cannot be made or written."""
    kept = folder / f"{int(now * 1e6):016d}-{path.name}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        path.rename(kept)
    except OSError as error:
        if error.errno in {errno.EDQUOT, errno.ENOSPC, errno.ENAMETOOLONG, errno.EXDEV}:
            return None
        raise
    return kept


def _empty(folder: Path, *, older_than: float) -> None:
    """Remove what was deleted before a time, seconds since 1970."""
    for name in _names(folder):
        moment = name.partition("-")[0]
        if moment.isdecimal() and int(moment) / 1e6 < older_than:
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  (names, and no links followed)
    except OSError:
        return []


def _free_share(folder: Path) -> float:
    try:
        status = os.statvfs(folder)
    except OSError as error:
        raise SpaceError(f"cannot ask for the free space of {one_line(str(folder))}") from error
    return status.f_bavail / status.f_blocks if status.f_blocks else 0.0
