"""Copying between any two places that hold OCI images.

What goes from layers to layers stays what it is, byte for byte.  Docker's archives and its
daemon know tar layers only, and a native SIF has no layers, so these are converted.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from backend.convert import Target, convert_image
from backend.errors import UsageError
from backend.oci.digest import parse_digest
from backend.oci.source import resolve
from backend.pull import pull_image, remembered_source
from backend.reference import Reference
from backend.registry.push import open_destination
from backend.sif.inspection import inspect_file
from backend.sources.daemon import load_image
from backend.sources.library import push_to_library
from backend.sources.siffile import SIF_TRANSPORTS, fetch_sif
from backend.sources.stored import open_artifact, open_ocisif
from backend.sources.written import LayoutDestination, archive_destination
from backend.transfer import copy_image

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from backend.convert import Form
    from backend.events import Report
    from backend.oci.digest import Digest
    from backend.oci.platform import Platform
    from backend.oci.source import Source
    from backend.pull import PullOptions
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
        target: In a registry, a layout, an archive, a Docker daemon or a library.
        options: How to get at registries, and whether an archive may be replaced.
        platform: The one to copy; None for all, where the target can hold several.
        report: Gets the progress.

    Raises:
        UsageError: Nothing can be written to a place like ``target``.
        BackendError: Something went wrong on the way.
    """
    if target.transport == "library":
        return await _into_library(origin, target, options, report)
    if target.transport == "docker-daemon":
        return await _into_daemon(origin, target, options, platform=platform, report=report)
    if origin.transport in SIF_TRANSPORTS:
        origin = Reference(transport="file", path=str(await _fetch(origin, options, report)))
        form = _needed_form(origin, target)
        if form == "docker-archive":
            archive = Target(form=form, path=Path(target.path), tag=target.tag)
            made = await asyncio.to_thread(convert_image, origin, archive, options, report)
            return parse_digest(made.digest)
        if form == "oci":
            return await _by_a_layout(origin, target, options, report)
    async with (
        _source(origin, target, options, report) as source,
        _destination(origin, target, options) as destination,
    ):
        if platform is None and target.transport == "docker-archive":
            raw = await source.fetch_manifest(origin)
            platform = options.platform if raw.is_index else None  # it holds no more than one
        if platform:
            image = await resolve(source, origin, platform)
            origin = origin.with_digest(image.digest)
        return await copy_image(source, origin, destination, target, report)


@contextlib.asynccontextmanager
async def _source(
    origin: Reference, target: Reference, options: PullOptions, report: Report
) -> AsyncIterator[Source]:
    """Give what holds the image; a SIF file goes to ``oras://`` whole, elsewhere its image."""
    if origin.transport != "file":
        async with remembered_source(origin, options, report) as source:
            yield source
    elif target.transport == "oras":
        yield open_artifact(Path(origin.path))
    else:
        yield open_ocisif(Path(origin.path))


async def _fetch(origin: Reference, options: PullOptions, report: Report) -> Path:
    return await fetch_sif(
        origin,
        options.access,
        platform=options.platform,
        cache=options.cache,
        report=report,
        offline=options.offline,
    )


def _needed_form(file: Reference, target: Reference) -> Form | None:
    """Return what a SIF file has to be converted to, to be copied; None for nothing."""
    if target.transport == "docker-archive":
        return "docker-archive"
    if target.transport != "oras" and inspect_file(Path(file.path)).kind == "sif":
        return "oci"
    return None


async def _by_a_layout(
    origin: Reference, target: Reference, options: PullOptions, report: Report
) -> Digest:
    """Copy a native SIF as an image with one layer."""
    with _scratch(options) as folder:
        layout = Target(form="oci", path=folder / "layout", tag="image")
        await asyncio.to_thread(convert_image, origin, layout, options, report)
        made = Reference(transport="oci", path=str(layout.path), tag=layout.tag)
        return await copy_between(made, target, options, platform=None, report=report)


async def _into_library(
    origin: Reference, target: Reference, options: PullOptions, report: Report
) -> Digest:
    """Copy a SIF file into a library; of other images one is made."""
    with _scratch(options) as folder:
        if origin.transport in SIF_TRANSPORTS:
            path = await _fetch(origin, options, report)
        else:
            path = folder / "image.oci.sif"
            await asyncio.to_thread(pull_image, origin, path, options, report)
        return await push_to_library(path, target, options.access, report)


@contextlib.contextmanager
def _scratch(options: PullOptions) -> Iterator[Path]:
    """Give a folder in the cache that goes with the block."""
    place = options.cache / "scratch"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix="copy-") as folder:
        yield Path(folder)


async def _into_daemon(
    origin: Reference,
    target: Reference,
    options: PullOptions,
    *,
    platform: Platform | None,
    report: Report,
) -> Digest:
    """Copy one platform's image into a Docker daemon, by way of an archive."""
    if not target.tag:
        hint = "write docker-daemon:NAME:TAG"
        raise UsageError(f"{target} names no tag, and a daemon finds images by that", hint=hint)
    with _scratch(options) as folder:
        archive = folder / "image.tar"
        saved = Reference(
            transport="docker-archive", path=str(archive), tag=f"{target.name}:{target.tag}"
        )
        digest = await copy_between(origin, saved, options, platform=platform, report=report)
        await load_image(archive, report)
    return digest


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
            raise UsageError(
                f"nothing can be copied to {target.transport}://",
                hint="copy it to a file, and upload that; registries are docker:// and oras://",
            )
