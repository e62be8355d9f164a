"""The two records of a SIF file, format version 01: the global header and the descriptor.

A SIF file is one header (128 bytes at byte 0), a table of descriptors (585 bytes each, by
default from byte 4096) and the objects they describe.  Integers are little-endian and
nothing is padded.  Parsing takes bytes and returns values; whoever calls has bounded the
bytes and checks places against the size of the file.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from backend.errors import FormatError
from backend.escape import quoted
from backend.oci.digest import parse_digest
from backend.values import Value

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from backend.oci.digest import Digest

MAGIC = b"SIF_MAGIC\0"
VERSION = "01"
HEADER_SIZE = 128
DESCRIPTOR_SIZE = 585
TABLE_OFFSET = 4096
"""Where every known writer puts the descriptor table."""
PARTITION_ALIGNMENT = 4096

ZERO_TIME = -62135596800
"""Seconds from 1970 back to the year 1: Go's zero time, which stands for "not recorded"."""
NIL_UUID = bytes(16)
GROUP_MASK = 0xF0000000
"""OR-ed into each group number, and into a link that names a group."""

_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<i?3I7q128s384s")
_PARTITION = struct.Struct("<ii3s")
_PAIR = struct.Struct("<ii")
_NUMBER = struct.Struct("<i")
_ENTITY_SIZE = 20


class DataType(IntEnum):
    """What an object is."""

    DEFINITION = 0x4001
    ENVIRONMENT = 0x4002
    LABELS = 0x4003
    PARTITION = 0x4004
    SIGNATURE = 0x4005
    JSON = 0x4006
    RAW = 0x4007
    CRYPTO_MESSAGE = 0x4008
    SBOM = 0x4009
    OCI_ROOT_INDEX = 0x400A
    OCI_BLOB = 0x400B


class FileSystem(IntEnum):
    """What a partition holds."""

    SQUASHFS = 1
    EXT3 = 2
    ARCHIVE = 3
    RAW = 4
    ENCRYPTED_SQUASHFS = 5


class PartitionKind(IntEnum):
    """What a partition is for."""

    SYSTEM = 1
    PRIMARY = 2
    DATA = 3
    OVERLAY = 4


ARCHITECTURES = (
    "unknown",
    "386",
    "amd64",
    "arm",
    "arm64",
    "ppc64",
    "ppc64le",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "s390x",
    "riscv64",
    "loong64",
)
"""By the number that stands in the file as two digits."""


def architecture_code(name: str) -> bytes:
    """Return the three bytes that stand for GOARCH ``name``; those of ``unknown`` if none do."""
    number = ARCHITECTURES.index(name) if name in ARCHITECTURES else 0
    return b"%02d\0" % number


def architecture_name(code: bytes) -> str:
    """Return the GOARCH name of a three-byte code."""
    digits = code[:2]
    number = int(digits) if digits.isdigit() else 0
    return ARCHITECTURES[number] if number < len(ARCHITECTURES) else ARCHITECTURES[0]


class Header(Value):
    """The global header.

    Attributes:
        launch: Launch script, at most 31 bytes; empty in an OCI-SIF.
        architecture: GOARCH of the primary partition; ``unknown`` when there is none.
        uuid: Of the image, 16 bytes; nil in a deterministic one.
        created: Seconds since 1970, UTC, or :data:`ZERO_TIME`.
        modified: The same.
        free: Descriptors not in use.
        total: Descriptors in the table.
        table_offset: Byte at which the table starts.
        table_size: Bytes of the table.
        data_offset: Byte at which objects may start.
        data_size: Bytes from there to the end of the last object.
    """

    launch: bytes = b""
    architecture: str = "unknown"
    uuid: bytes = NIL_UUID
    created: int = ZERO_TIME
    modified: int = ZERO_TIME
    free: int
    total: int
    table_offset: int
    table_size: int
    data_offset: int
    data_size: int

    @property
    def deterministic(self) -> bool:
        """Whether the file was written without clock and chance, and shall stay so."""
        return self.uuid == NIL_UUID and self.created == self.modified == ZERO_TIME

    def pack(self) -> bytes:
        """Return the 128 bytes of the header."""
        return _HEADER.pack(
            self.launch,
            MAGIC,
            VERSION.encode(),
            architecture_code(self.architecture),
            self.uuid,
            self.created,
            self.modified,
            self.free,
            self.total,
            self.table_offset,
            self.table_size,
            self.data_offset,
            self.data_size,
        )


def parse_header(data: bytes) -> Header:
    """Parse the first 128 bytes of a file.

    Raises:
        FormatError: They are no SIF header, or one of a version that we do not know.
    """
    if len(data) < HEADER_SIZE or data[32:42] != MAGIC:
        raise FormatError("not a SIF file: the magic is missing", offset=32)
    launch, _, version, code, uuid, *numbers = _HEADER.unpack_from(data)
    if version != VERSION.encode() + b"\0":
        named = quoted(version.partition(b"\0")[0].decode("latin-1"))
        raise FormatError(f"a SIF file of version {named}; we read version 01", offset=42)
    created, modified, free, total, table_offset, table_size, data_offset, data_size = numbers
    return Header(
        launch=launch.partition(b"\0")[0],
        architecture=architecture_name(code),
        uuid=uuid,
        created=created,
        modified=modified,
        free=free,
        total=total,
        table_offset=table_offset,
        table_size=table_size,
        data_offset=data_offset,
        data_size=data_size,
    )


