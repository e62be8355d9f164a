"""Uploads to a registry, by the OCI distribution specification 1.1.

A blob that is there is not sent; one that another repository of the registry has is mounted;
others go in chunks, and after a cut the registry says how far it came.
"""

from __future__ import annotations

import asyncio
import functools
import re
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urljoin

import httpx

from backend.errors import (
    AuthenticationError,
    NetworkError,
    NotFoundError,
    RegistryError,
    VerificationError,
)
from backend.escape import one_line
from backend.oci.digest import hasher
from backend.registry.retry import ATTEMPTS, retrying, wait_before
from backend.registry.session import problem
from backend.registry.transport import host_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from backend.blobprogress import BlobProgress
    from backend.errors import BackendError
    from backend.oci.image import Descriptor
    from backend.oci.source import BlobSource, RawManifest
    from backend.reference import Reference
    from backend.registry.client import RegistryClient
    from backend.registry.session import Session

_CHUNK = 16 << 20
"""Bytes of one request, and of memory; some registries take no less than 5 MiB at a time."""
_OTHER_RANGE = 416
"""The answer to a chunk that does not begin where the registry's part ends."""
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


async def open_destination(
    client: RegistryClient, target: Reference, *, mount_from: str = ""
) -> RegistryDestination:
    """Return what puts images into a registry, if ``registries.conf`` does not block it.

    Args:
        client: Makes the requests.
        target: An image there.
        mount_from: A repository of the same registry that may have the blobs already.

    Raises:
        UsageError: The registry is blocked.
        NetworkError: It cannot be reached.
    """
    await client.admit(target)
    return RegistryDestination(client.session, mount_from=mount_from)


class RegistryDestination:
    """Puts images into a registry.

    Args:
        session: The requests.
        mount_from: A repository of the same registry that may have the blobs already.
    """

    def __init__(self, session: Session, *, mount_from: str = "") -> None:
        self._session = session
        self._mount_from = mount_from

    async def put_blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        source: BlobSource,
        origin: Reference,
        progress: BlobProgress,
    ) -> None:
        """Bring one blob there.

        Args:
            reference: The image it goes to.
            descriptor: Which blob.
            source: Where its bytes are.
            origin: The image there.
            progress: Gets how far it is.

        Raises:
            VerificationError: The source's bytes are not what the descriptor says.
            AuthenticationError: We may not push there.
            NetworkError: The connection failed more often than we try.
        """
        if await retrying(lambda: self._has_blob(reference, descriptor)):
            progress.tell("done", descriptor.size, note="already there")
            return
        location = await retrying(lambda: self._begin(reference, descriptor))
        if location:
            again = functools.partial(self._begin_again, reference, descriptor)
            upload = _Upload(self._session, reference, descriptor, location, again)
            try:
                await upload.run(source, origin, progress)
            except NetworkError as error:
                error.kept = "what the registry has of the image, which is not sent again"
                raise
        progress.tell("done", descriptor.size, note="" if location else "mounted")

    async def put_manifest(self, reference: Reference, raw: RawManifest, version: str) -> None:
        """Put a manifest or index whose blobs are there, under a tag or its digest.

        Raises:
            RegistryError: The registry does not take it.
            AuthenticationError: We may not push there.
            NetworkError: It cannot be reached.
        """
        target = f"/v2/{reference.repository}/manifests/{quote(version, safe=':')}"

        async def put() -> None:
            async with self._session.open(
                "PUT",
                reference.registry,
                target,
                scope=push_scope(reference),
                headers={"Content-Type": raw.media_type},
                content=raw.data,
            ) as response:
                if response.status_code not in {200, 201, 202}:
                    error = await _problem(response, reference)
                    if response.status_code in {400, 415}:
                        error.hint = "it may take: push --layer-format tar, or an oras:// address"
                    raise error
                _check_digest(response, raw.digest)

        await retrying(put)

    async def _has_blob(self, reference: Reference, descriptor: Descriptor) -> bool:
        target = f"/v2/{reference.repository}/blobs/{descriptor.digest}"
        async with self._session.open(
            "HEAD", reference.registry, target, scope=push_scope(reference)
        ) as response:
            if response.status_code == 200:
                return True
            if response.status_code != 404:
                raise await _problem(response, reference)
            return False

    async def _begin_again(self, reference: Reference, descriptor: Descriptor) -> str:
        """Return the address of a new upload after one was lost; "" when it was complete."""
        if await self._has_blob(reference, descriptor):
            return ""
        return await self._begin(reference, descriptor)

    async def _begin(self, reference: Reference, descriptor: Descriptor) -> str:
        """Begin an upload and return its address; "" when the blob could be mounted."""
        query, scope = "", push_scope(reference)
        if self._mount_from and self._mount_from != reference.repository:
            query = f"?{urlencode({'mount': descriptor.digest, 'from': self._mount_from})}"
            scope += f" repository:{self._mount_from}:pull"
        target = f"/v2/{reference.repository}/blobs/uploads/{query}"
        async with self._session.open(
            "POST", reference.registry, target, scope=scope, headers={"Content-Length": "0"}
        ) as response:
            if response.status_code == 201:
                return ""
            if response.status_code != 202:
                raise await _problem(response, reference)
            return _next_location(response, str(response.url))


