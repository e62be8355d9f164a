"""The compressors of squashfs 4.0: how each is named, asked for, called and recorded.

The kernel decides the details.  Its xz reader knows CRC-32 only and allocates a dictionary
as large as a block; its zstd reader a window as large as a block, which a frame that
records its content size never exceeds; lz4 must be announced with an options record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from backend.errors import UsageError
from backend.escape import quoted

Name = Literal["gzip", "xz", "lz4", "zstd"]
Buffer = bytes | bytearray | memoryview
Compressor = Callable[[Buffer], bytes]
"""Packs one block; belongs to one thread."""

IDS: dict[Name, int] = {"gzip": 1, "xz": 4, "lz4": 5, "zstd": 6}
"""Compressor numbers of the superblock; 2 is lzma and 3 is lzo, which we never write."""

_LEVELS: dict[Name, tuple[int, int, int]] = {
    "gzip": (1, 9, 6),
    "xz": (0, 9, 6),
    "lz4": (1, 12, 9),
    "zstd": (1, 22, 3),
}
"""Lowest, highest and default level."""

_MORE_FOR_SMALL = 3
"""Levels of zstd.  Measured on 1.1 GB of programs, libraries and documents: level 6 instead of
3 makes blocks of small files, a fifth of all bytes, 5 % smaller in two and a half times the
time; for the ends and the blocks of larger files, that brings half as much for each second."""
_SHORT_MATCH = 4
"""Bytes; zstd's middle levels look for 5.  4 make programs 0.8 % smaller for 10 % more work."""

_LZ4_HC = 1
_LZ4_FAST_LEVELS = 2
"""lz4's own numbering: below 3 is its fast mode, from 3 on its high compression."""


@dataclass(frozen=True, slots=True)
class Compression:
    """A compressor and its level.

    Attributes:
        name: As ``mksquashfs -comp`` takes it.
        level: In the compressor's own scale.
    """

    name: Name = "zstd"
    level: int = 3

    def __str__(self) -> str:
        return f"{self.name}:{self.level}"

    @property
    def id(self) -> int:
        """The compressor's number in the superblock."""
        return IDS[self.name]

    def options(self, block_size: int) -> bytes:
        """Return the record that follows the superblock; empty where readers need none."""
        match self.name:
            case "gzip":  # level, window bits, strategies
                return struct.pack("<IHH", self.level, 15, 0)
            case "xz":  # dictionary size, branch filters
                return struct.pack("<II", block_size, 0)
            case "lz4":  # format version, flags
                return struct.pack("<II", 1, _LZ4_HC if self.level > _LZ4_FAST_LEVELS else 0)
            case "zstd":
                return struct.pack("<I", self.level)

    def compressor(self, block_size: int, *, is_small: bool = False) -> Compressor:
        """Return a fresh compressor for blocks of at most ``block_size`` bytes.

        Args:
            block_size: Of the file system.
            is_small: For blocks of small files, where effort brings most.
        """
        match self.name:
            case "gzip":
                return _gzip(self.level)
            case "xz":
                return _xz(self.level, block_size)
            case "lz4":
                return _lz4(self.level)
            case "zstd":
                return _zstd(self.level + _MORE_FOR_SMALL * is_small, block_size)


def parse_compression(text: str) -> Compression:
    """Return the compression that ``zstd``, ``gzip:9`` or the like names.

    Raises:
        UsageError: No such compressor or level; the hint lists what there is.
    """
    name, colon, level = text.strip().lower().partition(":")
    for known, (low, high, default) in _LEVELS.items():
        if name != known:
            continue
        if not colon:
            return Compression(known, default)
        if level.isascii() and level.isdigit() and low <= int(level) <= high:
            return Compression(known, int(level))
        raise UsageError(
            f"{known} has no level {quoted(level, limit=20)}",
            hint=f"choose {known}:{low} to {known}:{high}",
        )
    raise UsageError(
        f"no compressor is called {quoted(name, limit=40)}",
        hint=f"choose one of {', '.join(_LEVELS)}, with a level if you like: zstd:3",
    )


def _gzip(level: int) -> Compressor:
    import zlib

    return lambda block: zlib.compress(block, level)


def _xz(level: int, block_size: int) -> Compressor:
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": block_size}]

    def pack(block: Buffer) -> bytes:
        return lzma.compress(block, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)

    return pack


def _lz4(level: int) -> Compressor:
    import lz4.block

    mode = "high_compression" if level > _LZ4_FAST_LEVELS else "default"

    def pack(block: Buffer) -> bytes:
        packed: bytes = lz4.block.compress(block, mode=mode, compression=level, store_size=False)
        return packed

    return pack


def _zstd(level: int, block_size: int) -> Compressor:
    from zstandard import MAX_COMPRESSION_LEVEL, ZstdCompressionParameters, ZstdCompressor

    level = min(level, MAX_COMPRESSION_LEVEL)
    params = ZstdCompressionParameters.from_level(level, source_size=block_size)
    if params.min_match == _SHORT_MATCH + 1:
        params = ZstdCompressionParameters.from_level(
            level, source_size=block_size, min_match=_SHORT_MATCH
        )
    return ZstdCompressor(compression_params=params).compress
