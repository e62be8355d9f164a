"""``docker-archive:FILE``: what ``docker save`` writes, as an image with an OCI manifest.

The archive has no manifest of the registry's kind, so one is made: its digests are those of
the bytes in the archive, and the same archive gives the same one.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from backend.errors import FormatError, NotFoundError
from backend.escape import one_line, quoted
from backend.oci import media
from backend.oci.digest import Digest, digest_of
from backend.oci.image import Descriptor, Manifest
from backend.oci.json import MAX_DOCUMENT, Node, dump, load
from backend.oci.source import RawManifest
from backend.reference import parse_name
from backend.sources.several import several_images

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from backend.reference import Reference
    from backend.sources.tree import Region, TarTree

_MAX_LAYERS = 1024
_LISTED = 20


class DockerArchiveSource:
    """The images in a Docker archive."""

    def __init__(self, tree: TarTree) -> None:
        self._tree = tree
        self._regions: dict[Digest, Region] = {}

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """Return a manifest for the image that the reference names, or for the only one.

        Raises:
            NotFoundError: There is none of that name.
            SeveralImagesError: There are several.
            FormatError: This is no Docker archive.
        """
        listing = self._tree.find("manifest.json")
        if listing is None:
            raise FormatError("this is no Docker archive: manifest.json is missing")
        images = load(listing.read(MAX_DOCUMENT), "manifest.json").items()
        image = self._chosen(images, reference)
        layers = image.need("Layers").texts()
        if len(layers) > _MAX_LAYERS:
            raise FormatError(f"the image has {len(layers)} layers; at most {_MAX_LAYERS} are read")
        manifest = Manifest(
            media_type=media.OCI_MANIFEST,
            config=self._describe(image.need("Config").text(), media.OCI_CONFIG),
            layers=tuple(self._describe(name, "") for name in layers),
        )
        raw = dump(manifest.to_json())
        return RawManifest(data=raw, media_type=media.OCI_MANIFEST, digest=digest_of(raw))

    async def stream_blob(
        self,
        reference: Reference,  # noqa: ARG002  (digests are enough)
        descriptor: Descriptor,
        offset: int = 0,
    ) -> AsyncGenerator[bytes]:
        """Yield a blob's bytes from ``offset`` on."""
        for chunk in self._regions[descriptor.digest].chunks(offset):
            yield chunk

    def local_file(self, descriptor: Descriptor) -> Path | None:  # noqa: ARG002  (protocol)
        """Return None: nothing in an archive is a file of its own."""
        return None

    def _chosen(self, images: list[Node], reference: Reference) -> Node:
        found = [one for one in images if self._is_meant(one, reference)]
        names = [tag for one in images for tag in _tags(one)]
        there = ", ".join(one_line(tag, limit=80) for tag in names[:_LISTED])
        why = f"it holds {there or 'no names'}"
        if not found:
            raise NotFoundError(f"there is no {reference}", why=why)
        if len(found) > 1:
            choices = dict(self._choice(one, reference) for one in found)
            raise several_images(reference, choices, why=why)
        return found[0]

    def _is_meant(self, image: Node, reference: Reference) -> bool:
        if reference.transport != "docker-archive":
            return True  # the daemon was asked for one image
        if reference.digest:
            return self._identity(image) == reference.digest
        if not reference.tag:
            return True
        tags = _tags(image)
        wanted = str(parse_name(reference.tag))
        return reference.tag in tags or wanted in {str(parse_name(tag)) for tag in tags}

    def _choice(self, image: Node, reference: Reference) -> tuple[Reference, str]:
        """Return what means an image alone, and the names it has."""
        tags, identity = _tags(image), self._identity(image)
        if tags:
            return replace(reference, tag=tags[0], digest=None), identity[:19]
        return replace(reference, tag="", digest=identity), "(no name)"

    def _identity(self, image: Node) -> Digest:
        """Return the digest of an image's configuration, which is Docker's image ID."""
        name = image.need("Config").text()
        region = self._tree.find(name)
        if region is None:
            raise _lacking(name)
        return digest_of(region.read(MAX_DOCUMENT))

    def _describe(self, name: str, media_type: str) -> Descriptor:
        region = self._tree.find(name)
        if region is None:
            raise _lacking(name)
        hasher = hashlib.sha256()
        for chunk in region.chunks():
            hasher.update(chunk)
        digest = Digest(f"sha256:{hasher.hexdigest()}")
        self._regions[digest] = region
        kind = media_type or _layer_type(region)
        return Descriptor(media_type=kind, digest=digest, size=region.size)


def _layer_type(region: Region) -> str:
    head = next(region.chunks(), b"")
    if head.startswith(b"\x1f\x8b"):
        return f"{media.OCI_LAYER}+gzip"
    return f"{media.OCI_LAYER}+zstd" if head.startswith(b"\x28\xb5\x2f\xfd") else media.OCI_LAYER


def _lacking(name: str) -> FormatError:
    return FormatError(f"the archive lacks {quoted(name, limit=120)}")


def _tags(image: Node) -> tuple[str, ...]:
    found = image.get("RepoTags")
    return found.texts() if found else ()
