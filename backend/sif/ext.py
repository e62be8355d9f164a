"""An ext2, ext3 or ext4 file system inside a file, read without mounting it.

Reference: the kernel's ``fs/ext4`` (``ext4.h``, ``xattr.h``).  Only what ``mkfs.ext3`` and a
kernel that writes to it make is read: block maps and extents, directories with and without
an index, attributes in and beside the inode.  A file system that was not unmounted has a
journal to be played back, which is left to ``e2fsck``.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from backend.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

MAGIC = 0xEF53
ROOT = 2
_SUPERBLOCK = 1024
_XATTR_MAGIC = 0xEA020000
_EXTENT_MAGIC = 0xF30A
_USES_EXTENTS = 0x80000
_INLINE_DATA = 0x10000000
_NEEDS_RECOVERY, _KNOWN = 0x4, 0x2 | 0x4 | 0x40 | 0x80 | 0x200
"""File types in directories, recovery, extents, 64 bit and flexible groups."""
_WIDE = 0x80
_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
_MAX_LISTING = 64 << 20
_MAX_TARGET = 65535
_MAX_DEPTH = 5
"""Levels of an extent tree."""

_ENTRY = struct.Struct("<IHBB")
_EXTENT_HEAD = struct.Struct("<HHHHI")
_EXTENT = struct.Struct("<IHHI")
_XATTR = struct.Struct("<BBHIII")


class ExtNode(NamedTuple):
    """An inode.

    Attributes:
        number: From 1; 2 is the root.
        mode: As ``stat`` gives it.
        uid: Owner.
        gid: Group.
        size: Bytes.
        mtime: Seconds since 1970, 0 to 2**32 - 1.
        device: Of a device, as Linux writes it in 32 bits.
        flags: The inode's.
        raw: The inode as stored.
    """

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    device: int
    flags: int
    raw: bytes


class ExtReader:
    """An ext file system.

    Args:
        file: Anything with a file descriptor; read by position.
        offset: Byte at which the file system starts.
        size: Its bytes.

    Attributes:
        size: Its bytes, as far as they are in the file.
        block_size: Bytes of a block.

    Raises:
        FormatError: There is none, it is damaged, or it was not unmounted.
    """

    def __init__(self, file: BinaryIO | int, *, offset: int, size: int) -> None:
        self._source = file  # which stays open as long as we are
        self._fd = file if isinstance(file, int) else file.fileno()
        self._offset = offset
        self.size = min(size, os.fstat(self._fd).st_size - offset)
        head = self._pread(_SUPERBLOCK, 1024)
        if struct.unpack_from("<H", head, 56)[0] != MAGIC:
            raise FormatError("not an ext file system: the magic is missing", offset=offset)
        (self._inode_count,) = struct.unpack_from("<I", head, 0)
        first_block, block_log = struct.unpack_from("<II", head, 20)
        (self._per_group,) = struct.unpack_from("<I", head, 40)
        (revision,) = struct.unpack_from("<I", head, 76)
        (inode_size,) = struct.unpack_from("<H", head, 88)
        (features,) = struct.unpack_from("<I", head, 96)
        self._inode_size = inode_size if revision else 128
        if block_log > 6 or not self._per_group or not 128 <= self._inode_size <= 4096:
            raise FormatError("the ext file system is damaged", offset=offset)
        if features & ~_KNOWN:
            raise FormatError(f"an ext file system with unknown features {features:#x}")
        if features & _NEEDS_RECOVERY:
            raise FormatError(
                "the overlay was not unmounted, or is in use",
                hint="end the containers that write to it; if there are none, run e2fsck on it",
            )
        self.block_size = 1024 << block_log
        self._left = 0
        self._groups = (first_block + 1) * self.block_size
        self._is_wide = bool(features & _WIDE)
        self._group_size = struct.unpack_from("<H", head, 254)[0] if self._is_wide else 32
        if self._group_size < 32:
            raise FormatError("the ext file system is damaged", offset=offset)

    def lookup(self, path: bytes) -> ExtNode | None:
        """Return what a path names; symbolic links are not followed."""
        node = self.node(ROOT)
        for name in path.split(b"/"):
            number = dict(self.entries(node)).get(name)
            if number is None:
                return None
            node = self.node(number)
        return node

    def node(self, number: int) -> ExtNode:
        """Return an inode."""
        if not 1 <= number <= self._inode_count:
            raise FormatError(f"the overlay names inode {number}, which is not there")
        group, index = divmod(number - 1, self._per_group)
        place = self._pread(self._groups + group * self._group_size, self._group_size)
        (table,) = struct.unpack_from("<I", place, 8)
        if self._is_wide and self._group_size >= 64:
            table |= struct.unpack_from("<I", place, 40)[0] << 32
        raw = self._pread(table * self.block_size + index * self._inode_size, self._inode_size)
        mode, uid, size, _, _, mtime, _, gid, _, _, flags = struct.unpack_from("<HHIIIIIHHII", raw)
        (size_high,) = struct.unpack_from("<I", raw, 108)
        uid_high, gid_high = struct.unpack_from("<HH", raw, 120)
        old, new = struct.unpack_from("<II", raw, 40)
        return ExtNode(
            number=number,
            mode=mode,
            uid=uid | uid_high << 16,
            gid=gid | gid_high << 16,
            size=size | size_high << 32,
            mtime=mtime,
            device=new or _wide_device(old),
            flags=flags,
            raw=raw,
        )

    def entries(self, node: ExtNode) -> Iterator[tuple[bytes, int]]:
        """Yield the names in a directory and the inodes' numbers."""
        if node.size > _MAX_LISTING:
            raise FormatError(f"a directory whose list has {node.size} bytes")
        data = b"".join(bytes(one) if isinstance(one, int) else one for one in self.read(node))
        at = 0
        while at + _ENTRY.size <= len(data):
            number, length, size, _ = _ENTRY.unpack_from(data, at)
            name = data[at + _ENTRY.size : at + _ENTRY.size + size]
            if length < _ENTRY.size + size or at + length > len(data):
                raise FormatError("a directory of the overlay is damaged")
            if number and name not in {b".", b".."}:
                if not name or b"/" in name or b"\0" in name:
                    raise FormatError("a directory of the overlay holds an impossible name")
                yield name, number
            at += length

    def read(self, node: ExtNode) -> Iterator[bytes | int]:
        """Yield a file's content: bytes, and for a hole how many zeros it stands for."""
        if node.flags & _INLINE_DATA:
            raise FormatError("a file of the overlay has its data in the inode")
        left = node.size
        blocks = -(-left // self.block_size)
        position = 0
        for first, place, count in self._runs(node, blocks):
            if first > position:
                yield (first - position) * self.block_size
                left -= (first - position) * self.block_size
            for at in range(place, place + count):
                size = min(left, self.block_size)
                yield self._pread(at * self.block_size, size)
                left -= size
            position = first + count
        if left:
            yield left

    def readlink(self, node: ExtNode) -> bytes:
        """Return the target of a symbolic link."""
        if node.size > _MAX_TARGET:
            raise FormatError(f"a symbolic link with a target of {node.size} bytes")
        (blocks,) = struct.unpack_from("<I", node.raw, 28)
        (beside,) = struct.unpack_from("<I", node.raw, 104)
        if node.size < 60 and blocks <= (self.block_size // 512 if beside else 0):
            return node.raw[40 : 40 + node.size]
        return b"".join(bytes(one) if isinstance(one, int) else one for one in self.read(node))

    def xattrs(self, node: ExtNode) -> dict[bytes, bytes]:
        """Return the extended attributes by full name."""
        found: dict[bytes, bytes] = {}
        if len(node.raw) > 132:
            (extra,) = struct.unpack_from("<H", node.raw, 128)
            start = 128 + extra
            if start + 4 <= len(node.raw) and _magic(node.raw, start):
                found |= dict(_parse_xattrs(node.raw[start + 4 :], 0))
        (beside,) = struct.unpack_from("<I", node.raw, 104)
        if beside:
            block = self._pread(beside * self.block_size, self.block_size)
            if not _magic(block, 0):
                raise FormatError("attributes of the overlay are damaged")
            found |= dict(_parse_xattrs(block, 32))
        return found

    def _runs(self, node: ExtNode, blocks: int) -> Iterator[tuple[int, int, int]]:
        """Yield runs of stored blocks, in order: first in the file, place on disk, count."""
        self._left = self.size // self.block_size + 1  # no file has more than there are
        area = node.raw[40:100]
        found = self._extents(area, 0) if node.flags & _USES_EXTENTS else self._map(area)
        end = 0
        for first, place, count in found:
            if first >= blocks:
                return
            if first < end:
                raise FormatError("the blocks of a file of the overlay are out of order")
            end = min(first + count, blocks)
            self._spend(end - first)
            yield first, place, end - first

    def _map(self, area: bytes) -> Iterator[tuple[int, int, int]]:
        per_block = self.block_size // 4
        direct = struct.unpack("<15I", area)
        for i, place in enumerate(direct[:12]):
            if place:
                yield i, place, 1
        first = 12
        for level, place in enumerate(direct[12:], 1):
            if place:
                yield from self._indirect(place, first, level)
            first += per_block**level

    def _indirect(self, place: int, first: int, level: int) -> Iterator[tuple[int, int, int]]:
        per_block = self.block_size // 4
        step = per_block ** (level - 1)
        self._spend(1)
        data = self._pread(place * self.block_size, self.block_size)
        for i, below in enumerate(struct.unpack(f"<{per_block}I", data)):
            if not below:
                continue
            if level == 1:
                yield first + i, below, 1
            else:
                yield from self._indirect(below, first + i * step, level - 1)

    def _extents(self, area: bytes, depth: int) -> Iterator[tuple[int, int, int]]:
        magic, count, _, levels, _ = _EXTENT_HEAD.unpack_from(area)
        if magic != _EXTENT_MAGIC or 12 + 12 * count > len(area) or depth > _MAX_DEPTH:
            raise FormatError("the blocks of a file of the overlay are damaged")
        for i in range(count):
            if levels:
                first, low, high, _ = struct.unpack_from("<IIHH", area, 12 + 12 * i)
                place = (low | high << 32) * self.block_size
                self._spend(1)
                yield from self._extents(self._pread(place, self.block_size), depth + 1)
            else:
                first, length, high, low = _EXTENT.unpack_from(area, 12 + 12 * i)
                if length <= 0x8000:  # longer ones are reserved and read as zeros
                    yield first, low | high << 32, length

    def _spend(self, blocks: int) -> None:
        """Count the blocks of a file, so that one made to harm cannot keep us for ever."""
        self._left -= blocks
        if self._left < 0:
            raise FormatError("a file of the overlay has more blocks than there are")

    def _pread(self, position: int, size: int) -> bytes:
        if position + size > self.size:
            raise FormatError("a place lies outside of the overlay", offset=self._offset)
        data = os.pread(self._fd, size, self._offset + position)
        if len(data) != size:
            raise FormatError("the overlay ends too early", offset=self._offset + position)
        return data


def _wide_device(old: int) -> int:
    """Return the 32-bit form of a device number stored in 16 bits."""
    return (old & 0xFF) | (old >> 8 & 0xFF) << 8


def _magic(data: bytes, at: int) -> bool:
    (magic,) = struct.unpack_from("<I", data, at)
    return bool(magic == _XATTR_MAGIC)


def _parse_xattrs(area: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield names and values; places of values count from the start of ``area``."""
    while at + 4 <= len(area) and area[at : at + 4] != bytes(4):
        if at + _XATTR.size > len(area):
            raise FormatError("attributes of the overlay are damaged")
        length, index, start, elsewhere, size, _ = _XATTR.unpack_from(area, at)
        name = area[at + _XATTR.size : at + _XATTR.size + length]
        prefix = _PREFIXES.get(index)
        if elsewhere or prefix is None or start + size > len(area) or len(name) != length:
            raise FormatError("attributes of the overlay are damaged")
        yield prefix + name, area[start : start + size]
        at += (_XATTR.size + length + 3) & ~3
