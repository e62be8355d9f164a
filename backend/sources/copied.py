"""Copying between any two places that hold OCI images."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import UsageError
from backend.oci.source import resolve
from backend.pull import remembered_source
from backend.registry.push import open_destination
from backend.sources.siffile import SIF_TRANSPORTS, fetch_sif
from backend.sources.stored import open_artifact, open_ocisif
from backend.sources.written import LayoutDestination, archive_destination
from backend.transfer import copy_image

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from backend.events import Report
    from backend.oci.digest import Digest
    from backend.oci.platform import Platform
    from backend.oci.source import Source
    from backend.pull import PullOptions
    from backend.reference import Reference
    from backend.transfer import Destination


async def copy_between(
    origin: Reference,
    target: Reference,
    options: PullOptions,
    *,
    platform: Platform | None,
    report: Report,
) -> Digest:
    """Copy an image and return its digest.

    Args:
        origin: Where it is.
        target: In a registry, a layout or an archive.
        options: How to get at registries, and whether an archive may be replaced.
        platform: The one to copy; None for all.
        report: Gets the progress.

    Raises:
        UsageError: Nothing can be written to a place like ``target``.
        BackendError: Something went wrong on the way.
    """
    async with (
        _source(origin, target, options, report) as source,
        _destination(origin, target, options) as destination,
    ):
        if platform:
            image = await resolve(source, origin, platform)
            origin = origin.with_digest(image.digest)
        return await copy_image(source, origin, destination, target, report)


@contextlib.asynccontextmanager
async def _source(
    origin: Reference, target: Reference, options: PullOptions, report: Report
) -> AsyncIterator[Source]:
    """Give what holds the image; a SIF file goes to ``oras://`` whole, elsewhere its image."""
    if origin.transport not in SIF_TRANSPORTS:
        async with remembered_source(origin, options, report) as source:
            yield source
        return
    path = await fetch_sif(
        origin,
        options.access,
        platform=options.platform,
        cache=options.cache,
        report=report,
        offline=options.offline,
    )
    yield open_artifact(path) if target.transport == "oras" else open_ocisif(path)


@contextlib.asynccontextmanager
async def _destination(
    origin: Reference, target: Reference, options: PullOptions
) -> AsyncIterator[Destination]:
    match target.transport:
        case "docker" | "oras":
            is_same = origin.transport == "docker" and origin.registry == target.registry
            async with options.access.client() as client:
                mount = origin.repository if is_same else ""
                yield await open_destination(client, target, mount_from=mount)
        case "oci":
            yield LayoutDestination(Path(target.path))
        case "oci-archive" | "docker-archive":
            scratch = options.cache / "scratch"
            async with archive_destination(
                target, scratch=scratch, overwrite=options.overwrite
            ) as destination:
                yield destination
        case _:
            raise UsageError(f"nothing can be copied to {target.transport}")
