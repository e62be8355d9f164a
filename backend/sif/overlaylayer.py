"""What a container wrote into a writable overlay, as one more layer of the image's tree."""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING

from backend.errors import FormatError
from backend.sif.ext import ExtReader
from backend.squashfs.inode import Kind
from backend.squashfs.nodes import Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from backend.sif.ext import ExtNode

KINDS: dict[int, Kind] = {
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
}
"""By the bits of ``st_mode`` that say what something is."""
_CHUNK = 1 << 20
_HIDDEN = b".wh."
_OPAQUE_MARKS = frozenset({b".wh..wh..opq", b".wh..opq"})
WHITEOUT = 0
"""Stands for the inode of a name that is deleted; ext numbers its inodes from 1."""


def read_folder(reader: ExtReader, folder: ExtNode) -> tuple[dict[bytes, int], bool]:
    """Return the names in a folder with their inodes, and whether it hides what is below.

    fuse-overlayfs, which writes overlays for containers, notes what was deleted as files named
    ``.wh.NAME`` where it cannot make overlayfs's devices.
    """
    found = dict(reader.entries(folder))
    names = {name: number for name, number in found.items() if not name.startswith(_HIDDEN)}
    for name in found.keys() - names.keys() - _OPAQUE_MARKS:
        names.setdefault(name.removeprefix(_HIDDEN), WHITEOUT)
    return dict(sorted(names.items())), not _OPAQUE_MARKS.isdisjoint(found)


class OverlayLayer:
    """The directory ``upper`` of an overlay, with the interface of a ``SquashfsReader``.

    Args:
        file: Anything with a file descriptor.
        offset: Byte at which the ext file system starts.
        size: Its bytes.

    Attributes:
        root: The directory ``upper``.
        listing_limit: Bytes that the directories' lists can have together.

    Raises:
        FormatError: It is damaged, in use, or has no such directory.
    """

    def __init__(self, file: BinaryIO | int, *, offset: int, size: int) -> None:
        self._reader = ExtReader(file, offset=offset, size=size)
        upper = self._reader.lookup(b"upper")
        if upper is None or not stat.S_ISDIR(upper.mode):
            raise FormatError("the overlay has no directory upper")
        self.root = _node(upper)
        self.listing_limit = size

    def child(self, directory: Node, name: bytes) -> Node | None:
        """Return what ``name`` stands for in a directory."""
        number = read_folder(self._reader, self._ext(directory))[0].get(name)
        return None if number is None else self._node(number)

    def entries(self, directory: Node) -> Iterator[tuple[bytes, Node]]:
        """Yield the names in a directory and what they stand for."""
        for name, number in read_folder(self._reader, self._ext(directory))[0].items():
            yield name, self._node(number)

    def read(self, node: Node) -> Iterator[bytes]:
        """Yield the bytes of a regular file, at most 1 MiB at a time."""
        zeros = bytes(_CHUNK)
        for chunk in self._reader.read(self._ext(node)):
            if isinstance(chunk, bytes):
                yield chunk
                continue
            for _ in range(chunk // _CHUNK):
                yield zeros
            yield zeros[: chunk % _CHUNK]

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""
        return self._reader.readlink(self._ext(node))

    def xattrs(self, node: Node) -> tuple[tuple[bytes, bytes], ...]:
        """Return the extended attributes, but for what overlayfs notes for itself."""
        inode = self._ext(node)
        found = self._reader.xattrs(inode)
        if node.kind is Kind.DIRECTORY and read_folder(self._reader, inode)[1]:
            found = {**found, b"user.overlay.opaque": b"y"}
        return tuple(
            (name, value)
            for name, value in sorted(found.items())
            if b".overlay." not in name or name.endswith(b".opaque")
        )

    def _node(self, number: int) -> Node:
        return _node(self._reader.node(number)) if number else _DELETED

    def _ext(self, node: Node) -> ExtNode:
        return self._reader.node(node.number)


_DELETED = Node(Kind.CHARACTER_DEVICE, 0, 0, 0, 0, WHITEOUT, 1)


def _node(found: ExtNode) -> Node:
    kind = KINDS.get(stat.S_IFMT(found.mode))
    if kind is None:
        raise FormatError("the overlay holds something of an unknown kind")
    (links,) = struct.unpack_from("<H", found.raw, 26)
    is_sized = kind in {Kind.FILE, Kind.SYMLINK}
    return Node(
        kind,
        stat.S_IMODE(found.mode),
        found.uid,
        found.gid,
        found.mtime,
        found.number,
        links,
        size=found.size if is_sized else 0,
        device=found.device if kind in {Kind.BLOCK_DEVICE, Kind.CHARACTER_DEVICE} else 0,
        listing=found.size if kind is Kind.DIRECTORY else 0,
    )
