"""SIF files that tests make, byte by byte from the format's description."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

GO_ZERO = 0xFFFFFFF1886E0900
DEFINITION, PARTITION, SIGNATURE, JSON, CRYPTO, SBOM, ROOT_INDEX, BLOB = (
    0x4001,
    0x4004,
    0x4005,
    0x4006,
    0x4008,
    0x4009,
    0x400A,
    0x400B,
)


@dataclass(kw_only=True)
class Object:
    """One object; ``gap`` bytes are left free before it."""

    kind: int
    data: bytes
    extra: bytes = b""
    name: bytes = b""
    group: int = 1
    link: int = 0
    gap: int = 0
    created: int = GO_ZERO
    number: int = 0


def blob(data: bytes, kind: int = BLOB, **more: Any) -> Object:
    return Object(
        kind=kind, data=data, extra=b"sha256:" + hashlib.sha256(data).hexdigest().encode(), **more
    )


def partition(
    data: bytes, fs: int = 1, kind: int = 2, arch: bytes = b"02\0", **more: Any
) -> Object:
    return Object(kind=PARTITION, data=data, extra=struct.pack("<ii", fs, kind) + arch, **more)


def sif(
    *objects: Object,
    capacity: int = 48,
    launch: bytes = b"",
    arch: bytes = b"00\0",
    uuid: bytes = bytes(16),
    created: int = GO_ZERO,
) -> bytes:
    """Return a file with the table at 4096 and the objects one after another."""
    start = 4096 + capacity * 585
    table, data = b"", b""
    for i, one in enumerate(objects, 1):
        data += bytes(one.gap)
        table += struct.pack(
            "<IBIII", one.kind, 1, one.number or i, one.group | 0xF0000000, one.link
        )
        table += struct.pack("<QQQ", start + len(data), len(one.data), one.gap + len(one.data))
        table += struct.pack("<QQQQ", one.created, one.created, 0, 0)
        table += one.name.ljust(128, b"\0") + one.extra.ljust(384, b"\0")
        data += one.data
    header = launch.ljust(32, b"\0") + b"SIF_MAGIC\0" + b"01\0" + arch + uuid
    header += struct.pack("<QQ", created, created)
    header += struct.pack("<QQQQ", capacity - len(objects), capacity, 4096, capacity * 585)
    header += struct.pack("<QQ", start, len(data))
    return header.ljust(4096, b"\0") + table.ljust(capacity * 585, b"\0") + data
