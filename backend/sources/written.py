"""Writing ``oci:DIR``, ``oci-archive:FILE`` and ``docker-archive:FILE``."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import FormatError, UsageError
from backend.oci import media
from backend.oci.image import Descriptor, parse_index, parse_manifest
from backend.oci.json import MAX_DOCUMENT, dump
from backend.sources.layout import REFERENCE_NAME
from backend.staging import StagedFile
from backend.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from backend.blobprogress import BlobProgress
    from backend.oci.digest import Digest
    from backend.oci.source import BlobSource, RawManifest
    from backend.reference import Reference

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class LayoutDestination:
    """Puts images into an OCI layout, beside what is there.

    Args:
        folder: Made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A layout keeps blobs as our cache does, so the cache's care for them is had for free.
        self._store = Store(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "oci-layout").exists():
            if any(folder.iterdir()):
                hint = "name a new folder, or one with a layout"
                raise UsageError(f"{folder} holds other files, and is no OCI layout", hint=hint)
            _write(folder / "oci-layout", _LAYOUT)

    async def put_blob(
        self,
        reference: Reference,  # noqa: ARG002  (one store for all images)
        descriptor: Descriptor,
        source: BlobSource,
        origin: Reference,
        progress: BlobProgress,
    ) -> None:
        """Bring one blob there, verified."""
        await self._store.fetch(
            _Streamed(source),
            origin,
            descriptor,
            role=progress.role,
            index=progress.index,
            report=progress.report,
        )

    async def put_manifest(self, reference: Reference, raw: RawManifest, version: str) -> None:
        """Write a manifest; one that is asked for by tag goes into the layout's index."""
        path = self._store.blob_path(raw.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, raw.data)
        if version == raw.digest and reference.tag:
            return
        entry = Descriptor(
            media_type=raw.media_type,
            digest=raw.digest,
            size=len(raw.data),
            annotations={REFERENCE_NAME: reference.tag} if reference.tag else {},
        )
        index = self._folder / "index.json"
        entries = []
        if index.exists():
            entries = list(parse_index(index.read_bytes()).manifests)
        kept = [
            one
            for one in entries
            if one.annotations.get(REFERENCE_NAME, "") != reference.tag
            or (not reference.tag and one.digest != raw.digest)
        ]
        document = {
            "schemaVersion": 2,
            "mediaType": media.OCI_INDEX,
            "manifests": [one.to_json() for one in (*kept, entry)],
        }
        _write(index, dump(document))
        with contextlib.suppress(OSError):
            (self._folder / "partial").rmdir()


class _Streamed:
    """A source whose files are copied: the cache would take them where they lie."""

    def __init__(self, source: BlobSource) -> None:
        self.stream_blob = source.stream_blob

    def local_file(self, descriptor: Descriptor) -> Path | None:  # noqa: ARG002  (protocol)
        """Return None, so that the bytes are asked for."""
        return None


@contextlib.asynccontextmanager
async def archive_destination(
    reference: Reference, *, scratch: Path, overwrite: bool
) -> AsyncIterator[LayoutDestination]:
    """Give a layout that is packed into the reference's archive when the block ends well.

    Args:
        reference: Of ``oci-archive:`` or ``docker-archive:``.
        scratch: Folder for the layout.
        overwrite: Whether the archive may be replaced.

    Raises:
        ExistsError: The archive is there and may not be replaced.
        FormatError: A Docker archive cannot hold what was copied.
    """
    await asyncio.to_thread(scratch.mkdir, mode=0o700, parents=True, exist_ok=True)
    with (
        StagedFile(Path(reference.path), overwrite=overwrite, mode=0o666) as file,
        tempfile.TemporaryDirectory(dir=scratch, prefix="layout-") as name,
    ):
        folder = Path(name)
        yield LayoutDestination(folder)
        await asyncio.to_thread(_pack, folder, file.fd, reference)
        file.commit()


def _pack(folder: Path, fd: int, reference: Reference) -> None:
    documents = {}
    if reference.transport == "docker-archive":
        documents["manifest.json"] = _docker_listing(folder, reference)
    with os.fdopen(os.dup(fd), "wb") as out, tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("oci-layout", "index.json"):
            documents[name] = (folder / name).read_bytes()
        for name, data in documents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        blobs = folder / "blobs"
        for path in (blobs, *sorted(blobs.glob("*")), *sorted(blobs.glob("*/*"))):
            member = tarfile.TarInfo(str(path.relative_to(folder)))
            if path.is_dir():  # some readers make no folder that has no entry
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
                continue
            member.size = path.stat().st_size
            with path.open("rb") as blob:
                archive.addfile(member, blob)


def _docker_listing(folder: Path, reference: Reference) -> bytes:
    """Return the ``manifest.json`` by which ``docker load`` finds the image."""
    entries = parse_index((folder / "index.json").read_bytes()).manifests
    raw = _blob(folder, entries[-1].digest).read_bytes()[:MAX_DOCUMENT]
    if entries[-1].media_type in media.INDEXES:
        raise FormatError("a Docker archive holds one platform", hint="choose it with --platform")
    manifest = parse_manifest(raw)
    if any(
        not layer.media_type.startswith((media.OCI_LAYER, media.DOCKER_LAYER))
        for layer in manifest.layers
    ):
        raise FormatError("a Docker archive holds tar layers only")
    listing = {
        "Config": str(_blob(folder, manifest.config.digest).relative_to(folder)),
        "RepoTags": [reference.tag] if reference.tag else [],
        "Layers": [str(_blob(folder, one.digest).relative_to(folder)) for one in manifest.layers],
    }
    return json.dumps([listing]).encode()


def _blob(folder: Path, digest: Digest) -> Path:
    return Store(folder).blob_path(digest)


def _write(path: Path, data: bytes) -> None:
    with StagedFile(path, overwrite=True, mode=0o666) as file:
        os.write(file.fd, data)
        file.commit()
