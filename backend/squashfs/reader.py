"""A squashfs 4.0, read without mounting it: any compressor, any block size, from any offset.

Reading is by position (``os.pread``), so a reader may share its file with others.  Every
place and count that stands in the image is held against its size before it is used, and what
is unpacked is bounded; an image made to harm gives a ``FormatError``, whatever it holds.

Only blocks of metadata that are needed are read, and the last ones are kept: a look-up costs
a few reads, however large the image is.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from backend.errors import FormatError
from backend.escape import quoted
from backend.squashfs.inode import NO_FRAGMENT, Kind
from backend.squashfs.nodes import NO_XATTRS, InodeTable, Node
from backend.squashfs.storage import METADATA_BLOCK, STORED_BLOCK, Storage
from backend.squashfs.superblock import NO_TABLE, SIZE
from backend.squashfs.tree import resolve, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["Node", "SquashfsReader"]

MAX_NAME = 256
MAX_RUN = 256
"""Entries of a directory's list that share one head."""
MAX_XATTR = 65536
"""Bytes of one extended attribute's value, as in Linux."""
MAX_XATTRS = 64 << 20
"""Bytes of all extended attributes of one inode."""
MAX_LISTING = 64 << 20
"""Bytes of one directory's list: some three million names."""

_LEAST_BLOCK = 3
"""Bytes on disk that even an empty-handed metadata block takes."""
_LIST_STEP = 4096
"""Entries of a block list that are read at a time."""
_HAS_OPTIONS = 0x400

_NUMBER = struct.Struct("<I")
_LISTING = struct.Struct("<III")
_ENTRY = struct.Struct("<HhHH")
_INDEX = struct.Struct("<III")
_PLACE = struct.Struct("<Q")
_XATTR_HEAD = struct.Struct("<QII")
_XATTR_ID = struct.Struct("<QII")
_XATTR_NAME = struct.Struct("<HH")
_XATTR_SPACES = (b"user.", b"trusted.", b"security.")
_XATTR_ELSEWHERE = 0x100


