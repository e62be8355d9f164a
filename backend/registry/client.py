"""A client that reads from registries, by the OCI distribution specification 1.1.

Digests are over the bytes received.  A request that fails in passing is made again (see
:mod:`backend.registry.retry`), except for blobs, whose reader knows how far it has come.
Where ``registries.conf`` names mirrors, they are asked first; the blobs of an image come
from where its manifest came.
"""

from __future__ import annotations

import logging
import re
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlencode

from backend.errors import (
    BackendError,
    FormatError,
    NetworkError,
    NotFoundError,
    RegistryError,
    VerificationError,
)
from backend.escape import one_line
from backend.oci import media
from backend.oci.digest import digest_of, parse_digest
from backend.oci.image import parse_index
from backend.oci.json import load
from backend.oci.source import RawManifest, RemoteImage, document_type, resolve, verify
from backend.reference import Reference
from backend.registry.registries import Registries
from backend.registry.session import Session, problem
from backend.registry.transport import host_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path
    from types import TracebackType

    import httpx

    from backend.oci.image import Descriptor
    from backend.oci.platform import Platform
    from backend.registry.credentials import Credentials
    from backend.registry.registries import Place
    from backend.registry.session import RateLimit
    from backend.registry.transport import Transport

__all__ = ["RawManifest", "RegistryClient", "RemoteImage"]

_log = logging.getLogger(__name__)

_PAGE = 1000
_MAX_NAMES = 1_000_000
_MAX_PAGE_BYTES = 8 << 20
_NO_SUCH_INTERFACE = frozenset({400, 405, 501})
"""Answers of registries to an address that they do not know, besides 404."""

