"""OCI-SIF: one OCI image inside one SIF file.

The layers, base first, then the configuration and the manifest are objects of type OCI.Blob;
the last object is an OCI.RootIndex, whose one image manifest leads to the others by digest.
Compatible both ways with SingularityCE 4.5: no launch script, nil UUID, no times, group 1,
a table of exactly what is needed and eight slots more, for signatures and overlays.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from backend.errors import FormatError
from backend.escape import one_line
from backend.oci import media
from backend.oci.digest import Digest, digest_of, digest_of_range, hasher
from backend.oci.image import Descriptor as OciDescriptor
from backend.oci.image import (
    ImageConfig,
    Index,
    Manifest,
    parse_config,
    parse_index,
    parse_manifest,
)
from backend.oci.json import MAX_DOCUMENT, dump
from backend.sif.file import SifFile
from backend.sif.records import (
    PARTITION_ALIGNMENT,
    DataType,
    Descriptor,
)
from backend.sif.writer import LayerFile, SifWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from backend.sif.provenance import Documents

SPARE_DESCRIPTORS = 8
LAYER_ALIGNMENT = PARTITION_ALIGNMENT
"""A layer starts on a page, so that the kernel can mount it as well as squashfuse."""
COSIGN_PREFIX = "_cosign"
"""How the reference name of a signature's manifest starts in the root index."""
REFERENCE_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlace:
    """A layer inside the file.

    Attributes:
        offset: Byte at which it starts; any, in files that others wrote.
        size: Its bytes.
        media_type: Squashfs, or ext3 for a writable overlay, which is the last if there.
        digest: Of its bytes, as the manifest names it; not verified on reading.
        object_id: Of its descriptor.
    """

    offset: int
    size: int
    media_type: str
    digest: Digest
    object_id: int

    @property
    def is_overlay(self) -> bool:
        """Whether it is a writable ext3 file system."""
        return self.media_type == media.EXT3_LAYER


@dataclass(frozen=True, slots=True, kw_only=True)
class OciSif:
    """The image in an OCI-SIF file.

    Attributes:
        path: Of the file.
        manifest: Of the one image; its digest has been verified.
        manifest_digest: Digest of ``raw_manifest``.
        raw_manifest: As stored.
        config: How to run it; its digest has been verified.
        raw_config: As stored.
        layers: Base first.
        index: The root index, which may name signatures beside the image.
        signed: Whether the file holds a signature of its descriptors (PGP, PEM).
    """

    path: Path
    manifest: Manifest
    manifest_digest: Digest
    raw_manifest: bytes
    config: ImageConfig
    raw_config: bytes
    layers: tuple[LayerPlace, ...]
    index: Index
    signed: bool

    @property
    def is_data_container(self) -> bool:
        """Whether it holds data instead of something to run."""
        return self.manifest.artifact_type == media.DATA_CONTAINER


def read_ocisif(path: Path) -> OciSif:
    """Read the image of an OCI-SIF file; the layers are located, not read.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no OCI-SIF, or a broken one.
    """
    with SifFile(path) as sif:
        return image_of(sif)


def image_of(sif: SifFile) -> OciSif:
    """Return the image in an open OCI-SIF file.

    Raises:
        FormatError: It is no OCI-SIF, or a broken one.
    """
    index = root_index(sif)
    entry = _only_image(index)
    blobs = _blobs(sif)
    raw_manifest = _document(sif, blobs, entry, MAX_DOCUMENT)
    manifest = parse_manifest(raw_manifest, entry.media_type)
    raw_config = _document(sif, blobs, manifest.config, MAX_DOCUMENT)
    return OciSif(
        path=sif.path,
        manifest=manifest,
        manifest_digest=entry.digest,
        raw_manifest=raw_manifest,
        config=parse_config(raw_config),
        raw_config=raw_config,
        layers=tuple(_place(blobs, layer) for layer in manifest.layers),
        index=index,
        signed=bool(sif.of_kind(DataType.SIGNATURE)),
    )


def root_index(sif: SifFile) -> Index:
    """Return the root index of an OCI-SIF file.

    Raises:
        FormatError: The file is a native SIF, or the index is broken.
    """
    roots = sif.of_kind(DataType.OCI_ROOT_INDEX)
    shown = one_line(str(sif.path))
    if not roots:
        native = sif.of_kind(DataType.PARTITION)
        what = "a native SIF, not an OCI-SIF" if native else "a SIF file without an image in it"
        raise FormatError(f"{shown} is {what}")
    if len(roots) > 1:
        raise FormatError(f"{shown} has {len(roots)} root indexes; an OCI-SIF has one")
    data = sif.read(roots[0], limit=MAX_DOCUMENT)
    _verify(data, roots[0].digest(), "the root index")
    return parse_index(data)


def is_cosign(entry: OciDescriptor) -> bool:
    """Tell whether an entry of the root index is a signature instead of the image."""
    return entry.annotations.get(REFERENCE_NAME, "").startswith(COSIGN_PREFIX)


