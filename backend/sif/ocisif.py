"""OCI-SIF: one OCI image inside one SIF file.

The layers, base first, then the configuration and the manifest are objects of type OCI.Blob;
the last object is an OCI.RootIndex, whose one image manifest leads to the others by digest.
Compatible both ways with SingularityCE 4.5: no launch script, nil UUID, no times, group 1,
a table of exactly what is needed and eight slots more, for signatures and overlays.
``backend.sif.ocisifwriter`` writes it.
"""

from __future__ import annotations

from backend.errors import FormatError
from backend.escape import one_line
from backend.oci import media
from backend.oci.digest import hasher
from backend.oci.image import parse_config, parse_index, parse_manifest
from backend.oci.json import MAX_DOCUMENT
from backend.sif.file import SifFile
from backend.sif.records import DataType
from backend.values import Value

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from pathlib import Path

    from backend.oci.digest import Digest
    from backend.oci.image import Descriptor as OciDescriptor
    from backend.oci.image import ImageConfig, Index, Manifest
    from backend.sif.records import Descriptor

COSIGN_PREFIX = "_cosign"
"""How the reference name of a signature's manifest starts in the root index."""
REFERENCE_NAME = "org.opencontainers.image.ref.name"


class LayerPlace(Value):
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


class OciSif(Value):
    """The image in an OCI-SIF file.

    Attributes:
        file: Its path, as text; a start of a container cannot afford pathlib.
        manifest: Of the one image; its digest has been verified.
        manifest_digest: Digest of ``raw_manifest``.
        raw_manifest: As stored.
        config: How to run it; its digest has been verified.
        raw_config: As stored.
        layers: Base first.
        index: The root index, which may name signatures beside the image.
        signed: Whether the file holds a signature of its descriptors (PGP, PEM).
    """

    file: str
    manifest: Manifest
    manifest_digest: Digest
    raw_manifest: bytes
    config: ImageConfig
    raw_config: bytes
    layers: tuple[LayerPlace, ...]
    index: Index
    signed: bool

    @property
    def path(self) -> Path:
        """Of the file."""
        from pathlib import Path

        return Path(self.file)

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
        file=sif.name,
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
    shown = one_line(sif.name)
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
