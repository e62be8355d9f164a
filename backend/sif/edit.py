"""Changing a SIF file: objects added and removed, the primary partition chosen.

The file is never changed where it stands.  A copy is made beside it, which costs nothing
on file systems that share blocks, changed, synced and renamed.  So whoever has the old file
mapped or mounted keeps it, a second name of it (a hard link from a cache) keeps its content,
and a crash leaves the old file or the new one.  Changes of several processes come one after
the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from uuid import uuid4

from backend.copying import copy_range, write_at
from backend.errors import FormatError, NotFoundError, UsageError
from backend.oci.digest import digest_of_range
from backend.sif.file import SifFile, open_regular
from backend.sif.records import (
    DESCRIPTOR_SIZE,
    PARTITION_ALIGNMENT,
    TABLE_OFFSET,
    ZERO_TIME,
    DataType,
    Descriptor,
    Header,
    Partition,
    PartitionKind,
)
from backend.staging import StagedFile
from backend.values import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backend.oci.digest import Digest

DEFAULT_CAPACITY = 48
MAX_NAME = 127
"""Bytes of an object's name; a zero follows."""
_CHUNK = 1 << 20
_OCI = frozenset({DataType.OCI_BLOB, DataType.OCI_ROOT_INDEX})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObject:
    """What to add.

    Attributes:
        kind: What it is.
        group: 0 for none.
        link: The object it belongs to, or the group; 0 for none.
        link_is_group: What ``link`` names.
        name: At most 127 bytes.
        extra: By kind; that of an OCI blob or root index is its digest, and made here.
        alignment: Of its first byte; 0 for a page if it is a partition, else none.
    """

    kind: DataType
    group: int = 1
    link: int = 0
    link_is_group: bool = False
    name: bytes = b""
    extra: bytes = b""
    alignment: int = 0


def create_sif(path: Path, *, overwrite: bool = False) -> None:
    """Write a SIF file without objects, as ``sif new`` does: 48 free descriptors, a random ID.

    Raises:
        ExistsError: The file is there already.
    """
    now = int(time.time())
    size = DEFAULT_CAPACITY * DESCRIPTOR_SIZE
    header = Header(
        uuid=uuid4().bytes,
        created=now,
        modified=now,
        free=DEFAULT_CAPACITY,
        total=DEFAULT_CAPACITY,
        table_offset=TABLE_OFFSET,
        table_size=size,
        data_offset=TABLE_OFFSET + size,
        data_size=0,
    )
    with StagedFile(path, overwrite=overwrite) as staged:
        os.ftruncate(staged.fd, header.data_offset)
        write_at(staged.fd, header.pack(), 0)
        staged.commit()


@contextlib.contextmanager
def edit_sif(path: Path) -> Iterator[SifEditor]:
    """Give an editor of a SIF file; what it did takes effect when the block is left.

    An error in the block leaves the file as it was.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no SIF file.
        SpaceError: There is no room for the copy.
    """
    real = path.resolve()
    with (
        _alone(real),
        SifFile(real) as old,
        StagedFile(real, overwrite=True, mode=0o600) as staged,
    ):
        _keep_attributes(old.fileno(), staged.fd)
        copy_range(old.fileno(), staged.fd, start=0, size=old.size, at=0)
        editor = SifEditor(staged.fd, old)
        yield editor
        editor.write()
        staged.commit()


