"""Others who read squashfs, as judges of ours: unsquashfs, squashfuse, the kernel."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one name shows to ``lstat``, ``read``, ``readlink`` and ``getxattr``.

    ``same`` are all names of the same inode; ``content`` is data, target or device.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    content: bytes | int = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    same: tuple[bytes, ...] = ()


_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "character",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def snapshot(root: Path, *, links: bool = True) -> dict[bytes, Seen]:
    """Return everything below and including ``root`` (``b""``) by relative path.

    With ``links`` false no names are told to be hard links of each other.
    """
    base = os.fsencode(root)
    found = {b"": os.lstat(base)}
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        for name in os.listdir(os.path.join(base, folder)):  # noqa: PTH208  (bytes)
            path = os.path.join(folder, name)
            found[path] = os.lstat(os.path.join(base, path))
            if stat.S_ISDIR(found[path].st_mode):
                waiting.append(path)
    names: dict[int, list[bytes]] = {}
    for path, status in found.items():
        names.setdefault(status.st_ino, []).append(path)
    for status in found.values():
        if links and not stat.S_ISDIR(status.st_mode):
            assert status.st_nlink == len(names[status.st_ino])
    return {
        path: _seen(os.path.join(base, path), status, names[status.st_ino] if links else [])
        for path, status in found.items()
    }


def _seen(path: bytes, status: os.stat_result, same: list[bytes]) -> Seen:
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    content: bytes | int = b""
    if kind == "file":
        content = Path(os.fsdecode(path)).read_bytes()
    elif kind == "symlink":
        content = os.fsencode(Path(os.fsdecode(path)).readlink())
    elif kind in {"block", "character"}:
        content = status.st_rdev
    return Seen(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=int(status.st_mtime),
        content=content,
        xattrs=_xattrs(path),
        same=tuple(sorted(same)),
    )


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # how a file system without any answers
            return ()
        raise
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("no root: owners and devices cannot be made")


@contextmanager
def unsquashed(image: Path, *, offset: int = 0) -> Iterator[Path]:
    """Extract with unsquashfs."""
    need_root()
    if not shutil.which("unsquashfs"):
        pytest.skip("no unsquashfs")
    target = image.with_name(image.name + ".unsquashed")
    argv = ["unsquashfs", "-q", "-n", "-o", str(offset), "-d", str(target), str(image)]
    result = subprocess.run(argv, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr, result.stderr
    try:
        yield target
    finally:
        shutil.rmtree(target)


@contextmanager
def fuse_mounted(image: Path, *, offset: int = 0) -> Iterator[Path]:
    """Mount with squashfuse_ll, which shows inode numbers as they are."""
    program = shutil.which("squashfuse_ll")
    if not program or not os.path.exists("/dev/fuse"):
        pytest.skip("no squashfuse_ll")
    target = image.with_name(image.name + ".fuse")
    target.mkdir()
    subprocess.run([program, "-o", f"offset={offset}", str(image), str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["fusermount3", "-u", str(target)], check=True)
        target.rmdir()


@contextmanager
def kernel_mounted(image: Path, *, offset: int = 0) -> Iterator[Path]:
    """Mount with the kernel's squashfs through a loop device."""
    need_root()
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("no loop devices")
    target = image.with_name(image.name + ".kernel")
    target.mkdir()
    argv = ["mount", "-t", "squashfs", "-o", f"loop,ro,offset={offset}", str(image), str(target)]
    result = subprocess.run(argv, capture_output=True, check=False)
    if result.returncode:
        target.rmdir()
        if (
            b"permission denied" in result.stderr.lower()
            or b"failed to setup loop" in result.stderr
        ):
            pytest.skip("no loop mounts in this container")
    assert result.returncode == 0, result.stderr
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)
        target.rmdir()


@contextmanager
def overlaid(images: list[Path]) -> Iterator[Path]:
    """Mount images, base first, and lay them on each other with the kernel's overlayfs."""
    target = images[0].with_name("overlaid")
    target.mkdir()
    empty = images[0].with_name("empty")  # overlayfs wants two lower folders at least
    empty.mkdir()
    with ExitStack() as stack:
        mounted = [stack.enter_context(kernel_mounted(image)) for image in images]
        lower = ":".join(str(path) for path in [*reversed(mounted), empty])
        argv = ["mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay", str(target)]
        subprocess.run(argv, check=True)
        try:
            yield target
        finally:
            subprocess.run(["umount", str(target)], check=True)
    target.rmdir()
    empty.rmdir()


JUDGES = {"unsquashfs": unsquashed, "squashfuse_ll": fuse_mounted, "kernel": kernel_mounted}
