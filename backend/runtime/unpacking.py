"""A squashfs written out as files, below the root folder of a process that has chrooted."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from backend.errors import FormatError
from backend.escape import one_line
from backend.space import size_on_disk
from backend.squashfs.inode import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.squashfs.reader import Node, SquashfsReader

_SPECIAL = {
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
}
_REFUSED = frozenset(
    {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSPC, errno.E2BIG}
)
"""What setting an attribute answers where the file system or a plain user cannot have it."""


def unpack(reader: SquashfsReader, *, keep_owners: bool, root: bytes = b"") -> Iterator[int]:
    """Write every file of the image below ``/`` and yield their number so far.

    Devices that this process may not make are left out; a container has its own.

    Args:
        reader: The image.
        keep_owners: Give files the owners they have in the image; else they stay ours.
        root: A folder to use instead of ``/``, which nobody else can write to meanwhile.

    Raises:
        FormatError: The image is damaged, or names one thing twice.
        OSError: The disk is full, or the host forbids something else.
    """
    folders: list[tuple[bytes, Node]] = []
    linked: dict[int, bytes] = {}
    for count, (name, node) in enumerate(reader.walk(), 1):
        path = root + b"/" + name
        try:
            if node.kind is Kind.DIRECTORY:
                folders.append((path, node))
                if name:
                    os.mkdir(path, 0o700)
            elif first := linked.get(node.number):
                os.link(first, path, follow_symlinks=False)
            else:
                if not _write(reader, path, node):
                    continue
                if node.links > 1:
                    linked[node.number] = path
                _dress(reader, path, node, keep_owners=keep_owners)
        except FileExistsError as error:
            raise FormatError(f"the image has two files called {one_line(str(name))}") from error
        yield count
    for path, node in reversed(folders):  # last, since writing into them changes their times
        _dress(reader, path, node, keep_owners=keep_owners)


def measure(reader: SquashfsReader) -> tuple[int, int]:
    """Return how many bytes on a disk and how many files :func:`unpack` will write.

    Raises:
        FormatError: The image is damaged.
    """
    sizes: dict[int, int] = {}  # by inode: names of one file share its blocks
    count = 0
    for _, node in reader.walk():
        count += 1
        if node.kind is Kind.FILE:
            parts = reader.data_parts(node)
            sizes[node.number] = sum(size_on_disk(length) for _, length in parts)
    return sum(sizes.values()), count


def _write(reader: SquashfsReader, path: bytes, node: Node) -> bool:
    """Make what a node stands for; return False for a device that we may not make."""
    if node.kind is Kind.SYMLINK:
        os.symlink(reader.readlink(node), path)
    elif node.kind is Kind.FILE:
        _write_file(reader, path, node)
    else:
        try:
            os.mknod(path, _SPECIAL[node.kind] | 0o600, _device(node.device))
        except PermissionError:
            return False
    return True


def _write_file(reader: SquashfsReader, path: bytes, node: Node) -> None:
    """Write a file's bytes; blocks of zeros become holes."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        for block in reader.read(node):
            if block == bytes(len(block)):
                os.lseek(descriptor, len(block), os.SEEK_CUR)
                continue
            view = memoryview(block)
            while view:
                view = view[os.write(descriptor, view) :]
        os.ftruncate(descriptor, node.size)
    finally:
        os.close(descriptor)


def _device(number: int) -> int:
    """Return the kernel's 32-bit device number in libc's form."""
    return os.makedev(number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00)


def _dress(reader: SquashfsReader, path: bytes, node: Node, *, keep_owners: bool) -> None:
    """Give a file its owner, mode, attributes and time; the owner first, which clears setuid."""
    if keep_owners:
        os.chown(path, node.uid, node.gid, follow_symlinks=False)
    if node.kind is not Kind.SYMLINK:
        os.chmod(path, node.mode)
        for name, value in reader.xattrs(node):
            try:
                os.setxattr(path, name, value)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
    os.utime(path, ns=(node.mtime * 10**9,) * 2, follow_symlinks=False)