def _only_image(index: Index) -> OciDescriptor:
    images = [
        entry
        for entry in index.manifests
        if entry.media_type in media.MANIFESTS and not is_cosign(entry)
    ]
    if len(images) != 1:
        raise FormatError(f"the root index names {len(images)} images; an OCI-SIF holds one")
    return images[0]


def read_blob(sif: SifFile, entry: OciDescriptor, *, limit: int) -> bytes:
    """Return the blob that a descriptor points to, its digest verified.

    Raises:
        FormatError: It is not in the file, damaged, or larger than ``limit``.
    """
    return _document(sif, _blobs(sif), entry, limit)


def _blobs(sif: SifFile) -> dict[Digest, Descriptor]:
    return {one.digest(): one for one in reversed(sif.of_kind(DataType.OCI_BLOB))}


def _document(
    sif: SifFile, blobs: dict[Digest, Descriptor], entry: OciDescriptor, limit: int
) -> bytes:
    found = _find(blobs, entry)
    data = sif.read(found, limit=limit)
    _verify(data, entry.digest, f"object {found.id}")
    return data


def _place(blobs: dict[Digest, Descriptor], layer: OciDescriptor) -> LayerPlace:
    found = _find(blobs, layer)
    return LayerPlace(
        offset=found.offset,
        size=found.size,
        media_type=layer.media_type,
        digest=layer.digest,
        object_id=found.id,
    )


def _find(blobs: dict[Digest, Descriptor], entry: OciDescriptor) -> Descriptor:
    found = blobs.get(entry.digest)
    if found is None:
        raise FormatError(f"blob {entry.digest} is not in the file")
    if found.size != entry.size:
        raise FormatError(
            f"blob {entry.digest} has {found.size} bytes, {entry.size} by its descriptor",
            offset=found.offset,
        )
    return found


def _verify(data: bytes, digest: Digest, what: str) -> None:
    total = hasher(digest)
    total.update(data)
    if not digest.endswith(f":{total.hexdigest()}"):
        raise FormatError(f"{what} is damaged: its digest is not {digest}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenImage:
    """What :meth:`OciSifWriter.finish` made.

    Attributes:
        path: The file.
        digest: Of the image's manifest in it.
        size: Bytes of the file.
    """

    path: Path
    digest: Digest
    size: int


class OciSifWriter:
    """Writes an OCI-SIF file that appears whole or not at all; a context manager.

    Leaving the block without :meth:`finish` leaves nothing behind.

    Args:
        target: The file to write.
        layer_count: How many layers will be written, which sets the size of the table.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        ExistsError: The target is there already.
        NotFoundError: Its folder is not.
        SpaceError: The disk is full.
    """

    def __init__(self, target: Path, *, layer_count: int, overwrite: bool = False) -> None:
        capacity = layer_count + 3 + SPARE_DESCRIPTORS
        self._target = target
        self._writer = SifWriter(target, capacity=capacity, overwrite=overwrite)
        self._layers: list[OciDescriptor] = []

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def layer(self, media_type: str = media.SQUASHFS_LAYER) -> Iterator[LayerFile]:
        """Give the file to write the next layer to, base layer first.

        The layer is what stands from the file's position at the start to its end when the
        block is left; positions in between may be written in any order.  A layer that equals
        an earlier one is stored once.
        """
        writer = self._writer
        with writer.open_object(LAYER_ALIGNMENT) as out:
            yield out
        digest = out.digest or digest_of_range(writer.fd, out.start, out.size)
        is_known = digest in {layer.digest for layer in self._layers}
        self._layers.append(OciDescriptor(media_type=media_type, size=out.size, digest=digest))
        if is_known:  # blobs are found by digest, so one of a kind is enough
            writer.forget_tail()
        else:
            writer.add(DataType.OCI_BLOB, out.start, out.size, extra=digest.encode())

    def finish(
        self, make_documents: Callable[[Sequence[OciDescriptor]], Documents]
    ) -> WrittenImage:
        """Write what follows the layers, put the file on the disk and give it its name.

        Args:
            make_documents: Given the layers, returns the configuration and the manifest, as
                :func:`backend.sif.provenance.convert_documents` does.
        """
        documents = make_documents(self._layers)
        manifest = parse_manifest(documents.manifest)
        entry = OciDescriptor(
            media_type=manifest.media_type,
            size=len(documents.manifest),
            digest=digest_of(documents.manifest),
            artifact_type=manifest.artifact_type or manifest.config.media_type,
        )
        self._append(DataType.OCI_BLOB, documents.config)
        self._append(DataType.OCI_BLOB, documents.manifest)
        self._append(DataType.OCI_ROOT_INDEX, pack_index([entry]))
        self._writer.commit()
        return WrittenImage(path=self._target, digest=entry.digest, size=self._writer.end)

    def _append(self, kind: DataType, data: bytes) -> None:
        self._writer.append(kind, data, extra=digest_of(data).encode())


def pack_index(entries: Sequence[OciDescriptor]) -> bytes:
    """Return the root index that names ``entries``."""
    return dump(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_INDEX,
            "manifests": [entry.to_json() for entry in entries],
        }
    )