class _Upload:
    """One upload that has begun.

    Args:
        session: The requests.
        reference: The image it belongs to.
        descriptor: Of the blob.
        location: Where the upload goes on.
        again: Begins another upload when the registry has forgotten this one; gives its
            address, or "" when the blob is there.
    """

    def __init__(
        self,
        session: Session,
        reference: Reference,
        descriptor: Descriptor,
        location: str,
        again: Callable[[], Awaitable[str]],
    ) -> None:
        self._session = session
        self._reference = reference
        self._descriptor = descriptor
        self._location = location
        self._again = again
        self._done = 0

    async def run(self, source: BlobSource, origin: Reference, progress: BlobProgress) -> None:
        """Send everything, go on after cuts, and have the registry check the digest."""
        attempt = 1
        while self._location:
            before = self._done
            try:
                await self._send(source, origin, progress)
                await self._finish()
            except (NetworkError, NotFoundError) as error:
                attempt = 1 if self._done > before else attempt
                wait = self._wait(error, attempt)
                if wait is None:
                    raise
                attempt += 1
                note = f"{error.message}; attempt {attempt} of {ATTEMPTS}"
                progress.tell("retry", self._done, note=note)
                await asyncio.sleep(wait)
                await self._go_on(error)
            else:
                return

    def _wait(self, error: NetworkError | NotFoundError, attempt: int) -> float | None:
        """Return the seconds to wait before the next try, or None when there should be none."""
        if isinstance(error, NotFoundError) or (
            isinstance(error, RegistryError) and error.status == _OTHER_RANGE
        ):
            return 0 if attempt < ATTEMPTS else None
        return wait_before(error, attempt)

    async def _go_on(self, error: NetworkError | NotFoundError) -> None:
        """Find out where an upload that was disturbed stands."""
        if isinstance(error, NotFoundError):
            self._location, self._done = await retrying(self._again), 0
        else:
            await self._ask_how_far()

    async def _send(self, source: BlobSource, origin: Reference, progress: BlobProgress) -> None:
        progress.tell("uploading", self._done)
        found = hasher(self._descriptor.digest)
        is_whole = self._done == 0
        async with aclosing(_chunks(source, origin, self._descriptor, self._done)) as chunks:
            async for chunk in chunks:
                found.update(chunk)
                if self._done + len(chunk) > self._descriptor.size:
                    raise _damaged(self._descriptor)
                await self._send_chunk(chunk)
                progress.tell("uploading", self._done)
        got = f"{self._descriptor.digest.partition(':')[0]}:{found.hexdigest()}"
        if self._done != self._descriptor.size or (is_whole and got != self._descriptor.digest):
            raise _damaged(self._descriptor)

    async def _send_chunk(self, chunk: bytes) -> None:
        end = self._done + len(chunk) - 1
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self._done}-{end}",
        }
        async with self._session.open(
            "PATCH",
            self._reference.registry,
            self._location,
            scope=push_scope(self._reference),
            headers=headers,
            content=chunk,
        ) as response:
            if response.status_code not in {201, 202, 204}:
                raise await _problem(response, self._reference)
            self._location = _next_location(response, self._location)
            self._done = end + 1

    async def _finish(self) -> None:
        url = httpx.URL(self._location).copy_merge_params({"digest": self._descriptor.digest})
        async with self._session.open(
            "PUT",
            self._reference.registry,
            str(url),
            scope=push_scope(self._reference),
            headers={"Content-Length": "0"},
        ) as response:
            if response.status_code not in {201, 204}:
                raise await _problem(response, self._reference)
            _check_digest(response, self._descriptor.digest)

    async def _ask_how_far(self) -> None:
        """Learn from the registry which bytes arrived; what it does not say stays as we knew it."""
        try:
            async with self._session.open(
                "GET",
                self._reference.registry,
                self._location,
                scope=push_scope(self._reference),
            ) as response:
                found = _RANGE.fullmatch(response.headers.get("range", ""))
                if response.status_code != 204 or not found:
                    return
                self._location = _next_location(response, self._location)
                # "0-0" is one byte, and also what registries say of none.
                last = int(found[1])
                self._done = min(last + 1 if last else 0, self._descriptor.size)
        except NetworkError:
            return  # the next try will tell


