"""SIF files that lie somewhere: ``oras://``, ``http(s)://``, ``library://``, a local path.

They are taken as they are, not converted.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from backend.copying import copy_range
from backend.errors import FormatError, NetworkError, NotFoundError
from backend.escape import one_line
from backend.events import Phase, Resolved
from backend.masking import mask_url
from backend.oci import media
from backend.oci.digest import digest_of_range
from backend.oci.image import Descriptor, parse_manifest
from backend.registry.memory import Remembering, memory_of
from backend.registry.retry import ATTEMPTS, wait_before
from backend.registry.session import problem
from backend.sif.file import SifFile
from backend.sif.ocisifwriter import WrittenImage
from backend.sources.library import fetch_from_library
from backend.staging import StagedFile
from backend.store import Store

if TYPE_CHECKING:
    from backend.events import Report
    from backend.oci.platform import Platform
    from backend.oci.source import RawManifest, Source
    from backend.reference import Reference
    from backend.registry.access import Access
    from backend.registry.client import RegistryClient

SIF_TRANSPORTS = frozenset({"oras", "http", "https", "library", "file"})
_SIF_LAYERS = frozenset({media.SIF_LAYER, "appliciation/vnd.sylabs.sif.layer.tar"})
"""The second is what SingularityCE wrote in its first years, letter by letter."""


async def fetch_sif(
    reference: Reference,
    access: Access,
    *,
    platform: Platform,
    cache: Path,
    report: Report,
    offline: bool = False,
) -> Path:
    """Return the SIF file that ``reference`` names, from the cache where that is known.

    Args:
        reference: Of one of :data:`SIF_TRANSPORTS`.
        access: How to get at registries and the library.
        platform: Which one, where there are several.
        cache: The cache's folder.
        report: Gets the progress.
        offline: Use the cache and no network; it knows artifacts in registries by their names.

    Raises:
        FormatError: What is there is no SIF file.
        NotFoundError: It is not there, or offline not in the cache.
        BackendError: It cannot be had.
    """
    memory = memory_of(cache)
    match reference.transport:
        case "oras" if offline:
            path = await _from_registry(memory, reference, cache, report)
        case "http" | "https" | "library" if offline:
            hint = "leave --offline out"
            raise NotFoundError(
                f"{one_line(str(reference))} cannot be had without a network", hint=hint
            )
        case "oras":
            async with access.client() as client:
                source = Remembering(client, memory)
                path = await _from_registry(source, reference, cache, report)
        case "library":
            path = await fetch_from_library(
                reference, access, platform=platform, cache=cache, report=report
            )
        case "http" | "https":
            async with access.client() as client:
                path = await _from_web(client, reference.path, cache, report)
        case _:
            path = Path(reference.path)
    with SifFile(path):
        return path


def copy_sif(source: Path, target: Path, *, overwrite: bool) -> WrittenImage:
    """Copy a SIF file, sharing its blocks where the file system can.

    Raises:
        ExistsError: ``target`` exists and may not be replaced.
        SpaceError: The disk is full.
    """
    with SifFile(source) as sif, StagedFile(target, overwrite=overwrite) as file:
        copy_range(sif.fileno(), file.fd, start=0, size=sif.size, at=0)
        digest = digest_of_range(file.fd, 0, sif.size)
        file.commit()
        return WrittenImage(path=target, digest=digest, size=sif.size)


async def _from_registry(source: Source, reference: Reference, cache: Path, report: Report) -> Path:
    """Fetch a SIF that was pushed as an artifact."""
    raw = await source.fetch_manifest(reference)
    layer = sif_layer(raw, reference)
    report(Resolved(reference=str(reference), digest=raw.digest, platform="", total=layer.size))
    return await Store(cache).fetch(source, reference, layer, role="sif", index=0, report=report)


def sif_layer(raw: RawManifest, reference: Reference) -> Descriptor:
    """Return the one layer of an artifact that is a SIF file.

    Raises:
        FormatError: The manifest is of something else.
    """
    layers = () if raw.is_index else parse_manifest(raw.data, raw.media_type).layers
    if len(layers) != 1 or layers[0].media_type not in _SIF_LAYERS:
        docker = str(reference).replace("oras://", "docker://", 1)
        raise FormatError(f"{reference} holds no SIF file", hint=f"try {docker}")
    return layers[0]


async def _from_web(client: RegistryClient, url: str, cache: Path, report: Report) -> Path:
    """Download a file of which nothing is known beforehand; it is fetched each time.

    Raises:
        NotFoundError: There is none.
        NetworkError: The connection failed more often than we try.
    """
    target = cache / "downloads" / f"{hashlib.sha256(url.encode()).hexdigest()}.sif"
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    attempt, state = 1, _Download()
    with StagedFile(target, overwrite=True, mode=0o600) as file:
        while True:
            try:
                await _receive(client, url, file.fd, state, report)
                break
            except NetworkError as error:
                wait = wait_before(error, attempt)
                if wait is None:
                    raise
                attempt += 1
                report(Phase(name=f"attempt {attempt} of {ATTEMPTS}", done=state.done))
                await asyncio.sleep(wait)
        file.commit()
    report(Phase(name="download", done=state.done, total=state.done, state="done"))
    return target


class _Download:
    """How far a download has come, and of which version of the file."""

    def __init__(self) -> None:
        self.done = 0
        self.version = ""


async def _receive(
    client: RegistryClient, url: str, fd: int, state: _Download, report: Report
) -> None:
    headers = {}
    if state.done and state.version:
        headers = {"Range": f"bytes={state.done}-", "If-Range": state.version}
    async with client.session.transport.open("GET", url, headers) as response:
        if response.status_code not in {200, 206}:
            raise await problem(response, mask_url(url))
        if response.status_code == 200:
            state.done = 0
            os.ftruncate(fd, 0)
            etag = response.headers.get("etag", "")
            state.version = "" if etag.startswith("W/") else etag
        length = response.headers.get("content-length", "")
        total = state.done + int(length) if length.isdecimal() else 0
        async for chunk in response.aiter_raw():
            os.pwrite(fd, chunk, state.done)
            state.done += len(chunk)
            report(Phase(name="download", done=state.done, total=total))