class Descriptor(Value):
    """Where an object is and what it is.

    Attributes:
        kind: A :class:`DataType`, or a number that we do not know.
        id: From 1; by convention the slot in the table plus one.
        group: 0 for none.
        link: The object or group that this one belongs to; 0 for none.
        link_is_group: What ``link`` names.
        offset: Byte at which the object starts.
        size: Its bytes.
        padded_size: Its bytes and those that were skipped before it.
        created: Seconds since 1970, UTC, or :data:`ZERO_TIME`.
        modified: The same.
        uid: Always 0 today.
        gid: Always 0 today.
        name: At most 127 bytes.
        extra: What else there is to say, by kind; at most 384 bytes, zeros at the end cut.
    """

    kind: int
    id: int
    group: int = 1
    link: int = 0
    link_is_group: bool = False
    offset: int
    size: int
    padded_size: int
    created: int = ZERO_TIME
    modified: int = ZERO_TIME
    uid: int = 0
    gid: int = 0
    name: bytes = b""
    extra: bytes = b""

    @property
    def end(self) -> int:
        """The byte after the object."""
        return self.offset + self.size

    def pack(self) -> bytes:
        """Return the 585 bytes of the descriptor."""
        return _DESCRIPTOR.pack(
            self.kind,
            True,
            self.id,
            self.group | GROUP_MASK,
            self.link | (GROUP_MASK if self.link_is_group else 0),
            self.offset,
            self.size,
            self.padded_size,
            self.created,
            self.modified,
            self.uid,
            self.gid,
            self.name,
            self.extra,
        )

    def partition(self) -> Partition:
        """Return what ``extra`` says of a partition."""
        return Partition.unpack(self.extra)

    def signature(self) -> Signature:
        """Return what ``extra`` says of a signature."""
        (algorithm,) = _NUMBER.unpack_from(self._extra())
        entity = self._extra()[4 : 4 + _ENTITY_SIZE]
        return Signature(algorithm=algorithm, entity=entity if any(entity) else b"")

    def crypto_message(self) -> tuple[int, int]:
        """Return format and kind of a cryptographic message."""
        form, kind = _PAIR.unpack_from(self._extra())
        return form, kind

    def sbom_format(self) -> int:
        """Return the format of a bill of materials."""
        (form,) = _NUMBER.unpack_from(self._extra())
        return int(form)

    def digest(self) -> Digest:
        """Return the digest of an OCI blob or root index.

        Raises:
            FormatError: None stands there.
        """
        text = self.extra.partition(b"\0")[0]
        try:
            return parse_digest(text.decode("ascii", "replace"))
        except FormatError as error:
            raise FormatError(f"object {self.id}: {error.message}") from error

    def _extra(self) -> bytes:
        return self.extra.ljust(384, b"\0")


class Partition(Value):
    """The extra field of a partition; the numbers may be unknown ones."""

    fs: int
    kind: int
    architecture: str

    @classmethod
    def unpack(cls, extra: bytes) -> Partition:
        """Return what an extra field says; zeros where it is too short."""
        fs, kind, code = _PARTITION.unpack_from(extra.ljust(_PARTITION.size, b"\0"))
        return cls(fs=fs, kind=kind, architecture=architecture_name(code))

    def pack(self) -> bytes:
        """Return the extra field."""
        return _PARTITION.pack(self.fs, self.kind, architecture_code(self.architecture))


class Signature(Value):
    """The extra field of a signature.

    Attributes:
        algorithm: Number of the hash, see :data:`backend.sif.text.HASHES`.
        entity: Fingerprint of the OpenPGP key, 20 bytes; empty when none is named.
    """

    algorithm: int
    entity: bytes = b""

    def pack(self) -> bytes:
        """Return the extra field."""
        return _NUMBER.pack(self.algorithm) + self.entity


def pack_pair(first: int, second: int) -> bytes:
    """Return the extra field of a cryptographic message: format and kind."""
    return _PAIR.pack(first, second)


def pack_number(number: int) -> bytes:
    """Return the extra field of a bill of materials: its format."""
    return _NUMBER.pack(number)


def parse_descriptor(data: bytes) -> Descriptor | None:
    """Parse one slot of the table; None when it is not in use."""
    kind, used, number, group, link, *numbers, name, extra = _DESCRIPTOR.unpack(data)
    if not used:
        return None
    offset, size, padded_size, created, modified, uid, gid = numbers
    return Descriptor(
        kind=kind,
        id=number,
        group=group & ~GROUP_MASK,
        link=link & ~GROUP_MASK,
        link_is_group=link & GROUP_MASK == GROUP_MASK,
        offset=offset,
        size=size,
        padded_size=padded_size,
        created=created,
        modified=modified,
        uid=uid,
        gid=gid,
        name=name.partition(b"\0")[0],
        extra=extra.rstrip(b"\0"),
    )
