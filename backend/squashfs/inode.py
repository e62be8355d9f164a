"""The tree that a squashfs is written from: names, and the things they stand for.

A tree of a million names has to fit in memory, so an inode has few slots, what many of
them share (owner, mode, xattrs) is one interned value, and a file's place is packed bytes.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

Xattrs = tuple[tuple[bytes, bytes], ...]
"""Pairs of full name (``user.x``) and value, sorted by name."""

NO_FRAGMENT = 0xFFFFFFFF

_PLACE = struct.Struct("<QQII")


class Kind(IntEnum):
    """What an inode is; the numbers are those of squashfs's basic inodes."""

    DIRECTORY = 1
    FILE = 2
    SYMLINK = 3
    BLOCK_DEVICE = 4
    CHARACTER_DEVICE = 5
    FIFO = 6
    SOCKET = 7


class Attributes(NamedTuple):
    """What ``stat`` and ``getxattr`` tell of an inode, but for its time.

    Attributes:
        mode: Permission bits, 12 of them.
        uid: Owner.
        gid: Group.
        xattrs: Sorted; the namespaces ``user``, ``trusted`` and ``security`` can be kept.
    """

    mode: int
    uid: int
    gid: int
    xattrs: Xattrs = ()


class Place(NamedTuple):
    """Where a regular file's bytes are.

    Attributes:
        size: Of the file, in bytes.
        start: Of its first block, in bytes from the start of the file system.
        fragment: Index of the fragment block that holds the file's end, or ``NO_FRAGMENT``.
        offset: Of the file's end in that block once it is unpacked.
        blocks: The block list as the inode holds it: 32-bit sizes on disk, bit 24 set where
            the block is stored as it is, 0 for a block of zeros that is not stored.
    """

    size: int
    start: int
    fragment: int
    offset: int
    blocks: bytes

    def pack(self) -> bytes:
        """Return the place in its compact form, the ``content`` of a file's inode."""
        return _PLACE.pack(self.size, self.start, self.fragment, self.offset) + self.blocks


def unpack_place(packed: bytes) -> Place:
    """Return what :meth:`Place.pack` packed."""
    size, start, fragment, offset = _PLACE.unpack_from(packed)
    return Place(size, start, fragment, offset, packed[_PLACE.size :])


class Inode:
    """One thing that one or more names stand for.

    Attributes:
        kind: What it is.
        attributes: Mode, owner, xattrs.
        mtime: Seconds since 1970, 0 to 2**32 - 1.
        content: By kind: a file's packed :class:`Place`; a symbolic link's target as bytes;
            a device's number; a :class:`Directory`; None for the others.
        links: Names that stand for it, counted by the writer.
        number: Its number in the file system, from 1, given by the writer; 0 before.
    """

    __slots__ = ("attributes", "content", "kind", "links", "mtime", "number")

    def __init__(
        self,
        kind: Kind,
        attributes: Attributes,
        mtime: int,
        content: bytes | int | Directory | None = None,
    ) -> None:
        self.kind = kind
        self.attributes = attributes
        self.mtime = mtime
        self.content = content
        self.links = 0
        self.number = 0

    @property
    def data(self) -> bytes:
        """A file's packed place, or a symbolic link's target."""
        if not isinstance(self.content, bytes):
            raise TypeError(f"{self.kind.name} without content")
        return self.content

    @property
    def directory(self) -> Directory:
        """What a directory holds."""
        if not isinstance(self.content, Directory):
            raise TypeError(f"{self.kind.name} is no directory")
        return self.content


class Directory:
    """What a directory holds.

    Attributes:
        entries: Inode by name; the writer sorts.
    """

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: dict[bytes, Inode] = {}


def device_number(major: int, minor: int) -> int:
    """Return the 32-bit form in which Linux writes a device's number."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def split_device(number: int) -> tuple[int, int]:
    """Return major and minor of a 32-bit device number."""
    return (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
