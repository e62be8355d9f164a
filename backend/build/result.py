"""From what a builder made, an OCI layout on this disk, to an OCI-SIF: the way of a pull."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from backend.errors import FormatError
from backend.layers.squash import LayerSource, squash_layers
from backend.oci import media
from backend.oci.digest import parse_digest
from backend.oci.image import parse_config, parse_index, parse_manifest
from backend.oci.json import MAX_DOCUMENT
from backend.oci.source import verify
from backend.sif.ocisif import OciSifWriter
from backend.sif.provenance import Source, convert_documents

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from backend.events import Report
    from backend.oci.digest import Digest
    from backend.oci.image import Descriptor, Index, Manifest
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
    manifest, raw_manifest = _manifest(layout)
    raw_config = _document(layout, manifest.config)
    diff_ids = parse_config(raw_config).diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise FormatError("the image's configuration and manifest name different layers")
    sources = [
        LayerSource(
            media_type=layer.media_type,
            open=functools.partial(_open, _blob(layout, layer.digest)),
            diff_id=diff_id,
            size=layer.size,
        )
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    ]
    source = Source(
        raw_manifest=raw_manifest, raw_config=raw_config, media_type=manifest.media_type
    )
    with OciSifWriter(target, layer_count=1, overwrite=overwrite) as writer:
        with writer.layer() as out:
            squash_layers(sources, out, compression=compression, report=report)
        return writer.finish(functools.partial(convert_documents, source))


def _manifest(layout: Path) -> tuple[Manifest, bytes]:
    """Return the manifest of the only image in a layout, parsed and as it stands there.

    Raises:
        FormatError: There is not exactly one image for one platform.
    """
    entries = _images(parse_index(_read(layout / "index.json", MAX_DOCUMENT)))
    while len(entries) == 1 and entries[0].media_type in media.INDEXES:
        entries = _images(parse_index(_document(layout, entries[0]), entries[0].media_type))
    if len(entries) != 1:
        raise FormatError(f"the builder made {len(entries)} images; one is needed")
    raw = _document(layout, entries[0])
    return parse_manifest(raw, entries[0].media_type), raw


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


def _open(path: Path) -> BinaryIO:
    return path.open("rb")
