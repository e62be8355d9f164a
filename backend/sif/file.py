"""A SIF file, open for reading: its header, its descriptors, its objects by position."""

from __future__ import annotations

import os
import stat

from backend.errors import BackendError, FormatError, NotFoundError
from backend.escape import one_line
from backend.oci.digest import digest_of_range
from backend.sif.records import (
    DESCRIPTOR_SIZE,
    HEADER_SIZE,
    DataType,
    Descriptor,
    Header,
    parse_descriptor,
    parse_header,
)

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from backend.oci.digest import Digest

MAX_DESCRIPTORS = 8192
"""Slots of one table: an image has at most 1,024 layers, and few other objects."""
_CHUNK = 1 << 20


class SifFile:
    """A SIF file whose header and table have been read and checked; a context manager.

    Args:
        path: The file.

    Attributes:
        name: Its path, as text; a start of a container cannot afford pathlib.
        size: Bytes of the file.
        header: Its global header.
        descriptors: The slots in use, in the order of the table.

    Raises:
        NotFoundError: There is no such file.
        BackendError: It cannot be read.
        FormatError: It is no SIF file, or one cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._fd = open_regular(path)
        try:
            self.size = os.fstat(self._fd).st_size
            self.header = self._header()
            self._slots = self._table()
            self.descriptors = tuple(slot for slot in self._slots if slot)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """Its path, as given."""
        from pathlib import Path

        return Path(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        """Return the descriptor of the open file; read it by position only."""
        return self._fd

    def find(self, number: int) -> Descriptor:
        """Return the descriptor with the ID ``number``.

        Raises:
            NotFoundError: No object has it.
        """
        for descriptor in self.descriptors:
            if descriptor.id == number:
                return descriptor
        raise NotFoundError(
            f"{one_line(self.name)} has no object {number}",
            hint=f"sifdeck sif list {one_line(self.name)}",
        )

    def of_kind(self, kind: DataType) -> tuple[Descriptor, ...]:
        """Return the descriptors of one data type."""
        return tuple(one for one in self.descriptors if one.kind == kind)

    def read(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return an object of at most ``limit`` bytes.

        Raises:
            FormatError: It is larger, or cut short.
        """
        if descriptor.size > limit:
            raise FormatError(
                f"object {descriptor.id} has {descriptor.size} bytes; at most {limit} are read",
                offset=descriptor.offset,
            )
        return self._pread(descriptor.offset, descriptor.size)

    def chunks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield an object's bytes, 1 MiB at a time.

        Raises:
            FormatError: It is cut short.
        """
        offset = descriptor.offset
        while offset < descriptor.end:
            chunk = self._pread(offset, min(_CHUNK, descriptor.end - offset))
            offset += len(chunk)
            yield chunk

    def digest(self, descriptor: Descriptor) -> Digest:
        """Return the SHA-256 digest of an object's bytes."""
        return digest_of_range(self._fd, descriptor.offset, descriptor.size)

    def slots(self) -> list[Descriptor | None]:
        """Return the whole table; None where a slot is free."""
        return list(self._slots)

    def _header(self) -> Header:
        try:
            return parse_header(self._pread(0, min(self.size, HEADER_SIZE)))
        except FormatError as error:
            raise FormatError(f"{one_line(self.name)} is {error}") from error

    def _table(self) -> list[Descriptor | None]:
        header = self.header
        if not 0 <= header.total <= MAX_DESCRIPTORS:
            raise FormatError(
                f"the header counts {header.total} descriptors; at most {MAX_DESCRIPTORS} are read",
                offset=88,
            )
        size = header.total * DESCRIPTOR_SIZE
        if header.table_offset < HEADER_SIZE or header.table_offset + size > self.size:
            raise FormatError("the descriptor table lies outside of the file", offset=96)
        table = self._pread(header.table_offset, size)
        slots = (
            parse_descriptor(table[at : at + DESCRIPTOR_SIZE])
            for at in range(0, size, DESCRIPTOR_SIZE)
        )
        return [self._checked(slot) if slot else None for slot in slots]

    def _checked(self, descriptor: Descriptor) -> Descriptor:
        if descriptor.offset < 0 or descriptor.size < 0:
            raise FormatError(f"object {descriptor.id} has a negative place or size")
        if descriptor.end > self.size:
            raise FormatError(
                f"object {descriptor.id} ends at byte {descriptor.end}, but the file has only "
                f"{self.size} bytes",
                offset=descriptor.offset,
                hint="the file was cut short: fetch it again",
            )
        return descriptor

    def _pread(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            part = os.pread(self._fd, size, offset)
            if not part:
                raise FormatError("the file ends too early", offset=offset)
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)


def open_regular(path: str | Path) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises:
        NotFoundError: There is no such file.
        BackendError: It cannot be read.
        FormatError: It is a folder, a device or a pipe.
    """
    shown = one_line(str(path))
    try:
        # A pipe without a writer must not hold us up.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"there is no file {shown}") from error
    except (OSError, ValueError) as error:
        raise BackendError(
            f"cannot read {shown}", why=str(getattr(error, "strerror", error))
        ) from (error)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatError(f"{shown} is not a file")
    return fd
