"""What is in the cache, and taking things out of it.

Everything in the cache can be deleted at any time without losing anything but time; still,
what another process works with is left alone.  A pull holds the cache with a shared lock
while it reads blobs; a partial download, a conversion and an unpacked layer that a container
runs on have locks of their own.  A file that anybody on this host has open is in use; on
another host it stays readable when it is deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backend.errors import LaunchError, UsageError
from backend.escape import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Kind = Literal["blob", "partial", "oci-sif", "sif", "rootfs", "scratch"]

_PLACES: dict[Kind, str] = {
    "blob": "blobs/*/*",
    "partial": "partial/*",
    "oci-sif": "oci-sif/*.sif",
    "sif": "downloads/*",
    "rootfs": "rootfs/*",
    "scratch": "scratch/*",
}
KINDS = tuple(_PLACES)
"""Blobs as registries hold them; cut downloads; converted images; SIF files from elsewhere;
unpacked images, where nothing can be mounted; what a killed process left."""

_DAY_S = 86_400
_USED_AGAIN_S = 60
"""Seconds for which something that a container may be about to open is not taken away."""
_DOWNLOADS: frozenset[Kind] = frozenset({"blob", "partial"})
_HELD = "in-use"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing in the cache.

    Attributes:
        path: Of the file or folder.
        kind: What it is.
        size: Bytes that it takes on the disk.
        used: When it was read or written last, seconds since 1970.
    """

    path: Path
    kind: Kind
    size: int
    used: float

    @property
    def name(self) -> str:
        """What to call it: a blob's digest, else the file's name."""
        if self.kind == "blob":
            return f"{self.path.parent.name}:{self.path.name}"
        return self.path.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What a cleaning did, or would do.

    Attributes:
        removed: Are gone.
        kept: Could not be removed, or are in use.
    """

    removed: tuple[Entry, ...]
    kept: tuple[Entry, ...]


def list_cache(root: Path, kinds: Iterable[Kind] = KINDS) -> list[Entry]:
    """Return what is in the cache, what was not used for longest first."""
    found = [
        entry
        for kind in kinds
        for path in root.glob(_PLACES[kind])
        if not _belongs_to_another(path, kind) and (entry := _entry(path, kind)) is not None
    ]
    return sorted(found, key=lambda entry: (entry.used, entry.name))


def clean_cache(
    root: Path,
    entries: Sequence[Entry],
    *,
    dry_run: bool = False,
    excess: int | None = None,
    on_removed: Callable[[Entry], None] = lambda _: None,
) -> Cleaned:
    """Remove entries, but for those that another process works with.

    Args:
        root: The cache's folder.
        entries: Of :func:`list_cache`.
        dry_run: Remove nothing.
        excess: Stop when so many bytes are gone; None removes all.
        on_removed: Called for each entry that is removed, or would be.
    """
    removed: list[Entry] = []
    kept: list[Entry] = []
    freed = 0
    with _alone(root) as is_alone:
        for entry in entries:
            if excess is not None and freed >= excess:
                break
            if _is_held(entry, is_alone=is_alone) or not (dry_run or _remove(entry)):
                kept.append(entry)
            else:
                removed.append(entry)
                freed += entry.size
                on_removed(entry)
    return Cleaned(removed=tuple(removed), kept=tuple(kept))


def unused_for(entries: Iterable[Entry], days: float) -> list[Entry]:
    """Return the entries that were not used for so many days."""
    since = time.time() - days * _DAY_S
    return [entry for entry in entries if entry.used < since]


def evictable(entries: Iterable[Entry]) -> list[Entry]:
    """Return what may go to make room, what was not used for longest first.

    An image that was used in the last minute stays: a container may be about to open it.
    """
    recent = time.time() - _USED_AGAIN_S
    chosen = [entry for entry in entries if entry.kind in _DOWNLOADS or entry.used < recent]
    return sorted(chosen, key=lambda entry: (entry.used, entry.name))


def keep_within(root: Path, limit: int) -> Cleaned:
    """Remove what was not used for longest, so that the cache has at most ``limit`` bytes.

    What another process works with, or is about to, stays even if that is more.
    """
    entries = list_cache(root)
    excess = sum(entry.size for entry in entries) - limit
    return clean_cache(root, evictable(entries), excess=max(0, excess))


def parse_size(text: str) -> int:
    """Return the bytes that ``20G``, ``500 MiB`` or ``1000`` means; units count in 1024.

    Raises:
        UsageError: It is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{quoted(text, limit=40)} is no size", hint="write it as 500M or 20G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


