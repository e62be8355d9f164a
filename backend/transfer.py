"""Images from one place to another, byte for byte: what ``push`` and ``copy`` do."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Protocol

from backend.blobprogress import BlobProgress
from backend.errors import BackendError, FormatError, UsageError
from backend.oci import media
from backend.oci.image import parse_index, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.events import Report
    from backend.oci.digest import Digest
    from backend.oci.image import Descriptor
    from backend.oci.source import BlobSource, RawManifest, Source
    from backend.reference import Reference

_AT_ONCE = 4
_MAX_DEPTH = 4


class Destination(Protocol):
    """Something that images can be put into."""

    async def put_blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        source: BlobSource,
        origin: Reference,
        progress: BlobProgress,
    ) -> None:
        """Bring one blob there, unless it is there."""

    async def put_manifest(self, reference: Reference, raw: RawManifest, version: str) -> None:
        """Put a manifest or index under a tag or its digest; what it names is there."""


async def copy_image(
    source: Source,
    origin: Reference,
    destination: Destination,
    target: Reference,
    report: Report,
) -> Digest:
    """Copy an image, or an index with all its images, and return its digest, which stays.

    Args:
        source: Where it is.
        origin: The image there.
        destination: Where it goes.
        target: What it is called there.
        report: Gets the progress.

    Raises:
        UsageError: The target names another digest than it has.
        BackendError: It cannot be read or written.
    """
    copy = _Copy(source, origin, destination, target, report)
    raw = await source.fetch_manifest(origin)
    if target.digest and target.digest != raw.digest:
        raise UsageError(
            f"{target} names another image", why=f"the digest of what is copied is {raw.digest}"
        )
    await copy.bring(raw)
    await destination.put_manifest(target, raw, target.tag or raw.digest)
    return raw.digest


class _Copy:
    """One image on its way from ``origin`` in a source to ``target`` in a destination."""

    def __init__(
        self,
        source: Source,
        origin: Reference,
        destination: Destination,
        target: Reference,
        report: Report,
    ) -> None:
        self._source = source
        self._origin = origin
        self._destination = destination
        self._target = target
        self._report = report
        self._places = asyncio.Semaphore(_AT_ONCE)
        # An index has several images; their blobs are counted together.
        self._layers, self._configs = itertools.count(), itertools.count()

    async def bring(self, raw: RawManifest, depth: int = 0) -> None:
        """Bring everything there that a manifest or index names."""
        if not raw.is_index:
            await self._bring_blobs(raw)
            return
        if depth == _MAX_DEPTH:
            raise FormatError(f"{self._origin} has indexes nested more than {_MAX_DEPTH} deep")
        for entry in parse_index(raw.data, raw.media_type).manifests:
            inner = await self._source.fetch_manifest(self._origin.with_digest(entry.digest))
            await self.bring(inner, depth + 1)
            await self._destination.put_manifest(self._target, inner, inner.digest)

    async def _bring_blobs(self, raw: RawManifest) -> None:
        """Bring the blobs of one image there, several at once."""
        manifest = parse_manifest(raw.data, raw.media_type)
        config = BlobProgress(manifest.config, "config", next(self._configs), self._report)
        layers = (one for one in _distinct(manifest.layers) if one.digest != manifest.config.digest)
        try:
            async with asyncio.TaskGroup() as group:
                for layer in layers:
                    progress = BlobProgress(layer, "layer", next(self._layers), self._report)
                    group.create_task(self._bring_blob(layer, progress))
                group.create_task(self._bring_blob(manifest.config, config))
        except BaseExceptionGroup as errors:  # "except*" wraps what it raises in a group again
            ours, others = errors.split(BackendError)
            if ours is None or others:
                raise
            raise _first(ours) from errors

    async def _bring_blob(self, descriptor: Descriptor, progress: BlobProgress) -> None:
        progress.tell("waiting", 0)
        async with self._places:
            try:
                await self._destination.put_blob(
                    self._target, descriptor, self._source, self._origin, progress
                )
            except BackendError as error:
                progress.tell("failed", progress.done, note=error.message)
                raise


def _distinct(layers: tuple[Descriptor, ...]) -> Iterator[Descriptor]:
    """Yield each layer once; images often have the same empty layer many times."""
    seen = set()
    for one in layers:
        if one.digest not in seen:
            seen.add(one.digest)
            if one.media_type not in media.NOT_DISTRIBUTED:
                yield one


def _first(errors: BaseExceptionGroup[BackendError]) -> BackendError:
    """Return the first error of a group; the others mostly follow from it."""
    for error in errors.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
