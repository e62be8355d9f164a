"""What the cache remembers of registries: documents by digest, and what tags meant.

A :class:`Remembering` source passes everything on to another one and keeps what it sees; a
:class:`Memory` gives the same answers later without a network.  Documents are blobs of the
store like any other, so their digest is checked when they are used; a tag is a small file
that holds a digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from backend.errors import FormatError, NotFoundError, SpaceError
from backend.oci.digest import Digest, parse_digest
from backend.oci.json import MAX_DOCUMENT
from backend.oci.source import RawManifest, document_type, verify
from backend.staging import StagedFile
from backend.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from backend.oci.image import Descriptor
    from backend.oci.source import Source
    from backend.reference import Reference

_CHUNK = 1 << 20


class Memory:
    """A source of images that reads the cache only.

    Args:
        store: Where the blobs are.
        folder: Where the tags are; need not exist.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """Return a manifest or index that was seen before.

        Raises:
            NotFoundError: It was not, or has been cleaned away.
            VerificationError: The file in the cache is damaged.
        """
        digest = reference.digest or self._tag(reference)
        data = _read(self._store.blob_path(digest))
        if data is None:
            raise _unknown(reference)
        verify(data, digest)
        return RawManifest(data=data, media_type=document_type(data, ""), digest=digest)

    async def stream_blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> AsyncGenerator[bytes]:
        """Yield the bytes of a blob in the cache.

        Raises:
            NotFoundError: It is not there.
        """
        try:
            file = self._store.blob_path(descriptor.digest).open("rb")
        except OSError as error:
            raise _unknown(reference) from error
        with file:
            file.seek(offset)
            while chunk := file.read(_CHUNK):
                yield chunk

    def local_file(self, descriptor: Descriptor) -> Path | None:
        """Return the blob's file in the cache, or None when it is not there."""
        return (
            self._store.blob_path(descriptor.digest) if self._store.has(descriptor.digest) else None
        )

    def keep(self, reference: Reference, raw: RawManifest) -> None:
        """Remember a document, and that the reference's tag means it."""
        self._write(self._store.blob_path(raw.digest), raw.data)
        if not reference.digest:
            self._write(self.tag_file(reference), raw.digest.encode())

    def tag_file(self, reference: Reference) -> Path:
        """Return the file that holds the digest which the reference's tag means."""
        name = f"{reference.name}:{reference.tag}"
        return self._folder / hashlib.sha256(name.encode()).hexdigest()

    def _tag(self, reference: Reference) -> Digest:
        text = _read(self.tag_file(reference))
        if text is None:
            raise _unknown(reference)
        try:
            return parse_digest(text.decode("ascii", "replace"))
        except FormatError as error:
            raise _unknown(reference) from error

    def _write(self, path: Path, data: bytes) -> None:
        if _read(path) == data:
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with StagedFile(path, overwrite=True, mode=0o644) as staged:
            os.write(staged.fd, data)
            staged.commit()


def memory_of(cache: Path) -> Memory:
    """Return what the cache in a folder remembers."""
    return Memory(Store(cache), cache / "tags")


class Remembering:
    """A source that keeps in ``memory`` what another one answers."""

    def __init__(self, source: Source, memory: Memory) -> None:
        self._source = source
        self._memory = memory

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """Return what the other source returns, with its errors."""
        raw = await self._source.fetch_manifest(reference)
        with contextlib.suppress(OSError, SpaceError):  # a courtesy: the cache may be read-only
            self._memory.keep(reference, raw)
        return raw

    def stream_blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> AsyncGenerator[bytes]:
        """Yield what the other source yields, with its errors."""
        return self._source.stream_blob(reference, descriptor, offset)

    def local_file(self, descriptor: Descriptor) -> Path | None:
        """Return what the other source returns."""
        return self._source.local_file(descriptor)


def _read(path: Path) -> bytes | None:
    """Return a document's bytes, or None when it is not there or is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except OSError:
        return None
    return data if len(data) <= MAX_DOCUMENT else None


def _unknown(reference: Reference) -> NotFoundError:
    return NotFoundError(
        f"{reference} is not in the cache", hint="pull it once with a network, without --offline"
    )
