"""What ``sif list``, ``sif header`` and ``sif info`` print, to the letter as SingularityCE does.

Scripts parse these texts.  Names that stand in the file are escaped; everything else is a
number or a word of ours.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from backend.escape import one_line
from backend.sif.records import NIL_UUID, VERSION, ZERO_TIME, DataType, FileSystem, PartitionKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.sif.records import Descriptor, Header

TYPES: dict[int, str] = {
    DataType.DEFINITION: "Def.FILE",
    DataType.ENVIRONMENT: "Env.Vars",
    DataType.LABELS: "JSON.Labels",
    DataType.PARTITION: "FS",
    DataType.SIGNATURE: "Signature",
    DataType.JSON: "JSON.Generic",
    DataType.RAW: "Generic/Raw",
    DataType.CRYPTO_MESSAGE: "Cryptographic Message",
    DataType.SBOM: "SBOM",
    DataType.OCI_ROOT_INDEX: "OCI.RootIndex",
    DataType.OCI_BLOB: "OCI.Blob",
}
FILE_SYSTEMS: dict[int, str] = {
    FileSystem.SQUASHFS: "Squashfs",
    FileSystem.EXT3: "Ext3",
    FileSystem.ARCHIVE: "Archive",
    FileSystem.RAW: "Raw",
    FileSystem.ENCRYPTED_SQUASHFS: "Encrypted squashfs",
}
PARTITIONS: dict[int, str] = {
    PartitionKind.SYSTEM: "System",
    PartitionKind.PRIMARY: "*System",
    PartitionKind.DATA: "Data",
    PartitionKind.OVERLAY: "Overlay",
}
HASHES = {1: "SHA-256", 2: "SHA-384", 3: "SHA-512", 4: "BLAKE2s-256", 5: "BLAKE2b-256"}
MESSAGE_FORMATS = {1: "OpenPGP", 2: "PEM"}
MESSAGE_KINDS = {0x100: "Clear Signature", 0x200: "RSA-OAEP"}
SBOM_FORMATS = {
    1: "cyclonedx-json",
    2: "cyclonedx-xml",
    3: "github-json",
    4: "spdx-json",
    5: "spdx-rdf",
    6: "spdx-tag-value",
    7: "spdx-yaml",
    8: "syft-json",
}
_UNKNOWN = "Unknown"
_RULE = "-" * 78


def header_text(header: Header) -> str:
    """Return what ``sif header`` prints."""
    rows = [
        ("Launch Script:", one_line(_text(header.launch).rstrip("\n"))),
        ("Version:", VERSION),
        ("Primary Architecture:", header.architecture if header.architecture != "unknown" else ""),
        ("ID:", "" if header.uuid == NIL_UUID else str(UUID(bytes=header.uuid))),
        ("Created At:", time_text(header.created)),
        ("Modified At:", time_text(header.modified)),
        ("Descriptors Free:", str(header.free)),
        ("Descriptors Total:", str(header.total)),
        ("Descriptors Offset:", str(header.table_offset)),
        ("Descriptors Size:", size_text(header.table_size)),
        ("Data Offset:", str(header.data_offset)),
        ("Data Size:", size_text(header.data_size)),
    ]
    return _aligned(rows, indent="", gutter=1)


def list_text(descriptors: Sequence[Descriptor]) -> str:
    """Return what ``sif list`` prints."""
    lines = [_RULE, "ID   |GROUP   |LINK    |SIF POSITION (start-end)  |TYPE", _RULE]
    for one in descriptors:
        place = f"|{one.offset}-{one.end}"
        group = one.group or "NONE"
        link = f"{one.link:<3} (G)" if one.link_is_group else one.link or "NONE"
        lines.append(f"{one.id:<4} |{group:<7} |{link:<7} {place:<26} |{type_text(one)}")
    return "\n".join(lines) + "\n"


def info_text(one: Descriptor) -> str:
    """Return what ``sif info`` prints."""
    rows = [
        ("Data Type:", TYPES.get(one.kind, _UNKNOWN)),
        ("ID:", str(one.id)),
        ("Group ID:", str(one.group or "NONE")),
        ("Linked ID:", f"{one.link} (G)" if one.link_is_group else str(one.link or "NONE")),
        ("Offset:", str(one.offset)),
        ("Size:", str(one.size)),
        ("Created At:", time_text(one.created)),
        ("Modified At:", time_text(one.modified)),
        ("Name:", one_line(_text(one.name))),
        *_details(one),
    ]
    return _aligned(rows, indent="  ", gutter=2)


def type_text(one: Descriptor) -> str:
    """Return the last column of ``sif list``: the type, and what matters of its details."""
    name = TYPES.get(one.kind, _UNKNOWN)
    match one.kind:
        case DataType.PARTITION | DataType.CRYPTO_MESSAGE:
            shown = [value for _, value in _details(one)]
        case DataType.SIGNATURE | DataType.SBOM:
            shown = [value for _, value in _details(one)][:1]
        case _:
            return name
    return f"{name} ({'/'.join(shown)})"


def describe(one: Descriptor) -> dict[str, object]:
    """Return a descriptor for ``--json``: what ``sif info`` prints, numbers as numbers."""
    times = {"created": time_text(one.created), "modified": time_text(one.modified)}
    details = {label.rstrip(":").lower().replace(" ", "_"): text for label, text in _details(one)}
    return {
        "id": one.id,
        "type": TYPES.get(one.kind, _UNKNOWN),
        "group": one.group or None,
        "link": one.link or None,
        "link_is_group": one.link_is_group,
        "offset": one.offset,
        "size": one.size,
        "name": _text(one.name),
        **{key: text for key, text in (times | details).items() if text},
    }


def size_text(size: int) -> str:
    """Return a size as a whole number of B, KiB, MiB ..."""
    if size < 1024:
        return f"{size} B"
    value, units = size / 1024, iter("KMGTPE")
    unit = next(units)
    # The unit is chosen before rounding, so 1,048,575 bytes are 1024 KiB, as upstream says.
    while value >= 1024:
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}iB"


def time_text(seconds: int) -> str:
    """Return a time as Go prints it; empty when none is recorded."""
    if seconds == ZERO_TIME:
        return ""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{seconds} seconds since 1970"
    return f"{moment.replace(tzinfo=None).isoformat(sep=' ')} +0000 UTC"


def _details(one: Descriptor) -> list[tuple[str, str]]:
    match one.kind:
        case DataType.PARTITION:
            part = one.partition()
            return [
                ("Filesystem Type:", FILE_SYSTEMS.get(part.fs, _UNKNOWN)),
                ("Partition Type:", PARTITIONS.get(part.kind, _UNKNOWN)),
                ("Architecture:", part.architecture),
            ]
        case DataType.SIGNATURE:
            signature = one.signature()
            return [
                ("Hash Type:", HASHES.get(signature.algorithm, _UNKNOWN)),
                ("Entity:", signature.entity.hex().upper()),
            ]
        case DataType.CRYPTO_MESSAGE:
            form, kind = one.crypto_message()
            return [
                ("Format Type:", MESSAGE_FORMATS.get(form, _UNKNOWN)),
                ("Message Type:", MESSAGE_KINDS.get(kind, _UNKNOWN)),
            ]
        case DataType.SBOM:
            return [("Format:", SBOM_FORMATS.get(one.sbom_format(), _UNKNOWN))]
        case DataType.OCI_ROOT_INDEX | DataType.OCI_BLOB:
            return [("Digest:", one_line(_text(one.extra.partition(b"\0")[0])))]
        case _:
            return []


def _aligned(rows: list[tuple[str, str]], *, indent: str, gutter: int) -> str:
    """Return a line for each row that has a value, the values below each other."""
    shown = [(label, value) for label, value in rows if value]
    width = max(len(label) for label, _ in shown) + gutter
    return "".join(f"{indent}{label:<{width}}{value}\n" for label, value in shown)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
