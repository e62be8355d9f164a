"""From what a builder made, an OCI layout on this disk, to an OCI-SIF: the way of a pull."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.assembly import assembly_of, write_image
from backend.errors import FormatError
from backend.oci import media
from backend.oci.digest import parse_digest
from backend.oci.image import parse_index, parse_manifest
from backend.oci.json import MAX_DOCUMENT
from backend.oci.source import verify
from backend.sif.provenance import Source

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from backend.events import Report
    from backend.oci.digest import Digest
    from backend.oci.image import Descriptor, Index
    from backend.sif.ocisif import WrittenImage
    from backend.squashfs.compression import Compression


def convert_layout(
    layout: Path, target: Path, *, compression: Compression, overwrite: bool, report: Report
) -> WrittenImage:
    """Write the image in a layout as one OCI-SIF file.

    The same layout and compression give the same bytes.

    Args:
        layout: The folder with ``index.json``.
        target: The file to write.
        compression: Of the squashfs blocks.
        overwrite: Whether ``target`` may be replaced.
        report: Gets the events.

    Raises:
        ExistsError: ``target`` exists and may not be replaced.
        FormatError: The layout, or the image in it, breaks its specification.
        VerificationError: Something in it is not what its digest says.
        SpaceError: The disk is full.
    """
    entry, raw_manifest = _manifest(layout)
    manifest = parse_manifest(raw_manifest, entry.media_type)
    source = Source(
        raw_manifest=raw_manifest,
        raw_config=_document(layout, manifest.config),
        media_type=entry.media_type,
    )

    def open_layer(index: int) -> BinaryIO:
        return _blob(layout, manifest.layers[index].digest).open("rb")

    image = assembly_of(source, open_layer)
    return write_image(image, target, compression=compression, overwrite=overwrite, report=report)


def _manifest(layout: Path) -> tuple[Descriptor, bytes]:
    """Return the only image in a layout: its descriptor, and its manifest as it stands there.

    Raises:
        FormatError: There is not exactly one image for one platform.
    """
    entries = _images(parse_index(_read(layout / "index.json", MAX_DOCUMENT)))
    while len(entries) == 1 and entries[0].media_type in media.INDEXES:
        entries = _images(parse_index(_document(layout, entries[0]), entries[0].media_type))
    if len(entries) != 1:
        raise FormatError(f"the builder made {len(entries)} images; one is needed")
    return entries[0], _document(layout, entries[0])


def _images(index: Index) -> list[Descriptor]:
    """Return the entries of an index without BuildKit's attestations."""
    return [
        entry
        for entry in index.manifests
        if entry.platform is None or entry.platform.architecture != "unknown"
    ]


def _document(layout: Path, descriptor: Descriptor) -> bytes:
    """Return a small blob, verified."""
    data = _read(_blob(layout, descriptor.digest), MAX_DOCUMENT)
    verify(data, descriptor.digest, size=descriptor.size)
    return data


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise FormatError(f"{path.name} is missing from the builder's layout") from error
    if len(data) > limit:
        raise FormatError(f"{path.name} is larger than {limit >> 20} MiB")
    return data


def _blob(layout: Path, digest: Digest) -> Path:
    algorithm, _, value = parse_digest(digest).partition(":")
    return layout / "blobs" / algorithm / value
