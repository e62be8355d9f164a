"""Small SIF files for tests that look at them but do not run them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from backend.sif import records
from backend.sif.ocisifwriter import OciSifWriter
from backend.sif.provenance import Source, convert_documents
from tests.support import images

if TYPE_CHECKING:
    from pathlib import Path


def write_ocisif(
    path: Path,
    *,
    reference: str = "docker.io/library/tiny:1.0",
    created: str = "2024-05-06T07:08:09Z",
    settings: dict[str, Any] | None = None,
) -> Path:
    """Write an OCI-SIF whose one layer is a few bytes that nobody mounts."""
    layers = [images.layer(images.Entry(name="a", data=b"a"))]
    made = images.image(layers, config=settings, created=created)
    config = json.loads(made.manifest)["config"]["digest"]
    source = Source(
        raw_manifest=made.manifest,
        raw_config=made.blobs[config],
        media_type=made.media_type,
        reference=reference,
    )
    with OciSifWriter(path, layer_count=1) as writer:
        with writer.layer() as out:
            out.write(b"hsqs" + bytes(4092))
        writer.finish(lambda layers: convert_documents(source, layers))
    return path


def write_native(path: Path, labels: dict[str, Any] | None = None) -> Path:
    """Write a native SIF: header, two descriptors, labels and a partition."""
    data = json.dumps(labels or {}).encode()
    table = records.TABLE_OFFSET
    begin = table + 2 * records.DESCRIPTOR_SIZE
    header = records.Header(
        architecture="arm64",
        created=1_600_000_000,
        modified=1_600_000_000,
        free=0,
        total=2,
        table_offset=table,
        table_size=2 * records.DESCRIPTOR_SIZE,
        data_offset=begin,
        data_size=len(data) + 4,
    )
    described = (
        records.Descriptor(
            kind=records.DataType.LABELS, id=1, offset=begin, size=len(data), padded_size=len(data)
        ),
        records.Descriptor(
            kind=records.DataType.PARTITION,
            id=2,
            offset=begin + len(data),
            size=4,
            padded_size=4,
            extra=records.Partition(fs=1, kind=2, architecture="arm64").pack(),
        ),
    )
    raw = header.pack().ljust(table, b"\0") + b"".join(one.pack() for one in described)
    path.write_bytes(raw + data + b"hsqs")
    return path
