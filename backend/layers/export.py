"""A squashfs back into a tar archive, the form in which registries and Docker hold a layer.

The archive is POSIX *pax*: a plain header where that can say everything, an extended one for
long names, large numbers and xattrs.  A file with holes is written in GNU's sparse format
1.0, which GNU tar, Go's tar (Docker, podman) and libarchive read.  Overlayfs's whiteouts
become those of the OCI image specification again.  The order, and so every byte, is that of
the file system.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Protocol

from backend.layers.tar import BLOCK
from backend.squashfs.inode import Kind, split_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.squashfs.reader import Node

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_FLAGS = {
    Kind.FILE: b"0",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER_DEVICE: b"3",
    Kind.BLOCK_DEVICE: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
"""A socket has none: no archive can hold one, and none can be made from an image."""
_MAX_NAME = 100
_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777
_OPAQUE = frozenset({b"trusted.overlay.opaque", b"user.overlay.opaque"})
_WHITEOUT = b".wh."
_OPAQUE_NAME = b".wh..wh..opq"
_HIDDEN_MODE = 0o600


class Files(Protocol):
    """What an archive is made of: a :class:`~backend.squashfs.reader.SquashfsReader`, say."""

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Yield every path and what it stands for; directories first."""

    def read(self, node: Node) -> Iterator[bytes]:
        """Yield the bytes of a file."""

    def data_parts(self, node: Node) -> list[tuple[int, int]]:
        """Return offset and length of what a file stores; the rest is zeros."""

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""

    def xattrs(self, node: Node) -> tuple[tuple[bytes, bytes], ...]:
        """Return full names and values."""


def tar_chunks(reader: Files, *, is_layer: bool = True) -> Iterator[bytes]:
    """Yield the archive of a file system in pieces.

    Args:
        reader: The file system.
        is_layer: It is laid on others, so a character device 0:0 is a whiteout.

    Raises:
        FormatError: The file system is damaged.
    """
    exporter = _Exporter(reader, is_layer=is_layer)
    for path, node in reader.walk():
        yield from exporter.member(path, node)
    yield bytes(2 * BLOCK)


class GeneratedFile(io.RawIOBase):
    """A file whose bytes an iterator yields: read once, from its start to its end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._position = 0

    def readable(self) -> bool:  # noqa: D102
        return True

    def tell(self) -> int:  # noqa: D102
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # noqa: D102
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        self._position += size
        return size


class _Exporter:
    """Turns inodes into members, and knows which of them were there before."""

    def __init__(self, reader: Files, *, is_layer: bool) -> None:
        self._reader = reader
        self._is_layer = is_layer
        self._first_names: dict[int, bytes] = {}

    def member(self, path: bytes, node: Node) -> Iterator[bytes]:
        """Yield the member of one name, if it has one."""
        if self._is_layer and node.kind is Kind.CHARACTER_DEVICE and not node.device:
            head, slash, name = path.rpartition(b"/")
            yield _header(head + slash + _WHITEOUT + name, b"0", mode=_HIDDEN_MODE)
        elif node.links > 1 and node.kind is not Kind.DIRECTORY and self._is_known(path, node):
            first = self._first_names[node.number]
            yield from _described(node, path, b"1", link=first)
        elif node.kind in _FLAGS:
            yield from self._whole(path, node)

    def _is_known(self, path: bytes, node: Node) -> bool:
        return self._first_names.setdefault(node.number, path) != path

    def _whole(self, path: bytes, node: Node) -> Iterator[bytes]:
        xattrs = self._reader.xattrs(node)
        kept = {name: value for name, value in xattrs if name not in _OPAQUE}
        if node.kind is Kind.FILE:
            yield from self._file(path, node, kept)
            return
        if node.kind is Kind.DIRECTORY:
            yield from _described(node, path + b"/" if path else b"./", b"5", xattrs=kept)
            if self._is_layer and len(kept) < len(xattrs):
                inside = path + b"/" if path else b""
                yield _header(inside + _OPAQUE_NAME, b"0", mode=_HIDDEN_MODE)
            return
        link = self._reader.readlink(node) if node.kind is Kind.SYMLINK else b""
        yield from _described(node, path, _FLAGS[node.kind], link=link, xattrs=kept)

    def _file(self, path: bytes, node: Node, xattrs: dict[bytes, bytes]) -> Iterator[bytes]:
        parts = self._reader.data_parts(node)
        stored = sum(length for _, length in parts)
        if stored == node.size:
            yield from _described(node, path, b"0", size=stored, xattrs=xattrs)
            yield from self._reader.read(node)
            yield bytes(-stored % BLOCK)
            return
        listed = b"%d\n" % len(parts) + b"".join(b"%d\n%d\n" % part for part in parts)
        listed += bytes(-len(listed) % BLOCK)
        records = {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": path,
            b"GNU.sparse.realsize": b"%d" % node.size,
        }
        size = len(listed) + stored
        yield from _described(node, path, b"0", size=size, xattrs=xattrs, records=records)
        yield listed
        yield from self._parts(node, parts)
        yield bytes(-stored % BLOCK)

    def _parts(self, node: Node, parts: list[tuple[int, int]]) -> Iterator[bytes]:
        """Yield a file's bytes without its holes, which are whole blocks."""
        waiting = iter(parts)
        offset, length = next(waiting, (node.size, 0))
        position = 0
        for data in self._reader.read(node):
            if position >= offset + length:
                offset, length = next(waiting, (node.size, 0))
            if position >= offset:
                yield data
            position += len(data)


