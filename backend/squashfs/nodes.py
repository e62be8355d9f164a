"""Inodes of a squashfs, as they are read."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from backend.errors import FormatError
from backend.squashfs.inode import Kind

if TYPE_CHECKING:
    from backend.squashfs.storage import Storage

MAX_TARGET = 65535
"""Bytes of a symbolic link's target; Linux stops at 4095."""
NO_XATTRS = 0xFFFFFFFF

_HEAD = struct.Struct("<4H2I")
_DIRECTORY = struct.Struct("<IIHHI")
_LONG_DIRECTORY = struct.Struct("<IIIIHHI")
_FILE = struct.Struct("<IIII")
_LONG_FILE = struct.Struct("<QQQIIII")
_LINKS_AND_VALUE = struct.Struct("<II")
_NUMBER = struct.Struct("<I")
_LISTING_EXTRA = 3
"""What a directory's size counts beyond its list: the names ``.`` and ``..``."""
_KINDS = tuple(Kind)


class Node(NamedTuple):
    """An inode.

    Attributes:
        kind: What it is.
        mode: Permission bits, 12 of them.
        uid: Owner.
        gid: Group.
        mtime: Seconds since 1970.
        number: Of the inode, from 1; equal numbers are hard links to one thing.
        links: Names that stand for it.
        size: Bytes of a file, or of a symbolic link's target; otherwise 0.
        device: Of a device: its number as Linux writes it in 32 bits.
        xattrs: Index of its extended attributes; see :meth:`.SquashfsReader.xattrs`.
        listing: Of a directory: bytes of its listing.
        start: Of a file: place of its first block.  Of a directory: block of its listing.
        offset: Of a file: of its end in the fragment.  Of a directory: in the listing's block.
        detail: Of a file: the fragment block of its end, or ``NO_FRAGMENT``.  Of a directory:
            entries of its index.
        more: Block and offset where the inode goes on: block list, target or index.
    """

    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    number: int
    links: int
    size: int = 0
    device: int = 0
    xattrs: int = NO_XATTRS
    listing: int = 0
    start: int = 0
    offset: int = 0
    detail: int = 0
    more: tuple[int, int] = (0, 0)


_Head = tuple[Kind, int, int, int, int, int]


class InodeTable:
    """The inodes of a squashfs, by reference."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._superblock = storage.superblock
        self._ids: dict[int, int] = {}

    def read(self, reference: int) -> Node:
        """Return the inode at ``block << 16 | byte`` of the inode table."""
        position = self._superblock.inode_table + (reference >> 16)
        if position >= self._superblock.directory_table:
            raise FormatError("an inode lies outside of the inode table")
        data, position, offset = self._storage.metadata(position, reference & 0xFFFF, _HEAD.size)
        number, mode, uid, gid, mtime, inode = _HEAD.unpack(data)
        if not 1 <= number <= 14:
            raise FormatError(f"an inode of unknown type {number}")
        kind: Kind = _KINDS[(number - 1) % 7]
        is_long = number > 7
        head = kind, mode & 0o7777, self._id(uid), self._id(gid), mtime, inode
        match kind:
            case Kind.DIRECTORY:
                parse = self._long_directory if is_long else self._directory
            case Kind.FILE:
                parse = self._long_file if is_long else self._file
            case Kind.SYMLINK:
                parse = self._long_symlink if is_long else self._symlink
            case Kind.BLOCK_DEVICE | Kind.CHARACTER_DEVICE:
                parse = self._long_device if is_long else self._device
            case _:  # a pipe or a socket
                parse = self._long_pipe if is_long else self._pipe
        return parse(head, position, offset)

    def _directory(self, head: _Head, position: int, offset: int) -> Node:
        data, _, _ = self._storage.metadata(position, offset, _DIRECTORY.size)
        start, links, size, at, _ = _DIRECTORY.unpack(data)
        return Node(*head, links, listing=max(0, size - _LISTING_EXTRA), start=start, offset=at)

    def _long_directory(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._storage.metadata(position, offset, _LONG_DIRECTORY.size)
        links, size, start, _, count, at, xattrs = _LONG_DIRECTORY.unpack(data)
        listing, more = max(0, size - _LISTING_EXTRA), (position, offset)
        return Node(*head, links, 0, 0, xattrs, listing, start, at, count, more)

    def _file(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._storage.metadata(position, offset, _FILE.size)
        start, fragment, at, size = _FILE.unpack(data)
        return Node(*head, 1, size, 0, NO_XATTRS, 0, start, at, fragment, (position, offset))

    def _long_file(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._storage.metadata(position, offset, _LONG_FILE.size)
        start, size, _, links, fragment, at, xattrs = _LONG_FILE.unpack(data)
        return Node(*head, links, size, 0, xattrs, 0, start, at, fragment, (position, offset))

    def _symlink(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._storage.metadata(position, offset, _LINKS_AND_VALUE.size)
        links, size = _LINKS_AND_VALUE.unpack(data)
        if size > MAX_TARGET:
            raise FormatError(f"a symbolic link with a target of {size} bytes")
        return Node(*head, links, size, more=(position, offset))

    def _long_symlink(self, head: _Head, position: int, offset: int) -> Node:
        node = self._symlink(head, position, offset)
        _, position, offset = self._storage.metadata(*node.more, node.size)
        return node._replace(xattrs=self._xattr_index(position, offset))

    def _device(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._storage.metadata(position, offset, _LINKS_AND_VALUE.size)
        links, device = _LINKS_AND_VALUE.unpack(data)
        return Node(*head, links, device=device, more=(position, offset))

    def _long_device(self, head: _Head, position: int, offset: int) -> Node:
        node = self._device(head, position, offset)
        return node._replace(xattrs=self._xattr_index(*node.more))

    def _pipe(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._storage.metadata(position, offset, _NUMBER.size)
        (links,) = _NUMBER.unpack(data)
        return Node(*head, links, more=(position, offset))

    def _long_pipe(self, head: _Head, position: int, offset: int) -> Node:
        node = self._pipe(head, position, offset)
        return node._replace(xattrs=self._xattr_index(*node.more))

    def _xattr_index(self, position: int, offset: int) -> int:
        (index,) = _NUMBER.unpack(self._storage.metadata(position, offset, _NUMBER.size)[0])
        return int(index)

    def _id(self, index: int) -> int:
        known = self._ids.get(index)
        if known is None:
            if index >= self._superblock.id_count:
                raise FormatError("an inode names an owner that is not in the table")
            (known,) = self._storage.entry(self._superblock.id_table, index, _NUMBER)
            self._ids[index] = known
        return known
