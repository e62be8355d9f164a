"""The blocks of a squashfs in an open file: data, fragments, metadata, tables; by position.

Every place is held against the size of the file system before it is read, and what is
unpacked is bounded.  The last blocks of metadata and fragments are kept.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING

from backend.errors import FormatError
from backend.squashfs.decompress import unpacker
from backend.squashfs.superblock import SIZE, parse_superblock

if TYPE_CHECKING:
    from typing import BinaryIO

STORED_BLOCK = 1 << 24
"""In the size word of a data block: it is stored as it is."""
STORED_METADATA = 0x8000
METADATA_BLOCK = 8192

_KEPT_METADATA = 512
"""Blocks: 4 MiB."""
_KEPT_FRAGMENTS = 4

_BLOCK_HEAD = struct.Struct("<H")
_FRAGMENT = struct.Struct("<QII")
_PLACE = struct.Struct("<Q")


class Storage:
    """A squashfs inside an open file, as blocks.

    Args:
        file: Anything with a file descriptor; its position is neither used nor changed.
        offset: Byte of ``file`` at which the squashfs starts.

    Attributes:
        superblock: Counts and places.

    Raises:
        FormatError: There is no squashfs, or its superblock is damaged.
    """

    def __init__(self, file: BinaryIO | int, *, offset: int) -> None:
        self._source = file  # which stays open as long as we are
        self._fd = file if isinstance(file, int) else file.fileno()
        self._offset = offset
        available = max(0, os.fstat(self._fd).st_size - offset)
        self._size = min(available, SIZE)
        self.superblock = parse_superblock(self.read(0, self._size), available)
        self._size = self.superblock.size
        self._unpack = unpacker(self.superblock.compressor)
        self._blocks: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._fragments: OrderedDict[int, bytes] = OrderedDict()

    def data_block(self, position: int, word: int, wanted: int) -> bytes:
        """Return a data block.

        Args:
            position: Where it is.
            word: Its size on disk, and whether it is stored as it is.
            wanted: How many bytes it must give.
        """
        size = word & ~STORED_BLOCK
        if size > self.superblock.block_size:
            raise FormatError(f"a data block of {size} bytes", offset=self._offset + position)
        data = self.read(position, size)
        if not word & STORED_BLOCK:
            data = self._unpack(data, wanted)
        if len(data) != wanted:
            raise FormatError(
                f"a data block holds {len(data)} bytes instead of {wanted}",
                offset=self._offset + position,
            )
        return data

    def fragment(self, index: int) -> bytes:
        """Return a fragment block."""
        if index >= self.superblock.fragment_count:
            raise FormatError("a file names a fragment that is not in the table")
        kept = self._fragments.get(index)
        if kept is None:
            entry = self.entry(self.superblock.fragment_table, index, _FRAGMENT)
            position, word, _ = entry
            size = word & ~STORED_BLOCK
            if size > self.superblock.block_size:
                raise FormatError(f"a fragment of {size} bytes", offset=self._offset + position)
            kept = self.read(position, size)
            if not word & STORED_BLOCK:
                kept = self._unpack(kept, self.superblock.block_size)
            self._fragments[index] = kept
            if len(self._fragments) > _KEPT_FRAGMENTS:
                self._fragments.popitem(last=False)
        else:
            self._fragments.move_to_end(index)
        return kept

    def entry(self, table: int, index: int, form: struct.Struct) -> tuple[int, ...]:
        """Return an entry of a table whose blocks are found by a list at ``table``."""
        per_block = METADATA_BLOCK // form.size
        (position,) = _PLACE.unpack(self.read(table + index // per_block * 8, 8))
        offset = index % per_block * form.size
        return form.unpack(self.metadata(position, offset, form.size)[0])

    def metadata(self, position: int, offset: int, size: int) -> tuple[bytes, int, int]:
        """Return metadata, and the block and offset that follow it.

        Args:
            position: Of the block.
            offset: Of the first byte in the unpacked block.
            size: How many bytes, from this block and those behind it.
        """
        block, following = self._metadata_block(position)
        end = offset + size
        if end <= len(block):
            return block[offset:end], position, end
        if offset > len(block):
            raise FormatError("a place in the metadata is outside of its block")
        parts = [block[offset:]]
        size -= len(parts[0])
        while size:
            position = following
            block, following = self._metadata_block(position)
            parts.append(block[:size])
            end = len(parts[-1])
            size -= end
        return b"".join(parts), position, end

    def _metadata_block(self, position: int) -> tuple[bytes, int]:
        """Return an unpacked block of metadata and the position of the next one."""
        kept = self._blocks.get(position)
        if kept is not None:
            self._blocks.move_to_end(position)
            return kept
        head = self.read(position, 2)
        (word,) = _BLOCK_HEAD.unpack(head)
        size = word & ~STORED_METADATA
        if not 1 <= size <= METADATA_BLOCK:
            raise FormatError(f"a metadata block of {size} bytes", offset=self._offset + position)
        data = self.read(position + 2, size)
        if not word & STORED_METADATA:
            data = self._unpack(data, METADATA_BLOCK)
        if not data:
            raise FormatError("an empty metadata block", offset=self._offset + position)
        kept = self._blocks[position] = data, position + 2 + size
        if len(self._blocks) > _KEPT_METADATA:
            self._blocks.popitem(last=False)
        return kept

    def read(self, position: int, size: int) -> bytes:
        """Return bytes as they are stored."""
        if position + size > self._size:
            raise FormatError("a place lies outside of the squashfs", offset=self._offset)
        data = os.pread(self._fd, size, self._offset + position)
        if len(data) != size:
            raise FormatError("the squashfs ends too early", offset=self._offset + position)
        return data
