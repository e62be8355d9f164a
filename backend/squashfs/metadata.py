"""Metadata of squashfs: streams of 8 KiB blocks, and tables that are found by a list of them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

    from backend.squashfs.compression import Compressor

BLOCK = 8192
"""Bytes of metadata in one block before compression."""
RAW = 0x8000
"""Set in a block's 16-bit head where it is stored as it is."""
NO_TABLE = 0xFFFFFFFFFFFFFFFF

_HEAD = struct.Struct("<H")


class MetadataStream:
    """Metadata that grows at its end; kept packed in memory until the data is written.

    Attributes:
        packed: The complete blocks.
    """

    def __init__(self, compress: Compressor) -> None:
        self._compress = compress
        self._open = bytearray()
        self.packed = bytearray()

    def position(self) -> int:
        """Return the reference of what is written next: block's place << 16 | byte in it."""
        return len(self.packed) << 16 | len(self._open)

    def write(self, data: bytes | bytearray) -> None:
        """Append metadata."""
        self._open += data
        while len(self._open) >= BLOCK:
            self._pack(bytes(self._open[:BLOCK]))
            del self._open[:BLOCK]

    def finish(self) -> bytearray:
        """Return all blocks, the last one ended."""
        if self._open:
            self._pack(bytes(self._open))
            self._open.clear()
        return self.packed

    def _pack(self, block: bytes) -> None:
        self.packed += pack_block(block, self._compress)


def pack_block(block: bytes, compress: Compressor) -> bytes:
    """Return one metadata block with its head."""
    packed = compress(block)
    if len(packed) < len(block):
        return _HEAD.pack(len(packed)) + packed
    return _HEAD.pack(len(block) | RAW) + block


def write_table(out: BinaryIO, position: int, data: bytes, compress: Compressor) -> tuple[int, int]:
    """Write a look-up table: its blocks, then the list of their places.

    Args:
        out: Stands at ``position``.
        position: Bytes from the start of the file system.
        data: The table's entries.
        compress: For the blocks.

    Returns:
        Where the list is, and the position after it.
    """
    places = []
    for start in range(0, len(data), BLOCK):
        block = pack_block(data[start : start + BLOCK], compress)
        places.append(position)
        out.write(block)
        position += len(block)
    out.write(struct.pack(f"<{len(places)}Q", *places))
    return position, position + 8 * len(places)
