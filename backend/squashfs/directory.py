"""Directory listings: sorted names in runs, and an index for those that are long."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from backend.squashfs.inode import Inode
    from backend.squashfs.metadata import MetadataStream

_RUN = struct.Struct("<III")
_ENTRY = struct.Struct("<HhHH")
_INDEX = struct.Struct("<III")
_MOST_IN_RUN = 256
_MOST_DISTANCE = 0x7FFF
"""Between inode numbers of one run."""


class Listing(NamedTuple):
    """Where a directory's listing was written.

    Attributes:
        position: Of its first run in the directory table; a metadata reference.
        size: Its bytes, without the three that the inode adds.
        marks: Packed index entries, one for each metadata block in which a run starts.
        marked: How many they are.
    """

    position: int
    size: int
    marks: bytes
    marked: int


def write_listing(
    stream: MetadataStream, entries: dict[bytes, Inode], references: array[int]
) -> Listing:
    """Write the listing of a directory.

    Args:
        stream: The directory table.
        entries: Inodes by name, sorted; their numbers are given and they are written already.
        references: Metadata reference of each inode, by number.
    """
    position = stream.position()
    size, marked = 0, 0
    marks = bytearray()
    block = position >> 16
    for run in _runs(entries, references):
        here = stream.position() >> 16
        if here != block:
            block = here
            marked += 1
            first = run[0][0]
            marks += _INDEX.pack(size, here, len(first) - 1) + first
        packed = _pack_run(run, references)
        stream.write(packed)
        size += len(packed)
    return Listing(position, size, bytes(marks), marked)


def _runs(
    entries: dict[bytes, Inode], references: array[int]
) -> Iterator[list[tuple[bytes, Inode]]]:
    """Yield names in order, in runs of inodes that one head can describe."""
    run: list[tuple[bytes, Inode]] = []
    block = base = 0
    for name, inode in entries.items():
        number = inode.number
        here = references[number] >> 16
        if run and (
            here != block or len(run) == _MOST_IN_RUN or abs(number - base) > _MOST_DISTANCE
        ):
            yield run
            run = []
        if not run:
            block, base = here, number
        run.append((name, inode))
    if run:
        yield run


def _pack_run(run: list[tuple[bytes, Inode]], references: array[int]) -> bytes:
    base = run[0][1].number
    out = bytearray(_RUN.pack(len(run) - 1, references[base] >> 16, base))
    for name, inode in run:
        number = inode.number
        out += _ENTRY.pack(references[number] & 0xFFFF, number - base, inode.kind, len(name) - 1)
        out += name
    return bytes(out)
