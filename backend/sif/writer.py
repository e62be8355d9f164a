"""A new SIF file, written object by object; it appears whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Self

from backend.copying import write_at
from backend.sif.records import (
    DESCRIPTOR_SIZE,
    NIL_UUID,
    TABLE_OFFSET,
    ZERO_TIME,
    Descriptor,
    Header,
)
from backend.staging import StagedFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from backend.sif.records import DataType


class LayerFile(io.BufferedRandom):
    """What a file system is written to: the output file, positioned where it starts.

    Attributes:
        start: Byte of the file at which it starts.
        size: Its bytes, once it is complete.
    """

    start: int = 0
    size: int = 0


class SifWriter:
    """Writes a SIF file; a context manager that leaves nothing behind without :meth:`commit`.

    Args:
        target: The file to write.
        capacity: Slots of the descriptor table.
        overwrite: Whether a file that is there may be replaced.
        time: Of all objects, in seconds since 1970.

    Attributes:
        end: The byte after the last object.

    Raises:
        ExistsError: The target is there already.
        NotFoundError: Its folder is not.
        SpaceError: The disk is full.
    """

    def __init__(
        self, target: Path, *, capacity: int, overwrite: bool = False, time: int = ZERO_TIME
    ) -> None:
        self._staged = StagedFile(target, overwrite=overwrite)
        self._capacity = capacity
        self._time = time
        self._descriptors: list[Descriptor] = []
        self._data_offset = TABLE_OFFSET + capacity * DESCRIPTOR_SIZE
        self.end = self._data_offset

    def __enter__(self) -> Self:
        self._staged.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._staged.__exit__(kind, error, trace)

    @property
    def fd(self) -> int:
        """Descriptor of the file, open for reading and writing."""
        return self._staged.fd

    @contextlib.contextmanager
    def open_object(self, alignment: int) -> Iterator[LayerFile]:
        """Give the file to write the bytes of the next object to; :meth:`add` then names them.

        They are what stands from the file's position at the start to its end when the block
        is left; positions in between may be written in any order.
        """
        start = -(-self.end // alignment) * alignment
        raw = io.FileIO(self.fd, "r+b", closefd=False)
        with LayerFile(raw, buffer_size=1 << 20) as out:
            out.start = out.seek(start)
            yield out
            out.flush()
            out.size = os.fstat(self.fd).st_size - start

    def add(
        self, kind: DataType, start: int, size: int, *, name: bytes = b"", extra: bytes = b""
    ) -> None:
        """Describe an object whose bytes are in the file."""
        self._descriptors.append(
            Descriptor(
                kind=kind,
                id=len(self._descriptors) + 1,
                offset=start,
                size=size,
                padded_size=start - self.end + size,
                created=self._time,
                modified=self._time,
                name=name,
                extra=extra,
            )
        )
        self.end = start + size

    def append(self, kind: DataType, data: bytes, *, name: bytes = b"", extra: bytes = b"") -> None:
        """Write an object and describe it."""
        write_at(self.fd, data, self.end)
        self.add(kind, self.end, len(data), name=name, extra=extra)

    def forget_tail(self) -> None:
        """Take back what was written behind the last object that is described."""
        os.ftruncate(self.fd, self.end)

    def commit(
        self, *, launch: bytes = b"", architecture: str = "unknown", uuid: bytes = NIL_UUID
    ) -> None:
        """Write table and header, put the file on the disk and give it its name."""
        header = Header(
            launch=launch,
            architecture=architecture,
            uuid=uuid,
            created=self._time,
            modified=self._time,
            free=self._capacity - len(self._descriptors),
            total=self._capacity,
            table_offset=TABLE_OFFSET,
            table_size=self._capacity * DESCRIPTOR_SIZE,
            data_offset=self._data_offset,
            data_size=self.end - self._data_offset,
        )
        table = b"".join(descriptor.pack() for descriptor in self._descriptors)
        write_at(self.fd, table, TABLE_OFFSET)
        write_at(self.fd, header.pack(), 0)
        self._staged.commit()
