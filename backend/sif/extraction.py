"""Files out of an image, onto the disk, as the user who asks for them.

Owners and special files stay behind: a user cannot make them, and a copy shall not become
a way to a setuid program.  What is written lies below the target whatever the image holds;
the target appears when it is complete.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.copying import write_at
from backend.errors import ExistsError, FormatError, NotFoundError
from backend.escape import one_line
from backend.squashfs.inode import Kind
from backend.staging import StagedFile, sync_folder, unwritten

if TYPE_CHECKING:
    from pathlib import Path

    from backend.sif.contents import File, ImageTree


@dataclass(slots=True, kw_only=True)
class Extracted:
    """What was copied.

    Attributes:
        target: Where it is.
        files: Regular files and links.
        size: Bytes of the files.
        left: Paths of devices, pipes and sockets, which were not copied.
    """

    target: Path
    files: int = 0
    size: int = 0
    left: list[bytes]


def extract(tree: ImageTree, path: str | bytes, target: Path, *, overwrite: bool) -> Extracted:
    """Copy a file, or a directory with everything in it, out of an image.

    Args:
        tree: The image.
        path: In the image; a symbolic link is followed, those below it are copied.
        target: The name to give it; in a folder of this name, the copy keeps its own name.
        overwrite: Whether a file of that name is replaced; a folder never is.

    Raises:
        NotFoundError: The image has no such path, or the target's folder is missing.
        ExistsError: The target is there.
        FormatError: The image is damaged.
        SpaceError: The disk is full.
    """
    real, file = tree.need(path)
    if target.is_dir():
        target /= os.fsdecode(real.rpartition(b"/")[2] or b"root")
    if not target.parent.is_dir():
        raise NotFoundError(f"there is no folder {one_line(str(target.parent))}")
    done = Extracted(target=target, left=[])
    if file.kind is Kind.DIRECTORY:
        _extract_tree(tree, real, file, done)
    elif file.kind is Kind.FILE:
        with StagedFile(target, overwrite=overwrite, mode=file.node.mode & 0o777) as staged:
            _write(tree, file, staged.fd)
            staged.commit()
        done.files, done.size = 1, file.size
    else:
        raise FormatError(f"{one_line(os.fsdecode(path))} is no file and no folder")
    return done


def _extract_tree(tree: ImageTree, top: bytes, file: File, done: Extracted) -> None:
    if os.path.lexists(done.target):
        raise ExistsError(
            f"{one_line(str(done.target))} is there already",
            hint="name another folder, or remove it first",
        )
    staged = done.target.with_name(f".{done.target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        _Extraction(tree, os.fsencode(staged), done).run(top, file)
        staged.rename(done.target)
        sync_folder(done.target.parent)
    except FileExistsError as error:
        raise FormatError("the image holds a name twice in one directory") from error
    except OSError as error:
        raise unwritten(error, done.target) from error
    finally:
        if staged.is_dir():
            _make_removable(staged)
            shutil.rmtree(staged, ignore_errors=True)


class _Extraction:
    def __init__(self, tree: ImageTree, target: bytes, done: Extracted) -> None:
        self._tree = tree
        self._target = target
        self._done = done
        self._links: dict[int, bytes] = {}

    def run(self, top: bytes, file: File) -> None:
        """Write everything; directories get mode and time when nothing more is put into them."""
        directories = []
        for path, found in self._tree.walk(top, file):
            target = self._target + path[len(top) :] if top else self._joined(path)
            if found.kind is Kind.DIRECTORY:
                os.mkdir(target, 0o700)  # noqa: PTH102
                directories.append((target, found))
            else:
                self._put(path, target, found)
        for target, found in reversed(directories):
            os.chmod(target, found.node.mode & 0o777)  # noqa: PTH101
            os.utime(target, (found.node.mtime, found.node.mtime))

    def _joined(self, path: bytes) -> bytes:
        return self._target + b"/" + path if path else self._target

    def _put(self, path: bytes, target: bytes, file: File) -> None:
        if file.kind not in {Kind.FILE, Kind.SYMLINK}:
            self._done.left.append(path)
            return
        self._done.files += 1
        first = self._links.setdefault(file.number, target) if file.node.links > 1 else target
        if first != target:
            os.link(first, target, follow_symlinks=False)
        elif file.kind is Kind.FILE:
            self._put_file(target, file)
        else:
            os.symlink(self._tree.readlink(file), target)  # noqa: PTH211  (names are bytes)
            os.utime(target, (file.node.mtime, file.node.mtime), follow_symlinks=False)

    def _put_file(self, target: bytes, file: File) -> None:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            _write(self._tree, file, fd)
            os.fchmod(fd, file.node.mode & 0o777)
        finally:
            os.close(fd)
        self._done.size += file.size


def _write(tree: ImageTree, file: File, fd: int) -> None:
    """Write a file's bytes, holes where the image has blocks of zeros, and its time."""
    position = 0
    for chunk in tree.read(file):
        if chunk != bytes(len(chunk)):
            write_at(fd, chunk, position)
        position += len(chunk)
    os.ftruncate(fd, position)
    os.utime(fd, (file.node.mtime, file.node.mtime))


def _make_removable(folder: Path) -> None:
    """Let us remove what an interrupted copy left, whatever modes its directories have."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):  # noqa: PTH114
                os.chmod(path, 0o700)  # noqa: PTH101
