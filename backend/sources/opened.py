"""From a reference to its :class:`~backend.oci.source.Source`."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import BackendError, UsageError
from backend.events import Note
from backend.reference import DOCKER_HUB
from backend.sources.daemon import save_image
from backend.sources.dockerarchive import DockerArchiveSource
from backend.sources.layout import LayoutSource
from backend.sources.tree import FolderTree, TarTree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from backend.events import Report
    from backend.oci.source import Source
    from backend.reference import Reference
    from backend.registry.access import Access
    from backend.registry.client import RegistryClient

_FEW_PULLS = 10


@contextlib.asynccontextmanager
async def open_source(
    reference: Reference, access: Access, *, cache: Path, report: Report
) -> AsyncIterator[Source]:
    """Give what holds the OCI image that ``reference`` names.

    Args:
        reference: An image in a registry, a layout, an archive or a daemon.
        access: How to get at registries.
        cache: The cache's folder; archives are unpacked below it for the time of the block.
        report: Gets what is told before the image is known.

    Raises:
        UsageError: The reference names a file that is no OCI image.
        BackendError: The source cannot be opened.
    """
    scratch = cache / "scratch"
    path = Path(reference.path)
    match reference.transport:
        case "docker" | "oras":
            async with access.client() as client:
                # A mirror has no such limit, and where there is one the Hub may be out of reach.
                if client.comes_from(reference) == DOCKER_HUB:
                    await tell_limit(client, reference, report)
                yield client
        case "oci":
            yield LayoutSource(FolderTree(path), is_folder=True)
        case "oci-archive":
            with await asyncio.to_thread(TarTree, path, scratch) as tree:
                yield LayoutSource(tree, is_folder=False)
        case "docker-archive":
            with await asyncio.to_thread(TarTree, path, scratch) as tree:
                yield DockerArchiveSource(tree)
        case "docker-daemon":
            scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=scratch, prefix="daemon-") as file:
                await save_image(reference, file, report)
                file.flush()
                with await asyncio.to_thread(TarTree, Path(file.name), scratch) as tree:
                    yield DockerArchiveSource(tree)
        case _:
            raise UsageError(f"{reference} is no image of layers")


async def tell_limit(client: RegistryClient, reference: Reference, report: Report) -> None:
    """Warn before a pull that a registry may refuse; asking for that counts against no limit.

    Args:
        client: For the reference's registry.
        reference: What is about to be pulled.
        report: Gets the warning.
    """
    with contextlib.suppress(BackendError):  # the pull itself will say what is wrong
        await client.find_digest(reference)
    limit = client.rate_limit(reference.registry)
    if limit is None or limit.remaining > _FEW_PULLS:
        return
    window = f" in {limit.window_s // 3600} hours" if limit.window_s >= 3600 else ""
    report(
        Note(
            level="warning",
            text=f"{reference.registry} allows {limit.remaining} more of {limit.limit} pulls"
            f"{window}; a login raises the limit: sifdeck registry login "
            f"docker://{reference.registry}",
        )
    )