_LOST = "the image is damaged there: its owner has to push it again"
_UNDISTRIBUTED = "its licence keeps this layer out of registries; ask the image's owner for it"
_NEXT = re.compile(r'<([^<>]+)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)


class RegistryClient:
    """Reads from registries; an async context manager that owns the connections.

    Args:
        credentials: Where logins are found.
        plain_http: Talk HTTP.  Registries on this machine get it without asking, when they
            do not speak HTTPS.
        transport: The connections; made when None.
        registries: Mirrors and blocks; none when None.

    Attributes:
        session: For requests that this class has no method for.
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        plain_http: bool = False,
        transport: Transport | None = None,
        registries: Registries | None = None,
    ) -> None:
        self.session = Session(credentials=credentials, plain_http=plain_http, transport=transport)
        self._registries = registries or Registries()
        self._found_at: dict[str, Reference] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.session.__aexit__(kind, value, trace)

    def rate_limit(self, registry: str) -> RateLimit | None:
        """Return what a registry said of its limit with its last answer, if it did."""
        return self.session.rate_limits.get(registry)

    def comes_from(self, reference: Reference) -> str:
        """Return the registry that is asked first for an image, which may be a mirror.

        Raises:
            UsageError: The registry is blocked.
        """
        return self._registries.places(reference)[0].reference.registry

    async def tags(self, reference: Reference) -> tuple[str, ...]:
        """Return the tags of a repository, in the registry's order.

        Raises:
            NotFoundError: There is no such repository.
            AuthenticationError: We are not let in.
            NetworkError: The registry cannot be reached, or answers with something else.
        """
        there = await self._home(reference)
        path = f"/v2/{there.repository}/tags/list"
        what = f"tags of {there.name}"
        found = await self._list(there.registry, path, "tags", pull_scope(there), what)
        return tuple(dict.fromkeys(found))

    async def repositories(self, registry: str) -> tuple[str, ...]:
        """Return the repositories that a registry lists, by ``/v2/_catalog``.

        Raises:
            NotFoundError: It does not list them, as most public registries.
            BackendError: As :meth:`tags`.
        """
        await self.admit(Reference(transport="docker", registry=registry))
        what = f"list of repositories at {registry}"
        found = await self._list(
            registry, "/v2/_catalog", "repositories", "registry:catalog:*", what
        )
        return tuple(dict.fromkeys(found))

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """Return the manifest or index of a tag or digest, verified when asked by digest.

        Raises:
            NotFoundError: There is none.
            VerificationError: It has another digest than the one asked for or announced.
            FormatError: It is neither manifest nor index.
            UsageError: The registry is blocked.
            AuthenticationError: We are not let in.
            NetworkError: The registry cannot be reached, or answers with something else.
        """
        places = self._registries.places(reference)
        for place in places[:-1]:
            try:
                return await self._fetch_manifest(reference, place)
            except BackendError as error:
                _log.info("mirror %s: %s", place.reference.registry, error)
        return await self._fetch_manifest(reference, places[-1])

    async def admit(self, reference: Reference) -> None:
        """Do what ``registries.conf`` says of a registry before it is written to or asked itself.

        Its mirrors, and the other place that it may name for an image, are for pulls only.

        Raises:
            UsageError: The registry is blocked.
            NetworkError: It cannot be reached.
        """
        if self._registries.places(reference)[-1].insecure:
            await self.session.accept_insecure(reference.registry)

    async def _home(self, reference: Reference) -> Reference:
        """Return where an image is kept, mirrors left aside."""
        return await self._enter(self._registries.places(reference)[-1])

    async def _enter(self, place: Place) -> Reference:
        """Return a place's reference, once its registry may be talked to."""
        if place.insecure:
            await self.session.accept_insecure(place.reference.registry)
        return place.reference

    async def _fetch_manifest(self, reference: Reference, place: Place) -> RawManifest:
        there = await self._enter(place)
        try:
            headers, data = await self.session.read(
                there.registry,
                f"/v2/{there.repository}/manifests/{quote(there.version, safe=':')}",
                scope=pull_scope(there),
                what=str(there),
                accept=", ".join(media.ACCEPT),
            )
        except NotFoundError as error:
            error.hint = f"its tags: sifdeck tags docker://{there.name}"
            raise
        if reference.digest:
            verify(data, reference.digest)
        else:
            _verify_announced(data, headers.get("docker-content-digest", ""))
        declared = headers.get("content-type", "").partition(";")[0].strip().lower()
        _check_is_json(data, declared, there)
        self._found_at[reference.name] = there
        return RawManifest(
            data=data,
            media_type=document_type(data, declared),
            digest=reference.digest or digest_of(data),
        )

    async def find_digest(self, reference: Reference) -> str:
        """Return the digest of a tag by ``HEAD``, which counts against no rate limit.

        Returns:
            "" when there is no such tag, or the registry does not say.

        Raises:
            AuthenticationError: We are not let in.
            NetworkError: The registry cannot be reached.
        """
        there = await self._home(reference)
        target = f"/v2/{there.repository}/manifests/{quote(there.version, safe=':')}"
        headers = {"Accept": ", ".join(media.ACCEPT)}
        scope = pull_scope(there)
        async with self.session.open(
            "HEAD", there.registry, target, scope=scope, headers=headers
        ) as response:
            found: str = response.headers.get("docker-content-digest", "")
            return found if response.status_code == 200 else ""

    async def resolve(self, reference: Reference, platform: Platform) -> RemoteImage:
        """Return the image that ``reference`` means on ``platform``.

        Raises:
            NotFoundError: There is none, or none for the platform; the hint says what there is.
            BackendError: As :meth:`fetch_manifest`.
        """
        return await resolve(self, reference, platform)

    async def stream_blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> AsyncGenerator[bytes]:
        """Yield a blob's bytes from ``offset`` on, in one request, not verified.

        Raises:
            NotFoundError: There is no such blob.
            VerificationError: The registry's blob has another size.
            AuthenticationError: We are not let in.
            NetworkError: The connection failed; ``transient`` says whether to go on trying.
        """
        there = self._found_at.get(reference.name, reference)
        target = f"/v2/{there.repository}/blobs/{descriptor.digest}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        scope = pull_scope(there)
        async with self.session.open(
            "GET", there.registry, target, scope=scope, headers=headers
        ) as response:
            what = f"blob {descriptor.digest} of {there.name}"
            async with aclosing(blob_bytes(response, descriptor, offset, what=what)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def local_file(self, descriptor: Descriptor) -> Path | None:  # noqa: ARG002  (protocol)
        """Return None: what a registry has is not here."""
        return None

    async def referrers(
        self, reference: Reference, artifact_type: str = ""
    ) -> tuple[Descriptor, ...]:
        """Return what refers to an image: signatures, SBOMs, attestations.

        A registry without the referrers interface is asked for the tag that stands in for it.

        Args:
            reference: With a digest.
            artifact_type: Only what is of this type; registries need not heed it.

        Raises:
            BackendError: As :meth:`tags`.
        """
        there = await self._home(reference)
        digest = reference.digest or digest_of(b"")
        path = f"/v2/{there.repository}/referrers/{digest}"
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        what = f"referrers of {there}"
        found: list[Descriptor] = []
        try:
            async for data in self._pages(
                there.registry, f"{path}{query}", pull_scope(there), what, accept=media.OCI_INDEX
            ):
                found += parse_index(data).manifests
                if len(found) > _MAX_NAMES:
                    raise FormatError(f"the {what} are more than {_MAX_NAMES:,}")
        except (NotFoundError, RegistryError) as error:
            if isinstance(error, RegistryError) and error.status not in _NO_SUCH_INTERFACE:
                raise
            tag = digest.replace(":", "-")
            try:
                raw = await self.fetch_manifest(replace(reference, tag=tag, digest=None))
            except NotFoundError:
                return ()
            return parse_index(raw.data).manifests
        return tuple(found)

    async def _list(
        self, registry: str, path: str, member: str, scope: str, what: str
    ) -> list[str]:
        """Return an array of strings that comes in pages."""
        found: list[str] = []
        async for data in self._pages(registry, f"{path}?n={_PAGE}", scope, what):
            names = load(data, what).get(member)
            found += [name.text() for name in names.items()] if names else []
            if len(found) > _MAX_NAMES:
                raise FormatError(f"the {what} are more than {_MAX_NAMES:,}")
        return found

    async def _pages(
        self,
        registry: str,
        target: str,
        scope: str,
        what: str,
        *,
        accept: str = "application/json",
    ) -> AsyncGenerator[bytes]:
        """Yield documents joined by Link headers; a circle of them ends."""
        path, seen = target.partition("?")[0], set()
        while target and target not in seen:
            seen.add(target)
            headers, data = await self.session.read(
                registry, target, scope=scope, what=what, accept=accept, limit=_MAX_PAGE_BYTES
            )
            yield data
            target = _next_target(headers.get("link", ""), path)


async def blob_bytes(
    response: httpx.Response, descriptor: Descriptor, offset: int, *, what: str
) -> AsyncGenerator[bytes]:
    """Yield a blob from ``offset`` on out of the answer to a request with that Range.

    A server may ignore the Range; what we have already is then passed over.

    Raises:
        NotFoundError: There is no such blob.
        VerificationError: It has another size there.
        NetworkError: It is another part, or cannot be had.
    """
    if response.status_code == 416:
        raise wrong_size(descriptor, offset)
    if response.status_code not in {200, 206}:
        error = await problem(response, what)
        if isinstance(error, NotFoundError):
            error.hint = _UNDISTRIBUTED if descriptor.media_type in media.NOT_DISTRIBUTED else _LOST
        raise error
    skip = _bytes_to_skip(response, descriptor, offset)
    async for chunk in response.aiter_raw():
        if skip < len(chunk):
            yield chunk[skip:] if skip else chunk
        skip = max(0, skip - len(chunk))


def pull_scope(reference: Reference) -> str:
    """Return the scope of a token that may read a repository."""
    return f"repository:{reference.repository}:pull"


def wrong_size(descriptor: Descriptor, got: int) -> VerificationError:
    """Return the error for a blob that has another size than the manifest says."""
    return VerificationError(
        f"blob {descriptor.digest} has the wrong size",
        why=f"expected {descriptor.size} bytes, got {got}",
        hint="the registry, or something on the way to it, is broken; tell its administrator",
    )


def _check_is_json(data: bytes, declared: str, reference: Reference) -> None:
    """Tell a login page of a network from a broken manifest.

    Raises:
        FormatError: It is no JSON at all.
    """
    if data.lstrip()[:1] not in {b"{", b"["}:
        kind = f"it is called {one_line(declared, limit=80)}" if declared else "it has no type"
        raise FormatError(
            f"{reference.registry} answered something else than a manifest of {reference}",
            why=f"{kind}, and is no JSON",
            hint="a proxy, or a network's login page, may answer in the registry's place",
        )


def _verify_announced(data: bytes, header: str) -> None:
    """Check a manifest that was asked for by tag against the digest the registry says it has."""
    try:
        announced = parse_digest(header)
    except FormatError:
        return  # some registries send none, which is allowed
    verify(data, announced)


def _bytes_to_skip(response: httpx.Response, descriptor: Descriptor, offset: int) -> int:
    """Return how many bytes at the front of an answer we have already.

    Raises:
        VerificationError: The registry's blob has another size than the manifest says.
        NetworkError: It answers with another range than the one asked for.
    """
    starts_at = 0
    if response.status_code == 206:
        text = response.headers.get("content-range", "")
        found = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", text)
        starts_at = int(found[1]) if found else -1
        if not found or starts_at != offset:
            host = host_of(response.url)
            raise NetworkError(
                f"{host} sent another part of {descriptor.digest} than asked for",
                hint="the registry, or a proxy on the way to it, is broken; tell its administrator",
            )
    length = response.headers.get("content-length", "")
    if length.isdecimal() and starts_at + int(length) != descriptor.size:
        raise wrong_size(descriptor, starts_at + int(length))
    return offset - starts_at


def _next_target(link: str, path: str) -> str:
    """Return the path and query of the next page, or "" after the last.

    Only the query is taken from the Link header: it may not lead to another place.
    """
    found = _NEXT.search(link[:8192])
    query = found[1].partition("?")[2] if found else ""
    return f"{path}?{query}" if query else ""
