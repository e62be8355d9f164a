"""Files and folders that appear whole or not at all.

One is written under a hidden name beside its target and takes the target's name when it is
complete and on the disk.  The writer holds a lock on it, which the kernel drops when the
process ends, however it ends; so the next writer of the same target can tell what a killed
one left behind, and removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Self

from backend.errors import BackendError, ExistsError, NotFoundError, SpaceError, UsageError
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

_log = logging.getLogger(__name__)

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota is used up",
    errno.EFBIG: "a file may not become larger here; ulimit -f shows this shell's limit",
}
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_OTHER_NAME = "remove it, or choose another name"
_STALE_S = 24 * 3600
"""Age at which a file is taken for abandoned where the file system has no locks."""


class StagedFile:
    """A context manager around a file that is being written.

    Leaving the block without :meth:`commit` removes what was written.

    Args:
        target: The name it shall have.
        overwrite: Whether a file of that name may be replaced.
        mode: Permission bits, from which the umask is taken.

    Attributes:
        target: As given.
        fd: Descriptor of the file, open for reading and writing.

    Raises:
        ExistsError: On entering or in :meth:`commit`: the target is there already.
        NotFoundError: On entering: the target's folder does not exist.
        UsageError: On entering: the target is a folder.
        SpaceError: On leaving: what was raised in the block says that the disk is full.
    """

    def __init__(self, target: Path, *, overwrite: bool = False, mode: int = 0o777) -> None:
        self.target = target
        self.fd = -1
        self._overwrite = overwrite
        self._mode = mode
        self._name = target  # of the hidden file, once there is one
        self._is_pending = False

    def __enter__(self) -> Self:
        if self.target.is_dir():
            hint = f"name a file in it: {_shown(self.target)}/NAME"
            raise UsageError(f"{_shown(self.target)} is a folder", hint=hint)
        if not self._overwrite and os.path.lexists(self.target):
            raise exists_error(self.target)
        try:
            remove_abandoned(self.target)
            self._create()
        except FileNotFoundError as error:
            raise _no_folder(self.target.parent) from error
        except OSError as error:
            raise unwritten(error, self.target) from error
        return self

    def _create(self) -> None:
        while True:
            name = self.target.with_name(_hidden_name(self.target.name))
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self.fd = os.open(name, flags, self._mode)
            self._name, self._is_pending = name, True
            with contextlib.suppress(OSError):
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have taken it for abandoned before the lock was ours.
            if os.fstat(self.fd).st_nlink:
                return
            os.close(self.fd)

    def commit(self) -> None:
        """Put the file on the disk and give it the target's name.

        Raises:
            ExistsError: A file of that name has appeared and may not be replaced.
            SpaceError: The disk is full.
        """
        try:
            os.fsync(self.fd)
            if self._overwrite:
                self._name.replace(self.target)
            else:
                _rename_new(self._name, self.target)
            self._is_pending = False
            sync_folder(self.target.parent)
        except FileExistsError as error:
            raise exists_error(self.target) from error
        except OSError as error:
            raise unwritten(error, self.target) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_pending:
            self._name.unlink(missing_ok=True)
        os.close(self.fd)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise unwritten(error, self.target) from error


class StagedFolder:
    """A context manager around a new folder that is being filled.

    Leaving the block without :meth:`commit` removes what was written.

    Args:
        target: The name it shall have.

    Attributes:
        path: Of the folder until then; only its owner may look into it.

    Raises:
        ExistsError: On entering or in :meth:`commit`: the target is there already.
        NotFoundError: On entering: the target's folder does not exist.
        SpaceError: On leaving: what was raised in the block says that the disk is full.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(_hidden_name(target.name))
        self._target = target
        self._fd = -1

    def __enter__(self) -> Self:
        if os.path.lexists(self._target):
            raise ExistsError(f"{_shown(self._target)} exists already", hint=_OTHER_NAME)
        try:
            remove_abandoned(self._target)
            self.path.mkdir(mode=0o700)
        except FileNotFoundError as error:
            raise _no_folder(self._target.parent) from error
        except OSError as error:
            raise unwritten(error, self._target) from error
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def commit(self, folder: Path | None = None) -> None:
        """Let the folder appear, or one in it; the rest goes."""
        if os.path.lexists(self._target):  # rename would replace an empty folder
            raise ExistsError(f"{_shown(self._target)} exists already", hint=_OTHER_NAME)
        (folder or self.path).rename(self._target)
        sync_folder(self._target.parent)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)
        shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise unwritten(error, self._target) from error


def remove_abandoned(target: Path) -> None:
    """Remove what killed writers of ``target`` left beside it."""
    for path in _hidden_places(target):
        is_folder = path.is_dir() and not path.is_symlink()
        with contextlib.suppress(OSError):
            how = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR
            fd = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if _is_abandoned(fd):
                    shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)
                    _log.debug("removed %s, whose writer has ended", path)
            finally:
                os.close(fd)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on the disk, where the file system can."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF}:
            raise
    finally:
        os.close(fd)


def _hidden_name(name: str) -> str:
    # The target's name may use all 255 bytes that a name can have; ours has to fit as well.
    short = os.fsdecode(os.fsencode(name)[:200])
    return f".{short}.{os.getpid()}-{secrets.token_hex(4)}.part"


def _hidden_places(target: Path) -> Iterator[Path]:
    stem = f".{os.fsdecode(os.fsencode(target.name)[:200])}."
    with os.scandir(target.parent) as entries:
        for entry in entries:
            if not entry.name.startswith(stem) or not entry.name.endswith(".part"):
                continue
            owner, _, chance = entry.name[len(stem) : -len(".part")].partition("-")
            if owner.isdigit() and len(chance) == 8:
                yield target.parent / entry.name


def _is_abandoned(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return time.time() - os.fstat(fd).st_mtime > _STALE_S
        return False
    return True


def _rename_new(source: Path, target: Path) -> None:
    """Rename, failing with FileExistsError when the target is there, without a race."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here (FAT, some FUSE): take the name with an empty file of ours first.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
        source.replace(target)
    else:
        source.unlink()


def exists_error(target: Path) -> ExistsError:
    """Return the error that says that ``target`` is there and stays as it is."""
    return ExistsError(
        f'Image file already exists: "{_shown(target)}" - will not overwrite',
        kept="the file that is there, untouched",
        hint="add -F to replace it, or name another file",
    )


def unwritten(error: OSError, target: Path) -> BackendError:
    """Return the error that says why ``target`` could not be written."""
    if reason := _FULL.get(error.errno or 0):
        return SpaceError(
            f"no room to write {_shown(target)}",
            why=reason,
            kept="no half-written file was left",
            hint="free some space, or write to another file system",
        )
    return BackendError(f"cannot write {_shown(target)}", why=error.strerror or str(error))


def _no_folder(folder: Path) -> NotFoundError:
    return NotFoundError(
        f"there is no folder {_shown(folder)}", hint=f"make it first: mkdir -p {_shown(folder)}"
    )


def _shown(path: Path) -> str:
    return one_line(str(path))
