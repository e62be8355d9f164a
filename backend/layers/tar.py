"""Tar streams, parsed from large buffers: ustar, PAX, GNU and their sparse files.

POSIX.1-2024 *pax*, and the GNU tar manual's appendix on formats.  Names, links and
xattrs are bytes from end to end: an image may hold any.  A stream is read once, forwards;
what a member holds is handed on as slices of the buffers.

Everything here is hostile.  Headers have a checksum, numbers a range, extended headers and
names a limit, and whatever does not fit is a ``FormatError`` that names layer and byte.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol
from zlib import adler32

from backend.errors import FormatError
from backend.escape import quoted
from backend.squashfs.inode import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from backend.squashfs.compression import Buffer
    from backend.squashfs.inode import Xattrs

BLOCK = 512
MAX_EXTENDED = 1 << 20
"""Bytes of one extended header; xattrs of a file are at most 64 KiB in Linux."""
MAX_PATH = 4096
"""Bytes of a path; Linux opens none that is longer."""
MAX_SPARSE_PARTS = 1 << 20
"""Pieces of data in one sparse file."""

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_ZERO = bytes(BLOCK)
_CHECKSUM_MODULUS = 65521
"""Adler-32's: its lower half is one plus the sum of the bytes, modulo this."""
_CHECKSUM_FIELD = slice(148, 156)

_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # contiguous
    b"S": Kind.FILE,  # GNU sparse, old format
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"D": Kind.DIRECTORY,  # GNU incremental: the data lists names
    b"6": Kind.FIFO,
}
_LINK = b"1"
_WITH_DATA = frozenset({b"0", b"\0", b"7", b"S", b"D"})
_EXTENDED = frozenset({b"x", b"X", b"g", b"L", b"K"})
_IGNORED = frozenset({b"V", b"N", b"M"})
"""Volume label, old long name, continuation: no files of their own."""

_XATTR = b"SCHILY.xattr."
_SPARSE = b"GNU.sparse."
_MAX_ID = 0xFFFFFFFF
_MAX_TIME = 0xFFFFFFFF
_MAX_SIZE = 1 << 62
_CACHE_ENTRIES = 4096
_MAX_DEVICE = (0xFFF, 0xFFFFF)


class Sink(Protocol):
    """Takes the bytes of a file in order."""

    def write(self, data: Buffer, /) -> object:
        """Append bytes."""

    def hole(self, size: int, /) -> object:
        """Append zeros that the archive does not hold."""


class Member:
    """One member of an archive.

    Attributes:
        path: Relative to the root, without ``.``, ``..`` or slashes at its ends; empty for
            the root itself.
        kind: None for a hard link.
        mode: Permission bits.
        mtime: Seconds since 1970, bounded to 32 bits.
        size: Of the file's bytes, holes included.
        link: A symbolic link's target as it stands, or a hard link's path as ``path``.
        device: Major and minor.
        xattrs: Sorted by name.
        parts: A sparse file's data as pairs of offset and length; None for other files.
        offset: Of its header, in bytes from the start of the archive.
    """

    __slots__ = (
        "device",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime",
        "offset",
        "parts",
        "path",
        "size",
        "uid",
        "xattrs",
    )

    path: bytes
    kind: Kind | None
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: bytes
    device: tuple[int, int]
    xattrs: Xattrs
    parts: list[tuple[int, int]] | None
    offset: int


