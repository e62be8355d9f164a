"""The xattr table: every distinct set of xattrs once, found by its number."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from backend.squashfs.metadata import BLOCK, NO_TABLE, MetadataStream, pack_block

if TYPE_CHECKING:
    from typing import BinaryIO

    from backend.squashfs.compression import Compressor
    from backend.squashfs.inode import Xattrs

NONE = 0xFFFFFFFF
"""The number of an inode that has no xattrs."""

PREFIXES = (b"user.", b"trusted.", b"security.")
"""Namespaces that squashfs can keep; the place of each is its number on disk."""

_KEY = struct.Struct("<HH")
_VALUE = struct.Struct("<I")
_SET = struct.Struct("<QII")


class XattrTable:
    """Collects the sets of xattrs of all inodes."""

    def __init__(self, compress: Compressor) -> None:
        self._compress = compress
        self._pairs = MetadataStream(compress)
        self._sets: list[bytes] = []
        self._numbers: dict[Xattrs, int] = {(): NONE}

    def number(self, xattrs: Xattrs) -> int:
        """Return the number of a set, which is stored when it is new."""
        number = self._numbers.get(xattrs)
        if number is None:
            number = self._numbers[xattrs] = self._add(xattrs)
        return number

    def _add(self, xattrs: Xattrs) -> int:
        """Store a set; names outside the known namespaces cannot be kept."""
        position = self._pairs.position()
        packed = bytearray()
        count = 0
        for name, value in xattrs:
            for prefix_number, prefix in enumerate(PREFIXES):
                if name.startswith(prefix):
                    rest = name[len(prefix) :]
                    packed += _KEY.pack(prefix_number, len(rest)) + rest
                    packed += _VALUE.pack(len(value)) + value
                    count += 1
        if not count:
            return NONE
        self._pairs.write(packed)
        self._sets.append(_SET.pack(position, count, len(packed)))
        return len(self._sets) - 1

    def write(self, out: BinaryIO, position: int) -> tuple[int, int]:
        """Write the table; return its place for the superblock and the position after it."""
        if not self._sets:
            return NO_TABLE, position
        pairs = self._pairs.finish()
        start = position
        out.write(pairs)
        position += len(pairs)
        sets = b"".join(self._sets)
        places = []
        for offset in range(0, len(sets), BLOCK):
            block = pack_block(sets[offset : offset + BLOCK], self._compress)
            places.append(position)
            out.write(block)
            position += len(block)
        head = struct.pack(f"<QII{len(places)}Q", start, len(self._sets), 0, *places)
        out.write(head)
        return position, position + len(head)
