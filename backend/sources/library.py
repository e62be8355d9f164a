"""``library://``: SIF files in a Sylabs library.

An image is ENTITY/COLLECTION/NAME; each of its files is known by its hash, and tags name one
file for each processor.  Requests and answers are JSON, as in scs-library-client's version 1
for reading and version 2 for uploads, which go to an address that the library gives.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import quote

from backend.blobprogress import BlobProgress
from backend.errors import AuthenticationError, NotFoundError, UsageError
from backend.events import Resolved
from backend.masking import mask_url
from backend.oci import media
from backend.oci.digest import digest_of_range, parse_digest
from backend.oci.image import Descriptor
from backend.oci.json import Node, dump, load
from backend.oci.platform import host_platform
from backend.registry.client import blob_bytes
from backend.registry.retry import retrying
from backend.registry.session import problem
from backend.registry.transport import read_body
from backend.sif.file import SifFile
from backend.sif.inspection import inspect_file
from backend.sources.tree import Region
from backend.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from backend.events import Report
    from backend.oci.digest import Digest
    from backend.oci.platform import Platform
    from backend.reference import Reference
    from backend.registry.access import Access
    from backend.registry.client import RegistryClient

_MAX_ANSWER = 1 << 20
_LEVELS = (("entities", ""), ("collections", "entity"), ("containers", "collection"))
"""What an image's name is made of: the address of each, and what it calls the one above."""


async def fetch_from_library(
    reference: Reference, access: Access, *, platform: Platform, cache: Path, report: Report
) -> Path:
    """Return the file of an image, whose hash is what the library says.

    Raises:
        NotFoundError: The library has no such image for the platform.
        BackendError: It cannot be had.
    """
    target = f"{_full_name(reference)}?arch={quote(platform.architecture)}"
    async with access.client() as client:
        library = _Library(client, access)
        answer = await library.find(f"/v1/images/{target}")
        if answer is None:
            raise NotFoundError(
                f"the library has no {reference} for {platform}",
                why=f"it was asked at {mask_url(access.library)}",
            )
        digest = parse_digest(answer.need("hash").text().replace("sha256.", "sha256:", 1))
        size = answer.need("size").size()
        report(
            Resolved(reference=str(reference), digest=digest, platform=str(platform), total=size)
        )
        file = Descriptor(media_type=media.SIF_LAYER, digest=digest, size=size)
        source = _RemoteFile(library, f"/v1/imagefile/{target}")
        return await Store(cache).fetch(source, reference, file, role="sif", index=0, report=report)


async def push_to_library(
    path: Path, reference: Reference, access: Access, report: Report
) -> Digest:
    """Upload a SIF file of any kind and give it a tag; return the file's digest.

    Raises:
        UsageError: The reference is no place for an image.
        AuthenticationError: There is no access token, or the library refuses it.
        FormatError: It is no SIF file.
        NetworkError: The library cannot be reached, or does not take the file.
    """
    if len(reference.name.split("/")) != len(_LEVELS) or reference.digest:
        hint = "write library://ENTITY/COLLECTION/NAME[:TAG]"
        raise UsageError(f"{reference} is no place for an image", hint=hint)
    if not access.library_token:
        hint = "get one from the library's pages, and set SIFDECK_LIBRARY_TOKEN to it"
        raise AuthenticationError("a library takes images only with an access token", hint=hint)
    architecture = inspect_file(path).config.platform.architecture or host_platform().architecture
    with SifFile(path) as sif:
        digest, size = digest_of_range(sif.fileno(), 0, sif.size), sif.size
    file = Descriptor(media_type=media.SIF_LAYER, digest=digest, size=size)
    progress = BlobProgress(file, "sif", 0, report)
    async with access.client() as client:
        library = _Library(client, access)
        container = await library.make_place(reference.name)
        image = await library.make_image(reference.name, container, digest, architecture)
        if image.object().get("uploaded") is True:
            progress.tell("done", size, note="already there")
        else:
            await library.upload(image.need("id").text(), path, file, progress)
        tag = {"Arch": architecture, "Tag": reference.tag, "ImageID": image.need("id").text()}
        await library.ask("POST", f"/v2/tags/{container}", tag)
    return digest


