"""The first 96 bytes of a squashfs 4.0, as they are read."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from backend.errors import FormatError

MAGIC = 0x73717368
SIZE = 96
NO_TABLE = 0xFFFFFFFFFFFFFFFF

_FORM = struct.Struct("<5I6H8Q")
_COMPRESSORS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """Counts, and places in bytes from the start of the file system.

    Attributes:
        inode_count: Inodes, numbered from 1.
        modified: Seconds since 1970.
        block_size: Bytes of a data block, a power of 2 from 4 KiB to 1 MiB.
        fragment_count: Fragment blocks.
        compressor: Its number.
        flags: What the writer chose; readers need none of it.
        id_count: User and group numbers.
        root: Reference of the root directory's inode.
        size: Bytes of the whole file system without padding.
        id_table: Where the list of its blocks is; so for the next five.
        xattr_table: ``NO_TABLE`` when there are no extended attributes.
        inode_table: Where its first block is.
        directory_table: The same.
        fragment_table: Where the list of its blocks is.
        export_table: The same; ``NO_TABLE`` when there is none.
    """

    inode_count: int
    modified: int
    block_size: int
    fragment_count: int
    compressor: int
    flags: int
    id_count: int
    root: int
    size: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int

    @property
    def compressor_name(self) -> str:
        """``zstd``, ``gzip`` ... as squashfs-tools calls it."""
        return _COMPRESSORS.get(self.compressor, f"method {self.compressor}")


def parse_superblock(data: bytes, available: int) -> Superblock:
    """Parse a superblock.

    Args:
        data: At least 96 bytes.
        available: Bytes from the start of the file system to the end of the file.

    Raises:
        FormatError: It is none, of another version, or its places lie outside of the file.
    """
    if len(data) < SIZE or int.from_bytes(data[:4], "little") != MAGIC:
        raise FormatError("not a squashfs: the magic is missing")
    fields = _FORM.unpack_from(data)
    _, inodes, modified, block_size, fragments = fields[:5]
    compressor, block_log, flags, ids, major, minor = fields[5:11]
    root, size, id_table, xattrs, inode_table, directories, fragment_table, exports = fields[11:]
    if (major, minor) != (4, 0):
        raise FormatError(f"squashfs of version {major}.{minor}; we read 4.0")
    if not 12 <= block_log <= 20 or block_size != 1 << block_log:
        raise FormatError(f"a squashfs with blocks of {block_size} bytes")
    if size > available:
        raise FormatError(
            f"the squashfs has {size} bytes, but only {available} are there",
            hint="the file was cut short: fetch it again",
        )
    if max(id_table, inode_table, directories) >= size or inode_table > directories:
        raise FormatError("a table of the squashfs lies outside of it")
    return Superblock(
        inode_count=inodes,
        modified=modified,
        block_size=block_size,
        fragment_count=fragments,
        compressor=compressor,
        flags=flags,
        id_count=ids,
        root=root,
        size=size,
        id_table=id_table,
        xattr_table=xattrs,
        inode_table=inode_table,
        directory_table=directories,
        fragment_table=fragment_table,
        export_table=exports,
    )
