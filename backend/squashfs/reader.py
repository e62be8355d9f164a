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
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from backend.errors import FormatError
from backend.escape import one_line
from backend.squashfs.decompress import unpacker
from backend.squashfs.inode import NO_FRAGMENT, Kind
from backend.squashfs.superblock import NO_TABLE, SIZE, parse_superblock
from backend.squashfs.tree import resolve, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

STORED_BLOCK = 1 << 24
"""In the size word of a data block: it is stored as it is."""
STORED_METADATA = 0x8000
METADATA_BLOCK = 8192
MAX_TARGET = 65535
"""Bytes of a symbolic link's target; Linux stops at 4095."""
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
_HAS_OPTIONS = 0x400
_KEPT_METADATA = 512
"""Blocks: 4 MiB."""
_KEPT_FRAGMENTS = 4
_LIST_STEP = 4096
"""Entries of a block list that are read at a time."""
_NO_XATTRS = 0xFFFFFFFF

_BLOCK_HEAD = struct.Struct("<H")
_HEAD = struct.Struct("<4H2I")
_DIRECTORY = struct.Struct("<IIHHI")
_LONG_DIRECTORY = struct.Struct("<IIIIHHI")
_FILE = struct.Struct("<IIII")
_LONG_FILE = struct.Struct("<QQQIIII")
_LINKS_AND_VALUE = struct.Struct("<II")
_NUMBER = struct.Struct("<I")
_LISTING = struct.Struct("<III")
_ENTRY = struct.Struct("<HhHH")
_INDEX = struct.Struct("<III")
_FRAGMENT = struct.Struct("<QII")
_PLACE = struct.Struct("<Q")
_XATTR_HEAD = struct.Struct("<QII")
_XATTR_ID = struct.Struct("<QII")
_XATTR_NAME = struct.Struct("<HH")
_XATTR_SPACES = (b"user.", b"trusted.", b"security.")
_XATTR_ELSEWHERE = 0x100


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
        xattrs: Index of its extended attributes; see :meth:`SquashfsReader.xattrs`.
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
    xattrs: int = _NO_XATTRS
    listing: int = 0
    start: int = 0
    offset: int = 0
    detail: int = 0
    more: tuple[int, int] = (0, 0)


_Head = tuple[Kind, int, int, int, int, int]