class _Library:
    """Requests to a library."""

    def __init__(self, client: RegistryClient, access: Access) -> None:
        self.transport = client.session.transport
        self.base = access.library.rstrip("/")
        token = access.library_token
        self.headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}

    async def find(self, target: str) -> Node | None:
        """Return what a ``GET`` answers, or None where there is nothing."""

        async def once() -> Node | None:
            headers = self.headers | {"Accept": "application/json"}
            async with self.transport.open("GET", self.base + target, headers) as response:
                if response.status_code == 404:
                    return None
                if response.status_code != 200:
                    raise await problem(response, "an answer of the library")
                return load(await read_body(response, _MAX_ANSWER), "the answer").need("data")

        return await retrying(once)

    async def ask(self, method: str, target: str, document: Mapping[str, object]) -> Node:
        """Return what the library answers to a document."""

        async def once() -> Node:
            headers = self.headers | {"Content-Type": "application/json"}
            async with self.transport.open(
                method, self.base + target, headers, dump(document)
            ) as response:
                if response.status_code not in {200, 201, 204}:
                    raise await problem(response, "a push to the library")
                body = await read_body(response, _MAX_ANSWER)
                return load(body or b"{}", "the library's answer").get("data") or Node({}, "data")

        return await retrying(once)

    async def make_place(self, name: str) -> str:
        """Return the id of an image's container; what is missing above it is made."""
        parts = name.split("/")
        above = ""
        for depth, (kind, above_is_called) in enumerate(_LEVELS, 1):
            found = await self.find(f"/v1/{kind}/{quote('/'.join(parts[:depth]))}")
            if found is None:
                document: dict[str, object] = {"name": parts[depth - 1], "description": ""}
                if above:
                    document[above_is_called] = above
                found = await self.ask("POST", f"/v1/{kind}", document)
            above = found.need("id").text()
        return above

    async def make_image(
        self, name: str, container: str, digest: Digest, architecture: str
    ) -> Node:
        """Return the library's entry for a file, made where there is none."""
        value = digest.replace(":", ".", 1)
        where = f"/v1/images/{quote(name)}:{value}?arch={quote(architecture)}"
        return await self.find(where) or await self.ask(
            "POST", "/v1/images", {"hash": value, "description": "", "container": container}
        )

    async def upload(
        self, image: str, path: Path, file: Descriptor, progress: BlobProgress
    ) -> None:
        """Send a file to the address that the library gives for it."""
        value = file.digest.partition(":")[2]
        begun = f"/v2/imagefile/{image}"
        asked = {"filesize": file.size, "sha256sum": value}
        address = (await self.ask("POST", begun, asked)).need("uploadURL").text()
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.size),
            "x-amz-content-sha256": value,
        }

        async def send() -> None:
            content = _chunks(path, file.size, progress)
            async with self.transport.open("PUT", address, headers, content) as response:
                if response.status_code not in {200, 201, 204}:
                    raise await problem(response, "the file for the library")

        await retrying(send)
        await self.ask("PUT", f"{begun}/_complete", {})
        progress.tell("done", file.size)


class _RemoteFile:
    """The download of one file."""

    def __init__(self, library: _Library, target: str) -> None:
        self._library = library
        self._target = target

    async def stream_blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> AsyncGenerator[bytes]:
        """Yield the file's bytes from ``offset`` on."""
        library = self._library
        headers = library.headers | ({"Range": f"bytes={offset}-"} if offset else {})
        async with library.transport.open("GET", library.base + self._target, headers) as response:
            what = str(reference)
            async with aclosing(blob_bytes(response, descriptor, offset, what=what)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def local_file(self, descriptor: Descriptor) -> Path | None:  # noqa: ARG002  (protocol)
        """Return None."""
        return None


async def _chunks(path: Path, size: int, progress: BlobProgress) -> AsyncGenerator[bytes]:
    done = 0
    for chunk in Region(path=path, offset=0, size=size).chunks(0):
        yield chunk
        done += len(chunk)
        progress.tell("uploading", done)


def _full_name(reference: Reference) -> str:
    """Return ``entity/collection/container:tag`` with what a short name leaves out."""
    parts = reference.name.split("/")
    if len(parts) == 1:
        parts = ["library", "default", *parts]
    elif len(parts) == 2:
        parts.insert(1, "default")
    return quote(f"{'/'.join(parts)}:{reference.tag or 'latest'}", safe="/:")