def _described(  # noqa: PLR0913  (the parts of a member)
    node: Node,
    name: bytes,
    flag: bytes,
    *,
    size: int = 0,
    link: bytes = b"",
    xattrs: dict[bytes, bytes] | None = None,
    records: dict[bytes, bytes] | None = None,
) -> Iterator[bytes]:
    """Yield a member's header, after an extended one where that is needed."""
    extended = dict(records or {})
    if len(name) > _MAX_NAME and b"GNU.sparse.name" not in extended:
        extended[b"path"] = name
    if len(link) > _MAX_NAME:
        extended[b"linkpath"] = link
    for key, value, most in (
        (b"size", size, _MAX_OCTAL_11),
        (b"uid", node.uid, _MAX_OCTAL_7),
        (b"gid", node.gid, _MAX_OCTAL_7),
    ):
        if value > most:
            extended[key] = b"%d" % value
    for key, data in (xattrs or {}).items():
        extended[b"SCHILY.xattr." + key] = data
    if extended:
        data = b"".join(_record(key, value) for key, value in extended.items())
        yield _header(b"PaxHeaders/" + name[-80:].lstrip(b"/"), b"x", size=len(data))
        yield data + bytes(-len(data) % BLOCK)
    yield _header(
        name,
        flag,
        size=size,
        link=link,
        mode=node.mode,
        owner=(node.uid, node.gid),
        mtime=node.mtime,
        device=split_device(node.device),
    )


def _header(  # noqa: PLR0913  (the fields of a header)
    name: bytes,
    flag: bytes,
    *,
    size: int = 0,
    link: bytes = b"",
    mode: int = 0o644,
    owner: tuple[int, int] = (0, 0),
    mtime: int = 0,
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """Return a ustar header; what is too large for it is 0 or cut here."""
    uid, gid = (value if value <= _MAX_OCTAL_7 else 0 for value in owner)
    fields = (
        name[:_MAX_NAME],
        b"%07o" % mode,
        b"%07o" % uid,
        b"%07o" % gid,
        b"%011o" % (size if size <= _MAX_OCTAL_11 else 0),
        b"%011o" % mtime,
        b" " * 8,
        flag,
        link[:_MAX_NAME],
        b"ustar\x0000",
        b"",
        b"",
        b"%07o" % device[0],
        b"%07o" % device[1],
        b"",
    )
    block = _HEADER.pack(*fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """Return a PAX record, whose length counts its own digits."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(b"%d" % length):
        length = len(body) + len(b"%d" % length)
    return b"%d" % length + body