class SquashfsReader:
    """A squashfs inside an open file.

    Args:
        file: Anything with a file descriptor; its position is neither used nor changed.
        offset: Byte of ``file`` at which the squashfs starts.

    Raises:
        FormatError: There is none, or it is damaged.
    """

    def __init__(self, file: BinaryIO | int, *, offset: int = 0) -> None:
        self._source = file  # which stays open as long as we are
        self._fd = file if isinstance(file, int) else file.fileno()
        self._offset = offset
        available = max(0, os.fstat(self._fd).st_size - offset)
        self._size = min(available, SIZE)
        self.superblock = parse_superblock(self._pread(0, self._size), available)
        self._size = self.superblock.size
        self._unpack = unpacker(self.superblock.compressor)
        self._blocks: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._fragments: OrderedDict[int, bytes] = OrderedDict()
        self._ids: dict[int, int] = {}
        self._xattr_table: tuple[int, int] | None = None
        self.root = self._inode(self.superblock.root)
        if self.root.kind is not Kind.DIRECTORY:
            raise FormatError("the root of the squashfs is no directory")

    @property
    def listing_limit(self) -> int:
        """Bytes that the directories' lists can have together, by the size of their table."""
        table = self._size - self.superblock.directory_table
        return METADATA_BLOCK * (table // _LEAST_BLOCK + 1)

    def compression_level(self) -> int:
        """Return the level that the writer recorded; 0 where it did not, or cannot."""
        has_options = self.superblock.flags & _HAS_OPTIONS
        if not has_options or self.superblock.compressor_name not in {"gzip", "zstd"}:
            return 0
        data, _, _ = self._metadata(SIZE, 0, _NUMBER.size)
        return int(_NUMBER.unpack(data)[0])

    # -- names ---------------------------------------------------------------------------

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
                return self._inode(reference) if entry == name else None
        return None

    def entries(self, directory: Node) -> Iterator[tuple[bytes, Node]]:
        """Yield the names in a directory and what they stand for, in the order of the image."""
        for name, reference in self._listing(directory):
            yield name, self._inode(reference)

    # -- contents ------------------------------------------------------------------------

    def read(self, node: Node) -> Iterator[bytes]:
        """Yield the bytes of a regular file, at most a block (1 MiB) at a time."""
        left, position = node.size, node.start
        block_size = self.superblock.block_size
        zeros = bytes(block_size)
        for word in self._block_list(node):
            wanted = min(left, block_size)
            if word:
                data = self._data_block(position, word, wanted)
                position += word & ~STORED_BLOCK
            else:
                data = zeros if wanted == block_size else bytes(wanted)
            left -= wanted
            yield data
        if left:
            block = self._fragment(node.detail)
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
        if node.size > MAX_TARGET:
            raise FormatError(f"a symbolic link with a target of {node.size} bytes")
        return self._metadata(*node.more, node.size)[0]

    def xattrs(self, node: Node) -> tuple[tuple[bytes, bytes], ...]:
        """Return the extended attributes of a node: full names and values."""
        if node.xattrs == _NO_XATTRS or self.superblock.xattr_table == NO_TABLE:
            return ()
        values, count = self._xattr_places()
        if node.xattrs >= count:
            raise FormatError("an inode names extended attributes that are not there")
        head = self._entry(self.superblock.xattr_table + 16, node.xattrs, _XATTR_ID)
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
        data, position, offset = self._metadata(position, offset, _XATTR_NAME.size)
        kind, size = _XATTR_NAME.unpack(data)
        space = kind & 0xFF
        if space >= len(_XATTR_SPACES):
            raise FormatError(f"an extended attribute of unknown kind {space}")
        name, position, offset = self._metadata(position, offset, size)
        value, position, offset = self._xattr_value(position, offset)
        if kind & _XATTR_ELSEWHERE:
            if len(value) != _PLACE.size:
                raise FormatError("an extended attribute's place is damaged")
            (reference,) = _PLACE.unpack(value)
            value, _, _ = self._xattr_value(values + (reference >> 16), reference & 0xFFFF)
        return _XATTR_SPACES[space] + name, value, position, offset

    def _xattr_value(self, position: int, offset: int) -> tuple[bytes, int, int]:
        data, position, offset = self._metadata(position, offset, _NUMBER.size)
        (size,) = _NUMBER.unpack(data)
        if size > MAX_XATTR:
            raise FormatError(f"an extended attribute of {size} bytes")
        return self._metadata(position, offset, size)

    def _xattr_places(self) -> tuple[int, int]:
        """Return where the values start, and how many sets there are."""
        if self._xattr_table is None:
            data = self._pread(self.superblock.xattr_table, _XATTR_HEAD.size)
            start, count, _ = _XATTR_HEAD.unpack(data)
            self._xattr_table = start, count
        return self._xattr_table

    # -- inodes --------------------------------------------------------------------------

    def _inode(self, reference: int) -> Node:
        """Return the inode at ``block << 16 | byte`` of the inode table."""
        position = self.superblock.inode_table + (reference >> 16)
        if position >= self.superblock.directory_table:
            raise FormatError("an inode lies outside of the inode table")
        data, position, offset = self._metadata(position, reference & 0xFFFF, _HEAD.size)
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
        data, _, _ = self._metadata(position, offset, _DIRECTORY.size)
        start, links, size, at, _ = _DIRECTORY.unpack(data)
        return Node(*head, links, listing=max(0, size - 3), start=start, offset=at)

    def _long_directory(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._metadata(position, offset, _LONG_DIRECTORY.size)
        links, size, start, _, count, at, xattrs = _LONG_DIRECTORY.unpack(data)
        listing, more = max(0, size - 3), (position, offset)
        return Node(*head, links, 0, 0, xattrs, listing, start, at, count, more)

    def _file(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._metadata(position, offset, _FILE.size)
        start, fragment, at, size = _FILE.unpack(data)
        return Node(*head, 1, size, 0, _NO_XATTRS, 0, start, at, fragment, (position, offset))

    def _long_file(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._metadata(position, offset, _LONG_FILE.size)
        start, size, _, links, fragment, at, xattrs = _LONG_FILE.unpack(data)
        return Node(*head, links, size, 0, xattrs, 0, start, at, fragment, (position, offset))

    def _symlink(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._metadata(position, offset, _LINKS_AND_VALUE.size)
        links, size = _LINKS_AND_VALUE.unpack(data)
        if size > MAX_TARGET:
            raise FormatError(f"a symbolic link with a target of {size} bytes")
        return Node(*head, links, size, more=(position, offset))

    def _long_symlink(self, head: _Head, position: int, offset: int) -> Node:
        node = self._symlink(head, position, offset)
        _, position, offset = self._metadata(*node.more, node.size)
        return node._replace(xattrs=self._xattr_index(position, offset))

    def _device(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._metadata(position, offset, _LINKS_AND_VALUE.size)
        links, device = _LINKS_AND_VALUE.unpack(data)
        return Node(*head, links, device=device, more=(position, offset))

    def _long_device(self, head: _Head, position: int, offset: int) -> Node:
        node = self._device(head, position, offset)
        return node._replace(xattrs=self._xattr_index(*node.more))

    def _pipe(self, head: _Head, position: int, offset: int) -> Node:
        data, position, offset = self._metadata(position, offset, _NUMBER.size)
        (links,) = _NUMBER.unpack(data)
        return Node(*head, links, more=(position, offset))

    def _long_pipe(self, head: _Head, position: int, offset: int) -> Node:
        node = self._pipe(head, position, offset)
        return node._replace(xattrs=self._xattr_index(*node.more))

    def _xattr_index(self, position: int, offset: int) -> int:
        (index,) = _NUMBER.unpack(self._metadata(position, offset, _NUMBER.size)[0])
        return int(index)

    def _id(self, index: int) -> int:
        known = self._ids.get(index)
        if known is None:
            if index >= self.superblock.id_count:
                raise FormatError("an inode names an owner that is not in the table")
            (known,) = self._entry(self.superblock.id_table, index, _NUMBER)
            self._ids[index] = known
        return known

    # -- directories ---------------------------------------------------------------------

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
        data, _, _ = self._metadata(position, offset, last - first)
        try:
            yield from _parse_listing(data)
        except struct.error as error:
            raise FormatError("a directory's list ends in the middle of a name") from error

    def _indexed(self, directory: Node, wanted: bytes) -> tuple[int, int, int]:
        """Return the part of the list that may hold a name: its bounds, and its block."""
        first, start = 0, directory.start
        position, offset = directory.more
        for _ in range(directory.detail):
            data, position, offset = self._metadata(position, offset, _INDEX.size)
            before, block, size = _INDEX.unpack(data)
            if size >= MAX_NAME:
                raise FormatError(f"a name of {size + 1} bytes")
            name, position, offset = self._metadata(position, offset, size + 1)
            if name > wanted:
                return first, before, start
            first, start = before, block
        return first, directory.listing, start

    # -- blocks --------------------------------------------------------------------------

    def _block_list(self, node: Node) -> Iterator[int]:
        """Yield the size words of a file's blocks."""
        whole, rest = divmod(node.size, self.superblock.block_size)
        count = whole + bool(rest and node.detail == NO_FRAGMENT)
        position, offset = node.more
        while count:
            step = min(count, _LIST_STEP)
            data, position, offset = self._metadata(position, offset, 4 * step)
            yield from struct.unpack(f"<{step}I", data)
            count -= step

    def _data_block(self, position: int, word: int, wanted: int) -> bytes:
        """Return one block of ``wanted`` bytes."""
        size = word & ~STORED_BLOCK
        if size > self.superblock.block_size:
            raise FormatError(f"a data block of {size} bytes", offset=self._offset + position)
        data = self._pread(position, size)
        if not word & STORED_BLOCK:
            data = self._unpack(data, wanted)
        if len(data) != wanted:
            raise FormatError(
                f"a data block holds {len(data)} bytes instead of {wanted}",
                offset=self._offset + position,
            )
        return data

    def _fragment(self, index: int) -> bytes:
        """Return a fragment block."""
        if index >= self.superblock.fragment_count:
            raise FormatError("a file names a fragment that is not in the table")
        kept = self._fragments.get(index)
        if kept is None:
            entry = self._entry(self.superblock.fragment_table, index, _FRAGMENT)
            position, word, _ = entry
            size = word & ~STORED_BLOCK
            if size > self.superblock.block_size:
                raise FormatError(f"a fragment of {size} bytes", offset=self._offset + position)
            kept = self._pread(position, size)
            if not word & STORED_BLOCK:
                kept = self._unpack(kept, self.superblock.block_size)
            self._fragments[index] = kept
            if len(self._fragments) > _KEPT_FRAGMENTS:
                self._fragments.popitem(last=False)
        else:
            self._fragments.move_to_end(index)
        return kept

    def _entry(self, table: int, index: int, form: struct.Struct) -> tuple[int, ...]:
        """Return an entry of a table whose blocks are found by a list at ``table``."""
        per_block = METADATA_BLOCK // form.size
        (position,) = _PLACE.unpack(self._pread(table + index // per_block * 8, 8))
        offset = index % per_block * form.size
        return form.unpack(self._metadata(position, offset, form.size)[0])

    def _metadata(self, position: int, offset: int, size: int) -> tuple[bytes, int, int]:
        """Return ``size`` bytes of metadata, and the block and offset that follow them."""
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
        head = self._pread(position, 2)
        (word,) = _BLOCK_HEAD.unpack(head)
        size = word & ~STORED_METADATA
        if not 1 <= size <= METADATA_BLOCK:
            raise FormatError(f"a metadata block of {size} bytes", offset=self._offset + position)
        data = self._pread(position + 2, size)
        if not word & STORED_METADATA:
            data = self._unpack(data, METADATA_BLOCK)
        if not data:
            raise FormatError("an empty metadata block", offset=self._offset + position)
        kept = self._blocks[position] = data, position + 2 + size
        if len(self._blocks) > _KEPT_METADATA:
            self._blocks.popitem(last=False)
        return kept

    def _pread(self, position: int, size: int) -> bytes:
        if position + size > self._size:
            raise FormatError("a place lies outside of the squashfs", offset=self._offset)
        data = os.pread(self._fd, size, self._offset + position)
        if len(data) != size:
            raise FormatError("the squashfs ends too early", offset=self._offset + position)
        return data


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
                raise FormatError(f"a directory has an entry called {one_line(repr(name))}")
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