class SquashfsReader:
    """A squashfs inside an open file.

    Args:
        file: Anything with a file descriptor; its position is neither used nor changed.
        offset: Byte of ``file`` at which the squashfs starts.

    Attributes:
        superblock: Counts and places.
        root: The directory that everything is in.

    Raises:
        FormatError: There is none, or it is damaged.
    """

    def __init__(self, file: BinaryIO | int, *, offset: int = 0) -> None:
        self._storage = Storage(file, offset=offset)
        self.superblock = self._storage.superblock
        self._inodes = InodeTable(self._storage)
        self._xattr_table: tuple[int, int] | None = None
        self.root = self._inodes.read(self.superblock.root)
        if self.root.kind is not Kind.DIRECTORY:
            raise FormatError("the root of the squashfs is no directory")

    @property
    def listing_limit(self) -> int:
        """Bytes that the directories' lists can have together, by the size of their table."""
        table = self.superblock.size - self.superblock.directory_table
        return METADATA_BLOCK * (table // _LEAST_BLOCK + 1)

    def compression_level(self) -> int:
        """Return the level that the writer recorded; 0 where it did not, or cannot."""
        has_options = self.superblock.flags & _HAS_OPTIONS
        if not has_options or self.superblock.compressor_name not in {"gzip", "zstd"}:
            return 0
        data, _, _ = self._storage.metadata(SIZE, 0, _NUMBER.size)
        return int(_NUMBER.unpack(data)[0])

    def lookup(self, path: str | bytes, *, follow: bool = True) -> Node | None:
        """Return what ``path`` names, links resolved inside the image; None for nothing.

        Args:
            path: From the image's root, with or without a slash in front.
            follow: Whether a symbolic link at the end is followed too.
        """
        found = resolve(self, os.fsencode(path), follow=follow)
        return found[1] if found else None

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Yield every path, without a slash in front, and its node; directories first.

        The root comes first and has the path ``b""``.
        """
        return walk(self)

    def child(self, directory: Node, name: bytes) -> Node | None:
        """Return what ``name`` stands for in a directory."""
        for entry, reference in self._listing(directory, name):
            if entry >= name:  # the names are sorted
                return self._inodes.read(reference) if entry == name else None
        return None

    def entries(self, directory: Node) -> Iterator[tuple[bytes, Node]]:
        """Yield the names in a directory and what they stand for, in the order of the image."""
        for name, reference in self._listing(directory):
            yield name, self._inodes.read(reference)

    def read(self, node: Node) -> Iterator[bytes]:
        """Yield the bytes of a regular file, at most a block (1 MiB) at a time."""
        left, position = node.size, node.start
        block_size = self.superblock.block_size
        zeros = bytes(block_size)
        for word in self._block_list(node):
            wanted = min(left, block_size)
            if word:
                data = self._storage.data_block(position, word, wanted)
                position += word & ~STORED_BLOCK
            else:
                data = zeros if wanted == block_size else bytes(wanted)
            left -= wanted
            yield data
        if left:
            block = self._storage.fragment(node.detail)
            if node.offset + left > len(block):
                raise FormatError("a file's end lies outside of its fragment")
            yield block[node.offset : node.offset + left]

    def data_parts(self, node: Node) -> list[tuple[int, int]]:
        """Return offset and length of what a regular file stores; the rest of it is zeros."""
        parts: list[tuple[int, int]] = []
        position = 0
        block_size = self.superblock.block_size
        for word in self._block_list(node):
            length = min(node.size - position, block_size)
            if word:
                _extend(parts, position, length)
            position += length
        if position < node.size:
            _extend(parts, position, node.size - position)
        return parts

    def read_bytes(self, node: Node, *, limit: int) -> bytes:
        """Return a regular file of at most ``limit`` bytes.

        Raises:
            FormatError: It is larger.
        """
        if node.size > limit:
            raise FormatError(f"a file has {node.size} bytes; at most {limit} are read")
        return b"".join(self.read(node))

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""
        return self._storage.metadata(*node.more, node.size)[0]

    def xattrs(self, node: Node) -> tuple[tuple[bytes, bytes], ...]:
        """Return the extended attributes of a node: full names and values."""
        if node.xattrs == NO_XATTRS or self.superblock.xattr_table == NO_TABLE:
            return ()
        values, count = self._xattr_places()
        if node.xattrs >= count:
            raise FormatError("an inode names extended attributes that are not there")
        head = self._storage.entry(self.superblock.xattr_table + 16, node.xattrs, _XATTR_ID)
        reference, pairs, _ = head
        position, offset = values + (reference >> 16), reference & 0xFFFF
        found = []
        left = MAX_XATTRS
        for _ in range(pairs):
            name, value, position, offset = self._xattr(values, position, offset)
            left -= len(name) + len(value)
            if left < 0:
                raise FormatError(f"more than {MAX_XATTRS >> 20} MiB of extended attributes")
            found.append((name, value))
        return tuple(found)

    def _xattr(self, values: int, position: int, offset: int) -> tuple[bytes, bytes, int, int]:
        """Return one name and value, and where the next one is."""
        data, position, offset = self._storage.metadata(position, offset, _XATTR_NAME.size)
        kind, size = _XATTR_NAME.unpack(data)
        space = kind & 0xFF
        if space >= len(_XATTR_SPACES):
            raise FormatError(f"an extended attribute of unknown kind {space}")
        name, position, offset = self._storage.metadata(position, offset, size)
        value, position, offset = self._xattr_value(position, offset)
        if kind & _XATTR_ELSEWHERE:
            if len(value) != _PLACE.size:
                raise FormatError("an extended attribute's place is damaged")
            (reference,) = _PLACE.unpack(value)
            value, _, _ = self._xattr_value(values + (reference >> 16), reference & 0xFFFF)
        return _XATTR_SPACES[space] + name, value, position, offset

    def _xattr_value(self, position: int, offset: int) -> tuple[bytes, int, int]:
        data, position, offset = self._storage.metadata(position, offset, _NUMBER.size)
        (size,) = _NUMBER.unpack(data)
        if size > MAX_XATTR:
            raise FormatError(f"an extended attribute of {size} bytes")
        return self._storage.metadata(position, offset, size)

    def _xattr_places(self) -> tuple[int, int]:
        """Return where the values start, and how many sets there are."""
        if self._xattr_table is None:
            data = self._storage.read(self.superblock.xattr_table, _XATTR_HEAD.size)
            start, count, _ = _XATTR_HEAD.unpack(data)
            self._xattr_table = start, count
        return self._xattr_table

    def _listing(self, directory: Node, wanted: bytes | None = None) -> Iterator[tuple[bytes, int]]:
        """Yield names and inode references; only the part of the list that may hold ``wanted``."""
        if directory.kind is not Kind.DIRECTORY:
            raise FormatError("a path goes on below something that is no directory")
        first, last, start = 0, directory.listing, directory.start
        if wanted is not None and directory.detail:
            first, last, start = self._indexed(directory, wanted)
        if not first <= last <= MAX_LISTING:
            raise FormatError(f"a directory whose list has {last - first} bytes")
        if first == last:
            return
        position = self.superblock.directory_table + start
        offset = (directory.offset + first) % METADATA_BLOCK
        data, _, _ = self._storage.metadata(position, offset, last - first)
        try:
            yield from _parse_listing(data)
        except struct.error as error:
            raise FormatError("a directory's list ends in the middle of a name") from error

    def _indexed(self, directory: Node, wanted: bytes) -> tuple[int, int, int]:
        """Return the part of the list that may hold a name: its bounds, and its block."""
        first, start = 0, directory.start
        position, offset = directory.more
        for _ in range(directory.detail):
            data, position, offset = self._storage.metadata(position, offset, _INDEX.size)
            before, block, size = _INDEX.unpack(data)
            if size >= MAX_NAME:
                raise FormatError(f"a name of {size + 1} bytes")
            name, position, offset = self._storage.metadata(position, offset, size + 1)
            if name > wanted:
                return first, before, start
            first, start = before, block
        return first, directory.listing, start

    def _block_list(self, node: Node) -> Iterator[int]:
        """Yield the size words of a file's blocks."""
        whole, rest = divmod(node.size, self.superblock.block_size)
        count = whole + bool(rest and node.detail == NO_FRAGMENT)
        position, offset = node.more
        while count:
            step = min(count, _LIST_STEP)
            data, position, offset = self._storage.metadata(position, offset, 4 * step)
            yield from struct.unpack(f"<{step}I", data)
            count -= step


def _parse_listing(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield names and inode references of a directory's list."""
    at = 0
    while at < len(data):
        count, block, _ = _LISTING.unpack_from(data, at)
        at += _LISTING.size
        if count >= MAX_RUN:
            raise FormatError(f"a directory's list has {count + 1} entries in one run")
        for _ in range(count + 1):
            offset, _, _, size = _ENTRY.unpack_from(data, at)
            end = at + _ENTRY.size + size + 1
            name = data[at + _ENTRY.size : end]
            if size >= MAX_NAME or end > len(data) or _is_unfit(name):
                raise FormatError(f"a directory has an entry called {quoted(os.fsdecode(name))}")
            yield name, block << 16 | offset
            at = end


def _is_unfit(name: bytes) -> bool:
    """Tell whether a name would lead out of its directory."""
    return name in {b".", b".."} or b"/" in name or b"\0" in name


def _extend(parts: list[tuple[int, int]], offset: int, length: int) -> None:
    """Append a stretch, joined to the last one where they touch."""
    if parts and sum(parts[-1]) == offset:
        offset, before = parts.pop()
        length += before
    parts.append((offset, length))