class TarReader:
    """Reads the members of an archive one after the other.

    Args:
        chunks: The archive in pieces, all but the last a multiple of 512 bytes long.
        label: What errors call the archive.
    """

    def __init__(self, chunks: Iterable[bytes], *, label: str) -> None:
        self._chunks = iter(chunks)
        self._label = label
        self._chunk = b""
        self._at = 0
        self._base = 0
        self._left = 0  # bytes of the member, padding included, that nobody took yet
        self._offset = 0
        self._last_header = b""
        self._global: dict[bytes, bytes] = {}
        self._numbers: dict[bytes, int] = {}

    def __iter__(self) -> Iterator[Member]:
        """Yield the members; what was not copied of one is skipped.

        Raises:
            FormatError: The archive is cut short, or no archive at all.
        """
        local: dict[bytes, bytes] = {}
        while (block := self._next_header()) is not None:
            fields = _HEADER.unpack(block)
            self._last_header = block
            self._check_sum(block, fields[6])
            flag = fields[7]
            if flag in _EXTENDED:
                self._read_extended(flag, self._number(fields[4]), local)
            elif flag in _IGNORED:
                self._pass_over(self._number(fields[4]))
            else:
                yield self._member(fields, local)
                local = {}

    def copy(self, member: Member, sink: Sink) -> None:
        """Write the content of the member that was yielded last.

        Raises:
            FormatError: The archive ends within it.
        """
        if member.parts is None:
            self._copy(member.size, sink)
            return
        position = 0
        for offset, length in member.parts:
            if offset > position:
                sink.hole(offset - position)
            self._copy(length, sink)
            position = offset + length
        if member.size > position:
            sink.hole(member.size - position)

    def fail(self, message: str, *, offset: int | None = None) -> FormatError:
        """Return an error that names archive and byte."""
        place = self._offset if offset is None else offset
        return FormatError(f"{self._label}: {message}", offset=place)

    # The stream.

    def _fill(self) -> bool:
        """Go on to the next chunk; False at the end."""
        self._base += len(self._chunk)
        self._at = 0
        self._chunk = next(self._chunks, b"")
        return bool(self._chunk)

    def _block(self) -> bytes | None:
        """Return the next 512 bytes; None at the end of the stream."""
        if self._at == len(self._chunk) and not self._fill():
            return None
        block = self._chunk[self._at : self._at + BLOCK]
        if len(block) < BLOCK:
            raise self.fail("the archive ends within a header", offset=self._base + self._at)
        self._at += BLOCK
        return block

    def _next_header(self) -> bytes | None:
        """Return the next header block; None at the archive's end."""
        if self._left:
            self._skip(self._left)
        self._offset = self._base + self._at
        block = self._block()
        if block != _ZERO:
            return block
        if (second := self._block()) is not None and second != _ZERO:
            raise self.fail("a block of zeros is followed by something else")
        return None

    def _skip(self, size: int) -> None:
        while size:
            taken = min(size, len(self._chunk) - self._at)
            self._at += taken
            size -= taken
            if size and not self._fill():
                raise self.fail("the archive ends within this member")
        self._left = 0

    def _copy(self, size: int, sink: Sink) -> None:
        self._left -= size
        while size:
            taken = min(size, len(self._chunk) - self._at)
            if taken:
                sink.write(memoryview(self._chunk)[self._at : self._at + taken])
            self._at += taken
            size -= taken
            if size and not self._fill():
                raise self.fail("the archive ends within this member")

    def _expect(self, size: int) -> None:
        """Note that ``size`` bytes of content follow, padded to whole blocks."""
        self._left = size + -size % BLOCK

    def _pass_over(self, size: int) -> None:
        self._expect(self._sized(size))

    def _take(self, size: int) -> bytes:
        """Return the whole content of a header's continuation."""
        if size > MAX_EXTENDED:
            raise self.fail(f"an extended header has {size} bytes; at most {MAX_EXTENDED} are read")
        self._expect(size)
        parts = _Parts()
        self._copy(size, parts)
        self._skip(self._left)
        return b"".join(parts.parts)

    # Headers.

    def _check_sum(self, block: bytes, field: bytes) -> None:
        wanted = self._number(field)
        found = (adler32(block) & 0xFFFF) - 1 - sum(field) + 8 * 0x20
        if (found - wanted) % _CHECKSUM_MODULUS == 0:
            return
        # Some old programs added the bytes up as signed ones.
        rest = block[:148] + block[156:]
        if (found - 256 * sum(byte > 127 for byte in rest) - wanted) % _CHECKSUM_MODULUS:
            raise self.fail("a header's checksum is wrong: no tar archive, or a damaged one")

    def _number(self, field: bytes) -> int:
        """Return a numeric field: octal digits, or GNU's base 256."""
        value = self._numbers.get(field)
        if value is None:
            value = self._parse_number(field)
            if len(self._numbers) >= _CACHE_ENTRIES:
                self._numbers.clear()
            self._numbers[field] = value
        return value

    def _parse_number(self, field: bytes) -> int:
        if field[0] & 0x80:
            value = int.from_bytes(field, "big", signed=True)
            return value if field[0] == 0xFF else value & ((1 << (8 * len(field) - 1)) - 1)
        text = field.partition(b"\0")[0].strip(b" ")
        if not text:
            return 0
        try:
            return int(text, 8) if text.isdigit() else int("x")
        except ValueError:
            raise self.fail(f"{_shown(field)} is no octal number") from None

    def _decimal(self, text: bytes, what: str) -> int:
        if not text.isdigit() or len(text) > 19:
            raise self.fail(f"{_shown(text)} is no number for {what}")
        return int(text)

    def _sized(self, size: int) -> int:
        if not 0 <= size <= _MAX_SIZE:
            raise self.fail(f"a size of {size} bytes")
        return size

    def _read_extended(self, flag: bytes, size: int, local: dict[bytes, bytes]) -> None:
        """Read a header that describes the next member (``g``: all that follow)."""
        data = self._take(self._sized(size))
        if flag in {b"L", b"K"}:
            local.setdefault(b"path" if flag == b"L" else b"linkpath", data.partition(b"\0")[0])
            return
        target = self._global if flag == b"g" else local
        for key, value in self._records(data):
            if key in {_SPARSE + b"offset", _SPARSE + b"numbytes"}:
                # Format 0.0 repeats the two; 0.1 has the same numbers in one list.
                old = target.get(_SPARSE + b"map")
                target[_SPARSE + b"map"] = value if old is None else old + b"," + value
            else:
                target[key] = value
        if sum(map(len, target)) + sum(map(len, target.values())) > 4 * MAX_EXTENDED:
            raise self.fail("extended headers pile up without end")

    def _records(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys and values of a PAX header: ``length key=value`` and a newline each."""
        start = 0
        while start < len(data):
            space = data.find(b" ", start, start + 12)
            length = self._decimal(data[start:space] if space > 0 else b"", "a PAX record")
            end = start + length
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if not space < end - 1 < len(data) or not (key and equals) or data[end - 1] != 0x0A:
                raise self.fail("a PAX record does not have the length that it claims")
            yield key, value
            start = end

    def _member(self, fields: tuple[bytes, ...], local: dict[bytes, bytes]) -> Member:
        """Return the member of a header and of the extended headers before it."""
        flag = fields[7]
        member = Member()
        member.offset = self._offset
        try:
            member.kind = None if flag == _LINK else _KINDS[flag]
        except KeyError:
            raise self.fail(f"a member of unknown type {_shown(flag)}") from None
        name = fields[0].partition(b"\0")[0]
        if fields[9][:6] == b"ustar\0" and fields[14][0]:
            name = fields[14].partition(b"\0")[0] + b"/" + name
        member.link = fields[8].partition(b"\0")[0]
        member.mode = self._number(fields[1]) & 0o7777
        member.uid, member.gid = self._number(fields[2]), self._number(fields[3])
        member.mtime = self._number(fields[5])
        member.xattrs, member.parts = (), None
        size = self._number(fields[4])
        if local or self._global:
            extended = {**self._global, **local} if self._global else local
            name, size = self._extend(member, name, size, extended)
        else:
            extended = local
        if not 0 <= member.uid <= _MAX_ID or not 0 <= member.gid <= _MAX_ID:
            raise self.fail(f"owner {member.uid}:{member.gid} is out of range")
        member.mtime = min(max(member.mtime, 0), _MAX_TIME)
        if flag == b"\0" and name.endswith(b"/"):
            member.kind = Kind.DIRECTORY
        member.path = self._clean(name)
        self._finish(member, flag, fields)
        self._content(member, flag, size, extended)
        return member

    def _finish(self, member: Member, flag: bytes, fields: tuple[bytes, ...]) -> None:
        """Check what only some kinds have."""
        if flag == _LINK:
            member.link = self._clean(member.link)
        elif flag == b"2":
            if not member.link or len(member.link) >= MAX_PATH or b"\0" in member.link:
                raise self.fail(f"a symbolic link to {_shown(member.link)}")
        elif flag in {b"3", b"4"}:
            member.device = self._number(fields[12]), self._number(fields[13])
            major, minor = member.device
            if not (0 <= major <= _MAX_DEVICE[0] and 0 <= minor <= _MAX_DEVICE[1]):
                raise self.fail(f"a device with the numbers {major}, {minor}")

    def _extend(
        self, member: Member, name: bytes, size: int, extended: dict[bytes, bytes]
    ) -> tuple[bytes, int]:
        """Let PAX records replace what the header says; return name and size."""
        name = extended.get(_SPARSE + b"name") or extended.get(b"path") or name
        member.link = extended.get(b"linkpath") or member.link
        if text := extended.get(b"size"):
            size = self._decimal(text, "a size")
        if text := extended.get(b"uid"):
            member.uid = self._decimal(text, "an owner")
        if text := extended.get(b"gid"):
            member.gid = self._decimal(text, "a group")
        if text := extended.get(b"mtime"):
            member.mtime = self._seconds(text)
        found = [(k[len(_XATTR) :], v) for k, v in extended.items() if k.startswith(_XATTR)]
        if found:
            member.xattrs = tuple(sorted(found))
        return name, size

    def _seconds(self, text: bytes) -> int:
        """Return the whole seconds of a PAX time, such as ``1700000000.25``."""
        whole = text.partition(b".")[0]
        if whole.startswith(b"-"):
            return 0
        return self._decimal(whole or b"0", "a time")

    def _clean(self, path: bytes) -> bytes:
        """Return a path relative to the root, without ``.`` and ``..``.

        Raises:
            FormatError: It climbs out, or no file system holds such a name.
        """
        parts = path.split(b"/")
        if b"" in parts or b"." in parts or b".." in parts:
            parts = self._resolve(path, parts)
        if len(path) > 255 and (len(path) > MAX_PATH or max(map(len, parts), default=0) > 255):
            raise self.fail(f"the name {_shown(path)} is too long")
        if b"\0" in path:
            raise self.fail(f"the name {_shown(path)} holds a zero byte")
        return b"/".join(parts)

    def _resolve(self, path: bytes, parts: list[bytes]) -> list[bytes]:
        if not path:
            raise self.fail("a member without a name")
        kept: list[bytes] = []
        for part in parts:
            if part == b"..":
                if not kept:
                    raise self.fail(f"the name {_shown(path)} climbs out of the image")
                kept.pop()
            elif part not in {b"", b"."}:
                kept.append(part)
        return kept

    # Sparse files.

    def _content(
        self, member: Member, flag: bytes, size: int, extended: dict[bytes, bytes]
    ) -> None:
        """Find out how many bytes follow, and which of a sparse file's they are."""
        member.size = size = self._sized(size) if flag in _WITH_DATA else 0
        self._expect(size)
        if flag == b"D":
            member.size = 0
        elif flag == b"S":
            self._old_sparse(member)
        elif size and extended.get(_SPARSE + b"major") == b"1":
            self._listed_sparse(member, extended)
        elif _SPARSE + b"map" in extended:
            self._mapped_sparse(member, extended)

    def _old_sparse(self, member: Member) -> None:
        """Read the map in a GNU header, and in the blocks that follow it (format 0)."""
        stored = member.size
        block = self._last_header
        table, more = block[386:482], block[482]
        member.size = self._number(block[483:495])
        pairs: list[tuple[int, int]] = []
        while True:
            for start in range(0, len(table), 24):
                offset, length = table[start : start + 12], table[start + 12 : start + 24]
                if offset[0] or length[0]:
                    pairs.append((self._number(offset), self._number(length)))
            if not more:
                break
            extension = self._block()
            if extension is None:
                raise self.fail("the archive ends within a sparse file's map")
            table, more = extension[:504], extension[504]
            if len(pairs) > MAX_SPARSE_PARTS:
                raise self.fail("a sparse file of too many pieces")
        self._set_parts(member, pairs, stored)

    def _mapped_sparse(self, member: Member, extended: dict[bytes, bytes]) -> None:
        """Read the map in PAX records (formats 0.0 and 0.1)."""
        numbers = [
            self._decimal(text, "a sparse file's map")
            for text in extended[_SPARSE + b"map"].split(b",")
        ]
        stored = member.size
        member.size = self._decimal(extended.get(_SPARSE + b"size", b""), "a sparse file's size")
        if len(numbers) % 2:
            raise self.fail("a sparse file's map has an odd length")
        self._set_parts(member, list(zip(numbers[::2], numbers[1::2], strict=True)), stored)

    def _listed_sparse(self, member: Member, extended: dict[bytes, bytes]) -> None:
        """Read the map before the data: decimal lines, padded to a block (format 1.0)."""
        stored = member.size
        real = extended.get(_SPARSE + b"realsize", b"")
        member.size = self._decimal(real, "a sparse file's size")
        blocks: list[bytes] = []
        ends, needed = 0, 1
        while ends < needed:
            block = self._block() if (len(blocks) + 1) * BLOCK <= stored else None
            if block is None:
                raise self.fail("a sparse file's map does not end")
            self._left -= BLOCK
            blocks.append(block)
            ends += block.count(b"\n")
            if ends and needed == 1:
                needed += 2 * self._part_count(b"".join(blocks))
        lines = b"".join(blocks).split(b"\n", needed)[1:needed]
        numbers = [self._decimal(line, "a sparse file's map") for line in lines]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        self._set_parts(member, pairs, stored - len(blocks) * BLOCK)

    def _part_count(self, listed: bytes) -> int:
        count = self._decimal(listed.partition(b"\n")[0], "a sparse file's map")
        if count > MAX_SPARSE_PARTS:
            raise self.fail("a sparse file of too many pieces")
        return count

    def _set_parts(self, member: Member, pairs: list[tuple[int, int]], stored: int) -> None:
        """Check that a map is in order, within the file, and of what the archive holds."""
        position = total = 0
        for offset, length in pairs:
            if offset < position:
                raise self.fail("a sparse file's map goes backwards")
            position = offset + length
            total += length
        if position > self._sized(member.size):
            raise self.fail("a sparse file's map goes beyond the file")
        if total != stored:
            raise self.fail(f"a sparse file's map speaks of {total} bytes; {stored} are there")
        member.parts = [pair for pair in pairs if pair[1]]


class _Parts:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: Buffer) -> None:
        self.parts.append(bytes(data))

    def hole(self, size: int) -> None:
        self.parts.append(bytes(size))


def _shown(name: bytes) -> str:
    return quoted(name.decode("utf-8", "surrogateescape"), limit=80)
