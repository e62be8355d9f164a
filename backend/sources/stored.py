"""What a SIF file holds, as it is stored: its image, or itself as an artifact (``oras://``)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from backend.errors import FormatError, NotFoundError
from backend.escape import one_line
from backend.oci import media
from backend.oci.digest import Digest, digest_of, digest_of_range
from backend.oci.image import Descriptor, Manifest, parse_manifest
from backend.oci.json import MAX_DOCUMENT, dump
from backend.oci.source import RawManifest
from backend.sif.file import SifFile
from backend.sif.ocisif import COSIGN_PREFIX, REFERENCE_NAME, image_of, is_cosign, read_blob
from backend.sources.tree import Region

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from backend.reference import Reference

_TITLE = "org.opencontainers.image.title"
_CONFIG = b"{}"
_COSIGN_TAG = re.compile(r"sha256-[0-9a-f]{64}\.(sig|att|sbom)")
_MAX_STATEMENT = 64 << 20
"""Bytes of what a signature is about: attestations hold whole lists of packages."""


class StoredImage:
    """One image whose blobs are parts of a file, or documents in memory.

    Args:
        raw: Its manifest; an attribute, too.
        regions: The blobs in files.
        documents: The other blobs.
    """

    def __init__(
        self, raw: RawManifest, regions: dict[Digest, Region], documents: dict[Digest, bytes]
    ) -> None:
        self.raw = raw
        self._regions = regions
        self._documents = documents

    async def fetch_manifest(self, reference: Reference) -> RawManifest:  # noqa: ARG002  (protocol)
        """Return the manifest of the one image."""
        return self.raw

    async def stream_blob(
        self,
        reference: Reference,  # noqa: ARG002  (there is one image)
        descriptor: Descriptor,
        offset: int = 0,
    ) -> AsyncGenerator[bytes]:
        """Yield a blob's bytes from ``offset`` on, not verified.

        Raises:
            NotFoundError: There is no such blob.
        """
        if descriptor.digest in self._documents:
            yield self._documents[descriptor.digest][offset:]
            return
        region = self._regions.get(descriptor.digest)
        if region is None:
            raise NotFoundError(f"the file has no blob {descriptor.digest}")
        for chunk in region.chunks(offset):
            yield chunk

    def local_file(self, descriptor: Descriptor) -> Path | None:  # noqa: ARG002  (protocol)
        """Return None: a blob is a part of the file only."""
        return None


def open_ocisif(path: Path) -> StoredImage:
    """Return the image in an OCI-SIF, as it is stored.

    Raises:
        FormatError: The file is no OCI-SIF, or holds a writable overlay.
    """
    with SifFile(path) as sif:
        try:
            image = image_of(sif)
        except FormatError as error:
            raise FormatError(
                "non OCI SIF images can only be pushed to OCI registries via oras://",
                hint=f"push {one_line(str(path))} to oras:// instead",
            ) from error
    if any(layer.is_overlay for layer in image.layers):
        raise FormatError(
            f"{one_line(str(path))} has a writable overlay",
            hint=f"seal it first: sifdeck overlay seal {one_line(str(path))}",
        )
    regions = {
        layer.digest: Region(path=path, offset=layer.offset, size=layer.size)
        for layer in image.layers
    }
    raw = RawManifest(
        data=image.raw_manifest,
        media_type=image.manifest.media_type,
        digest=image.manifest_digest,
    )
    return StoredImage(raw, regions, {image.manifest.config.digest: image.raw_config})


def open_artifact(path: Path) -> StoredImage:
    """Return a whole SIF file, of any kind, as the artifact that SingularityCE's oras:// knows.

    Raises:
        FormatError: It is no SIF file.
    """
    with SifFile(path) as sif:
        digest, size = digest_of_range(sif.fileno(), 0, sif.size), sif.size
    title = {_TITLE: path.name}
    manifest = Manifest(
        media_type=media.OCI_MANIFEST,
        config=Descriptor(
            media_type=media.SIF_CONFIG, digest=digest_of(_CONFIG), size=len(_CONFIG)
        ),
        layers=(
            Descriptor(media_type=media.SIF_LAYER, digest=digest, size=size, annotations=title),
        ),
    )
    data = dump(manifest.to_json())
    raw = RawManifest(data=data, media_type=media.OCI_MANIFEST, digest=digest_of(data))
    region = Region(path=path, offset=0, size=size)
    return StoredImage(raw, {digest: region}, {manifest.config.digest: _CONFIG})


def stored_signatures(path: Path) -> dict[str, StoredImage]:
    """Return cosign's images in an OCI-SIF, by the tag under which cosign looks for each.

    Raises:
        FormatError: The file is no OCI-SIF, or one of them is damaged.
    """
    found = {}
    with SifFile(path) as sif:
        for entry in image_of(sif).index.manifests:
            tag = entry.annotations.get(REFERENCE_NAME, "").removeprefix(f"{COSIGN_PREFIX}:")
            if not is_cosign(entry) or not _COSIGN_TAG.fullmatch(tag):
                continue
            data = read_blob(sif, entry, limit=MAX_DOCUMENT)
            manifest = parse_manifest(data, entry.media_type)
            documents = {
                one.digest: read_blob(sif, one, limit=_MAX_STATEMENT)
                for one in (manifest.config, *manifest.layers)
            }
            raw = RawManifest(data=data, media_type=manifest.media_type, digest=entry.digest)
            found[tag] = StoredImage(raw, {}, documents)
    return found


def require_squashfs(image: StoredImage) -> None:
    """Check what ``--layer-format squashfs`` asks for.

    Raises:
        FormatError: A layer is something else.
    """
    for layer in parse_manifest(image.raw.data, image.raw.media_type).layers:
        if layer.media_type != media.SQUASHFS_LAYER:
            raise FormatError(f"unexpected layer mediaType: {one_line(layer.media_type)}")