async def _problem(response: httpx.Response, reference: Reference) -> BackendError:
    """Return the error that an answer to a part of a push means."""
    error = await problem(response, f"the push of {reference}")
    host = host_of(response.url)
    if isinstance(error, AuthenticationError):
        return AuthenticationError(
            f"{host} does not let us push {reference}", why=error.why, hint=error.hint
        )
    if isinstance(error, NotFoundError):
        hint = "some registries want the repository, or its project, to be made there first"
        return NotFoundError(f"{host} has no place for {reference}", why=error.why, hint=hint)
    return error


def push_scope(reference: Reference) -> str:
    """Return the scope of a token that may write to a repository."""
    return f"repository:{reference.repository}:pull,push"


async def _chunks(
    source: BlobSource, origin: Reference, descriptor: Descriptor, offset: int
) -> AsyncGenerator[bytes]:
    """Yield a blob in pieces that suit a registry."""
    if offset == descriptor.size:
        return  # a registry takes a request for the bytes after the last for a mistake
    parts, size = [], 0
    async with aclosing(source.stream_blob(origin, descriptor, offset)) as stream:
        async for part in stream:
            parts.append(part)
            size += len(part)
            if size >= _CHUNK:
                yield b"".join(parts)
                parts, size = [], 0
    if size:
        yield b"".join(parts)


def _next_location(response: httpx.Response, current: str) -> str:
    """Return the address at which an upload goes on.

    Raises:
        RegistryError: The registry does not say.
    """
    location: str = response.headers.get("location", "")
    if not location:
        raise RegistryError(
            f"{host_of(response.url)} does not say where an upload goes on",
            status=response.status_code,
            hint="the registry is broken; tell its administrator",
        )
    return urljoin(current, location)


def _check_digest(response: httpx.Response, digest: str) -> None:
    stored = response.headers.get("docker-content-digest", digest)
    if stored.startswith("sha256:") and digest.startswith("sha256:") and stored != digest:
        raise VerificationError(
            f"{host_of(response.url)} stored something else than {digest}",
            why=f"it says {one_line(stored)}",
            hint="the registry, or something on the way to it, is broken; tell its administrator",
        )


def _damaged(descriptor: Descriptor) -> VerificationError:
    return VerificationError(
        f"blob {descriptor.digest} at the source is not what its digest says",
        hint="the file or registry that it comes from is damaged",
    )