@contextlib.contextmanager
def hold_cache(root: Path) -> Iterator[None]:
    """Keep the blobs in the cache from being cleaned away meanwhile."""
    with _locked(root, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def scratch_folder(root: Path, purpose: str) -> Iterator[Path]:
    """Give a folder in the cache that goes with the block, and is not cleaned away meanwhile."""
    place = root / "scratch"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        hold_cache(root),
        tempfile.TemporaryDirectory(dir=place, prefix=f"{purpose}-") as name,
    ):
        yield Path(name)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[bool]:
    """Give whether no process holds the cache; none can begin to until the block ends."""
    with _locked(root, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_locked:
        yield is_locked


@contextlib.contextmanager
def _locked(root: Path, operation: int) -> Iterator[bool]:
    """Give whether the lock was had; a file system without locks has no say in it."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(root / _HELD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # a cache that cannot be written to is not cleaned either
        yield True
        return
    try:
        try:
            fcntl.flock(fd, operation)
        except BlockingIOError:
            yield False
        except OSError:
            yield True
        else:
            yield True
    finally:
        os.close(fd)


def _is_held(entry: Entry, *, is_alone: bool) -> bool:
    """Tell whether another process works with an entry."""
    match entry.kind:
        case "partial":
            return _has_lock(entry.path)
        case "oci-sif":
            return _has_lock(entry.path.with_suffix(".lock")) or _is_open(entry.path)
        case "rootfs":
            return _has_lock(_lock_of(_rootfs_of(entry.path)))
        case "sif" | "blob":
            return not is_alone or _is_open(entry.path)
        case "scratch":
            return not is_alone


def _rootfs_of(path: Path) -> Path:
    """Return the unpacked layer that a folder is, or that its lock or its beginning is of."""
    if not path.name.startswith("."):
        return path
    return path.with_name(path.name[1:].removesuffix(".part").removesuffix(".lock"))


def _lock_of(rootfs: Path) -> Path:
    return rootfs.with_name(f".{rootfs.name}.lock")


def _belongs_to_another(path: Path, kind: Kind) -> bool:
    """Tell whether a path is the lock of an unpacked layer that is there, and goes with it."""
    return kind == "rootfs" and path.name.endswith(".lock") and _rootfs_of(path).exists()


def _is_open(path: Path) -> bool:
    """Tell whether a process on this host has a file open, where the file system can tell.

    The kernel gives a lease for writing to the only one who has the file open (fcntl(2)).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # Who opens it in this very moment makes the kernel send us a signal: one that is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        return True
    except OSError:  # not our file, or no leases here
        return False
    finally:
        os.close(fd)
    return False


def _has_lock(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def _remove(entry: Entry) -> bool:
    """Remove an entry; False when that is not allowed."""
    try:
        if entry.kind == "rootfs" and entry.path.is_dir():
            _remove_rootfs(entry.path)
            _lock_of(_rootfs_of(entry.path)).unlink(missing_ok=True)
        elif entry.path.is_dir() and not entry.path.is_symlink():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink(missing_ok=True)
    except (OSError, LaunchError):
        return False
    return True


def _remove_rootfs(path: Path) -> None:
    """Remove an unpacked layer, whose files may belong to the user's subordinate ids."""
    from backend.runtime.extraction import remove_extracted
    from backend.runtime.host import find_map_tools
    from backend.runtime.identity import read_caller

    remove_extracted(read_caller(find_map_tools() if os.getuid() else ()), path)


def _entry(path: Path, kind: Kind) -> Entry | None:
    """Return the entry of a path, unless it is gone by now."""
    try:
        found = path.lstat()
        size, used = found.st_blocks * 512, max(found.st_atime, found.st_mtime)
        if stat.S_ISDIR(found.st_mode):
            used = _last_start(path) or found.st_mtime  # looking into it is no use of it
            size += sum(_disk_size(base, names) for base, _, names in os.walk(path))
    except OSError:
        return None
    return Entry(path=path, kind=kind, size=size, used=used)


def _last_start(path: Path) -> float:
    """Return when a container was last started on an unpacked layer; 0 for anything else."""
    try:
        return _lock_of(path).stat().st_mtime
    except OSError:
        return 0.0


def _disk_size(base: str, names: list[str]) -> int:
    return sum(os.lstat(f"{base}/{name}").st_blocks * 512 for name in names)
