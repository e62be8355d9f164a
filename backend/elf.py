"""What an ELF program says of the libraries it loads; nothing is run to find out.

System V ABI, chapters 4 and 5 ("Object Files", "Program Loading and Dynamic Linking"): the
program headers lead to the dynamic section, that to the string table.  Section headers are
not looked at; a stripped program has none.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 15, 29
_MAX_HEADERS = 512
_MAX_ENTRIES = 4096
_MAX_NAME = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """The parts of a program or library that its loader looks at.

    Attributes:
        kind: Class, byte order and machine; what is loaded together has the same.
        interpreter: Path of the dynamic loader; empty in libraries and static programs.
        needed: Names of libraries (``libc.so.6``), in order.
        run_path: Folders to look in first; may hold ``$ORIGIN``.
    """

    kind: tuple[int, int, int]
    interpreter: str
    needed: tuple[str, ...]
    run_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Segment:
    """One program header."""

    kind: int
    offset: int
    address: int
    size: int


def is_elf(data: bytes) -> bool:
    """Tell whether ``data`` begins as an ELF file does."""
    return data[:4] == b"\x7fELF"


def read_elf(data: bytes) -> Elf:
    """Read the dynamic section of a whole ELF file.

    Raises:
        FormatError: It is no ELF file, or one that lies about its sizes.
    """
    try:
        return _read(data)
    except (struct.error, IndexError) as error:
        raise FormatError("an ELF file ends before its headers say") from error


def _read(data: bytes) -> Elf:
    if not is_elf(data) or data[4] not in {1, 2} or data[5] not in {1, 2}:
        raise FormatError("not an ELF file", offset=0)
    order = "<" if data[5] == 1 else ">"
    segments = list(_segments(data, order))
    entries = list(_dynamic(data, order, segments))
    strings = next((value for tag, value in entries if tag == _DT_STRTAB), None)
    table = 0 if strings is None else _file_offset(segments, strings)
    texts = {
        tag: tuple(_text(data, table + value) for found, value in entries if found == tag)
        for tag in (_DT_NEEDED, _DT_RPATH, _DT_RUNPATH)
    }
    # RUNPATH makes the loader ignore RPATH.
    paths = texts[_DT_RUNPATH] or texts[_DT_RPATH]
    interpreter = next((one.offset for one in segments if one.kind == _PT_INTERP), None)
    return Elf(
        kind=(data[4], data[5], struct.unpack_from(f"{order}H", data, 18)[0]),
        interpreter="" if interpreter is None else _text(data, interpreter),
        needed=texts[_DT_NEEDED],
        run_path=tuple(part for text in paths for part in text.split(":") if part),
    )


def _segments(data: bytes, order: str) -> Iterator[_Segment]:
    wide = data[4] == 2
    (start,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", data, 32 if wide else 28)
    size, count = struct.unpack_from(f"{order}HH", data, 54 if wide else 42)
    if count > _MAX_HEADERS:
        raise FormatError(f"an ELF file with {count} program headers")
    for position in range(start, start + count * size, size or 1):
        if wide:
            kind, _, offset, address, _, length = struct.unpack_from(
                f"{order}IIQQQQ", data, position
            )
        else:
            kind, offset, address, _, length = struct.unpack_from(f"{order}IIIII", data, position)
        yield _Segment(kind, offset, address, length)


def _dynamic(data: bytes, order: str, segments: list[_Segment]) -> Iterator[tuple[int, int]]:
    found = next((one for one in segments if one.kind == _PT_DYNAMIC), None)
    if found is None:
        return
    form = struct.Struct(f"{order}{'qQ' if data[4] == 2 else 'iI'}")
    for number in range(min(found.size // form.size, _MAX_ENTRIES)):
        tag, value = form.unpack_from(data, found.offset + number * form.size)
        if tag == _DT_NULL:
            return
        yield tag, value


def _file_offset(segments: list[_Segment], address: int) -> int:
    """Return where in the file the byte is that the loader puts at ``address``."""
    for one in segments:
        if one.kind == _PT_LOAD and one.address <= address < one.address + one.size:
            return one.offset + address - one.address
    raise FormatError("an ELF file whose string table is in no segment")


def _text(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset, offset + _MAX_NAME)
    if offset >= len(data) or end < 0:
        raise FormatError("an ELF file with a name that does not end", offset=offset)
    return data[offset:end].decode("utf-8", "surrogateescape")
