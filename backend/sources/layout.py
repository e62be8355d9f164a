"""``oci:DIR`` and ``oci-archive:FILE``: OCI image layouts, image specification 1.1."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from backend.errors import FormatError, NotFoundError
from backend.escape import one_line
from backend.oci import media
from backend.oci.digest import Digest, digest_of
from backend.oci.image import parse_index
from backend.oci.json import MAX_DOCUMENT
from backend.oci.source import RawManifest, document_type, verify
from backend.sources.several import several_images

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from backend.oci.image import Descriptor
    from backend.reference import Reference
    from backend.sources.tree import Region, Tree

REFERENCE_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_LISTED = 20
"""Images that an error names."""


class LayoutSource:
    """The images in an OCI layout.

    Args:
        tree: Its files.
        is_folder: Whether blobs are files of their own, which can be used where they are.
    """

    def __init__(self, tree: Tree, *, is_folder: bool) -> None:
        self._tree = tree
        self._is_folder = is_folder

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """Return the manifest or index that tag or digest name; without, the only one.

        Raises:
            NotFoundError: There is none.
            SeveralImagesError: There are several.
            VerificationError: It does not have its digest.
        """
        if reference.digest and self._tree.find(_blob_name(reference.digest)):
            return self._document(reference.digest, "")
        raw = self._index()
        entries = list(parse_index(raw).manifests)
        if reference.version:
            wanted = reference.version
            found = [one for one in entries if wanted in (one.digest, *_names(one))]
        else:
            found = entries
        if not found:
            raise NotFoundError(f"there is no {reference}", why=_listing(entries))
        if len({one.digest for one in found}) > 1:
            if not any(_names(one) for one in found) and all(one.platform for one in found):
                # One image for several platforms, without an index of its own.
                return RawManifest(data=raw, media_type=media.OCI_INDEX, digest=digest_of(raw))
            raise several_images(reference, _choices(reference, found), why=_listing(found))
        return self._document(found[0].digest, found[0].media_type)

    async def stream_blob(
        self,
        reference: Reference,  # noqa: ARG002  (there is one store for all)
        descriptor: Descriptor,
        offset: int = 0,
    ) -> AsyncGenerator[bytes]:
        """Yield a blob's bytes from ``offset`` on, not verified.

        Raises:
            NotFoundError: There is no such blob.
        """
        for chunk in self._blob(descriptor.digest).chunks(offset):
            yield chunk

    def local_file(self, descriptor: Descriptor) -> Path | None:
        """Return the file of a blob in a folder."""
        return self._blob(descriptor.digest).path if self._is_folder else None

    def _index(self) -> bytes:
        region = self._tree.find("index.json")
        if region is None or self._tree.find("oci-layout") is None:
            raise FormatError("this is no OCI layout: index.json or oci-layout is missing")
        return region.read(MAX_DOCUMENT)

    def _document(self, digest: Digest, declared: str) -> RawManifest:
        data = self._blob(digest).read(MAX_DOCUMENT)
        verify(data, digest)
        return RawManifest(data=data, media_type=document_type(data, declared), digest=digest)

    def _blob(self, digest: Digest) -> Region:
        region = self._tree.find(_blob_name(digest))
        if region is None:
            hint = "the layout is damaged; copy the image anew"
            raise NotFoundError(f"the layout has no blob {digest}", hint=hint)
        return region


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _names(entry: Descriptor) -> tuple[str, ...]:
    """Return the names of an image, long and short."""
    found = [entry.annotations.get(key, "") for key in (REFERENCE_NAME, _CONTAINERD_NAME)]
    tags = [name.rpartition(":")[2] for name in found if ":" in name]
    return tuple(name for name in (*found, *tags) if name)


def _choices(reference: Reference, entries: list[Descriptor]) -> dict[Reference, str]:
    """Return what means each image alone: a name that no other has, else its digest."""
    images = {entry.digest: entry for entry in entries}
    names = Counter(name for entry in images.values() for name in set(_names(entry)))
    choices = {}
    for digest, entry in images.items():
        own = next((name for name in _names(entry) if names[name] == 1), "")
        one = replace(reference, tag=own, digest=None if own else digest)
        about = f"{digest[:19]}  {entry.platform}" if entry.platform else digest[:19]
        choices[one] = about
    return choices


def _listing(entries: list[Descriptor]) -> str:
    """Return a sentence on what there is."""
    listed = [
        f"{one_line((_names(one) or ('(no name)',))[0], limit=80)} {one.digest}"
        + (f" {one.platform}" if one.platform else "")
        for one in entries[:_LISTED]
    ]
    more = f", and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return f"it holds {', '.join(listed)}{more}" if listed else "it is empty"