def _keep_attributes(old: int, new: int) -> None:
    """Give the copy the owner, mode and attributes of the file, as far as we may."""
    found = os.fstat(old)
    with contextlib.suppress(PermissionError):
        os.fchown(new, found.st_uid, found.st_gid)
    os.fchmod(new, stat.S_IMODE(found.st_mode))
    with contextlib.suppress(OSError):  # no attributes here, or none of ours to set
        for name in os.listxattr(old):
            os.setxattr(new, name, os.getxattr(old, name))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of the file that has the name, when it is ours."""
    while True:
        fd = open_regular(path)
        try:
            with contextlib.suppress(OSError):  # no locks on this file system
                fcntl.flock(fd, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    yield
                    return
        finally:
            os.close(fd)


class SifEditor:
    """A SIF file that is being changed.

    Args:
        fd: Of the copy.
        old: The file as it was.

    Attributes:
        header: As it will be written, but for its counts.
        slots: The descriptors; None where one is free.
    """

    def __init__(self, fd: int, old: SifFile) -> None:
        self.header = old.header
        self.slots = old.slots()
        self._fd = fd
        self._now = ZERO_TIME if old.header.deterministic else int(time.time())

    def add(self, new: NewObject, source: BinaryIO) -> Descriptor:
        """Append what ``source`` holds, from its position to its end, as an object.

        Raises:
            FormatError: There is no free descriptor.
            UsageError: The name is too long, or there is a primary partition already.
        """
        return self.add_written(new, lambda fd, start: _copy_stream(source, fd, start))

    def add_written(self, new: NewObject, write: Callable[[int, int], int]) -> Descriptor:
        """Append an object that ``write`` puts into the file, given descriptor and position.

        Args:
            new: What it is.
            write: Returns how many bytes it wrote.
        """
        slot = self._free_slot()
        self._check(new)
        end = self.end
        start = -(-end // (_alignment(new))) * _alignment(new)
        size = write(self._fd, start)
        extra = digest_of_range(self._fd, start, size).encode() if new.kind in _OCI else new.extra
        found = Descriptor(
            kind=new.kind,
            id=slot + 1,
            group=new.group,
            link=new.link,
            link_is_group=new.link_is_group,
            offset=start,
            size=size,
            padded_size=start - end + size,
            created=self._now,
            modified=self._now,
            name=new.name,
            extra=extra,
        )
        self.slots[slot] = found
        if _is_primary(found):
            self.header = replace(self.header, architecture=found.partition().architecture)
        return found

    def delete(self, number: int) -> None:
        """Free the descriptor of an object; its bytes stay where they are, unnamed.

        Raises:
            NotFoundError: No object has that number.
        """
        slot = self._slot(number)
        gone = self.slots[slot]
        self.slots[slot] = None
        if gone and _is_primary(gone):
            self.header = replace(self.header, architecture="unknown")

    def digest(self, number: int) -> Digest:
        """Return the SHA-256 digest of an object's bytes."""
        one = self._at(self._slot(number))
        return digest_of_range(self._fd, one.offset, one.size)

    def set_extra(self, number: int, extra: bytes) -> None:
        """Change what an object's descriptor says of it."""
        slot = self._slot(number)
        self.slots[slot] = replace(self._at(slot), modified=self._now, extra=extra)

    def set_primary(self, number: int) -> None:
        """Make a system partition the primary one, and the one that was so an ordinary one.

        Raises:
            NotFoundError: No object has that number.
            UsageError: It is no system partition.
        """
        new = self._at(self._slot(number))
        if new.kind != DataType.PARTITION or new.partition().kind not in {
            PartitionKind.SYSTEM,
            PartitionKind.PRIMARY,
        }:
            raise UsageError(f"object {number} is no system partition")
        if _is_primary(new):
            return
        for one in self.slots:
            if one and _is_primary(one):
                self._set_kind(one, PartitionKind.SYSTEM)
        self._set_kind(new, PartitionKind.PRIMARY)
        self.header = replace(self.header, architecture=new.partition().architecture)

    def truncate(self) -> None:
        """Give back what stands behind the last object."""
        os.ftruncate(self._fd, self.end)

    @property
    def end(self) -> int:
        """The byte after the last object."""
        return max((one.end for one in self.slots if one), default=self.header.data_offset)

    def write(self) -> None:
        """Write the table and the header."""
        table = b"".join(one.pack() if one else bytes(DESCRIPTOR_SIZE) for one in self.slots)
        write_at(self._fd, table, self.header.table_offset)
        header = replace(
            self.header,
            modified=self._now,
            free=self.slots.count(None),
            data_size=self.end - self.header.data_offset,
        )
        write_at(self._fd, header.pack(), 0)

    def _set_kind(self, one: Descriptor, kind: PartitionKind) -> None:
        old = one.partition()
        extra = Partition(fs=old.fs, kind=kind, architecture=old.architecture).pack()
        self.set_extra(one.id, extra)

    def _free_slot(self) -> int:
        if None not in self.slots:
            raise FormatError(
                "insufficient descriptor capacity to add data object(s) to image",
                hint="the table is full: delete an object that is no longer needed",
            )
        return self.slots.index(None)

    def _check(self, new: NewObject) -> None:
        if len(new.name) > MAX_NAME or b"\0" in new.name:
            raise UsageError(f"a name has at most {MAX_NAME} bytes and no zero")
        if (
            new.kind == DataType.PARTITION
            and Partition.unpack(new.extra).kind == PartitionKind.PRIMARY
            and any(one and _is_primary(one) for one in self.slots)
        ):
            raise UsageError("image already contains a primary partition")

    def _slot(self, number: int) -> int:
        for i, one in enumerate(self.slots):
            if one and one.id == number:
                return i
        raise NotFoundError(f"the file has no object {number}")

    def _at(self, slot: int) -> Descriptor:
        one = self.slots[slot]
        if one is None:
            raise NotFoundError(f"the file has no object in slot {slot}")
        return one


def _alignment(new: NewObject) -> int:
    return new.alignment or (PARTITION_ALIGNMENT if new.kind == DataType.PARTITION else 1)


def _is_primary(one: Descriptor) -> bool:
    return one.kind == DataType.PARTITION and one.partition().kind == PartitionKind.PRIMARY


def _copy_stream(source: BinaryIO, fd: int, start: int) -> int:
    size = 0
    while chunk := source.read(_CHUNK):
        write_at(fd, chunk, start + size)
        size += len(chunk)
    return size
