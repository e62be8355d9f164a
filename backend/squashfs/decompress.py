"""Unpacking single blocks, bounded: a few bytes may claim to be gigabytes."""

from __future__ import annotations

from collections.abc import Callable

from backend.errors import FormatError

Unpack = Callable[[bytes, int], bytes]
"""Unpacks a block that gives at most so many bytes; raises FormatError for anything else."""

_MEMORY = 64 << 20
"""What an xz or lzma decoder may allocate; a dictionary of 1 MiB, the largest block, needs 2."""


def unpacker(number: int) -> Unpack:
    """Return the function that unpacks blocks of a superblock's compressor ``number``.

    Raises:
        FormatError: No compressor has that number.
    """
    makers = {1: _gzip, 2: _lzma, 3: _lzo, 4: _xz, 5: _lz4, 6: _zstd}
    maker = makers.get(number)
    if maker is None:
        raise FormatError(f"squashfs compressed with an unknown method, number {number}")
    return maker()


def _gzip() -> Unpack:
    from isal import igzip_lib, isal_zlib

    # The stub types the class as an instance of it.
    damage: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]

    def unpack(data: bytes, limit: int) -> bytes:
        stream = isal_zlib.decompressobj()
        try:
            out: bytes = stream.decompress(data, limit + 1)
        except damage as error:
            raise _damaged() from error
        return _bounded(out, limit, complete=stream.eof)

    return unpack


def _lzma() -> Unpack:
    import lzma

    return _with_liblzma(lzma.FORMAT_ALONE)


def _xz() -> Unpack:
    import lzma

    return _with_liblzma(lzma.FORMAT_XZ)


def _with_liblzma(form: int) -> Unpack:
    import lzma

    def unpack(data: bytes, limit: int) -> bytes:
        stream = lzma.LZMADecompressor(form, memlimit=_MEMORY)
        try:
            out = stream.decompress(data, limit + 1)
        except lzma.LZMAError as error:
            raise _damaged() from error
        # An lzma stream of known length may end without saying so.
        return _bounded(out, limit, complete=stream.eof or form == lzma.FORMAT_ALONE)

    return unpack


def _lz4() -> Unpack:
    import lz4.block

    def unpack(data: bytes, limit: int) -> bytes:
        try:
            out: bytes = lz4.block.decompress(data, uncompressed_size=limit)
        except (lz4.block.LZ4BlockError, ValueError) as error:
            raise _damaged() from error
        return out

    return unpack


def _zstd() -> Unpack:
    import zstandard

    stream = zstandard.ZstdDecompressor()

    def unpack(data: bytes, limit: int) -> bytes:
        try:
            # The frame's own word on its size is what would be allocated.
            if zstandard.frame_content_size(data) > limit:
                raise _damaged()
            return stream.decompress(data, max_output_size=limit)
        except zstandard.ZstdError as error:
            raise _damaged() from error

    return unpack


def _lzo() -> Unpack:
    from backend.squashfs.lzo import unpack_lzo

    return unpack_lzo


def _bounded(out: bytes, limit: int, *, complete: bool) -> bytes:
    if len(out) > limit or not complete:
        raise _damaged()
    return out


def _damaged() -> FormatError:
    return FormatError("a compressed block of the squashfs is damaged")
