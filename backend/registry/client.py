"""A client for registries, by the OCI distribution specification 1.1.

Digests are over the bytes received.  A request that fails in passing is made again (see
:mod:`backend.registry.retry`), except for blobs, whose reader knows how far it has come.
"""

from __future__ import annotations

import contextlib
import re
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from backend.errors import (
    AuthenticationError,
    FormatError,
    NetworkError,
    NotFoundError,
    VerificationError,
)
from backend.escape import one_line
from backend.oci import media
from backend.oci.digest import digest_of, parse_digest
from backend.oci.json import MAX_DOCUMENT, load
from backend.oci.source import RawManifest, RemoteImage, document_type, resolve, verify
from backend.reference import DOCKER_HUB, DOCKER_HUB_HOST
from backend.registry.auth import Authorizer, refused
from backend.registry.retry import retrying
from backend.registry.transport import PlainHttpError, Transport, failure, is_loopback, read_body

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from types import TracebackType
    from typing import Self

    import httpx

    from backend.errors import BackendError
    from backend.oci.image import Descriptor
    from backend.oci.platform import Platform
    from backend.reference import Reference
    from backend.registry.credentials import Credentials

__all__ = ["RawManifest", "RegistryClient", "RemoteImage"]

_PAGE = 1000
_MAX_TAGS = 1_000_000
_MAX_PAGE_BYTES = 8 << 20
_NEXT = re.compile(r'<([^<>]+)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)


class RegistryClient:
    """Reads from registries; an async context manager that owns the connections.

    Args:
        credentials: Where logins are found.
        plain_http: Talk HTTP.  Registries on this machine get it without asking, when they
            do not speak HTTPS.
        transport: The connections; made when None.
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        plain_http: bool = False,
        transport: Transport | None = None,
    ) -> None:
        self._transport = transport or Transport()
        self._auth = Authorizer(self._transport, credentials)
        self._credentials = credentials
        self._plain_http = plain_http
        self._bases: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._transport.__aexit__(kind, value, trace)

    async def tags(self, reference: Reference) -> tuple[str, ...]:
        """Return the tags of a repository, in the registry's order.

        Raises:
            NotFoundError: There is no such repository.
            AuthenticationError: We are not let in.
            NetworkError: The registry cannot be reached, or answers with something else.
        """
        path = f"/v2/{reference.repository}/tags/list"
        found = await self._list(reference, path, "tags", what=f"the tags of {reference.name}")
        return tuple(dict.fromkeys(found))

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """Return the manifest or index of a tag or digest, verified when asked by digest.

        Raises:
            NotFoundError: There is none.
            VerificationError: It has another digest than the one asked for or announced.
            FormatError: It is neither manifest nor index.
            AuthenticationError: We are not let in.
            NetworkError: The registry cannot be reached, or answers with something else.
        """
        path = f"/v2/{reference.repository}/manifests/{quote(reference.version, safe=':')}"
        accept = ", ".join(media.ACCEPT)
        what = str(reference)
        read = partial(self._read, reference, path, accept=accept, what=what, limit=MAX_DOCUMENT)
        headers, data = await retrying(read)
        if reference.digest:
            verify(data, reference.digest)
        else:
            _verify_announced(data, headers.get("docker-content-digest", ""))
        declared = headers.get("content-type", "").partition(";")[0].strip().lower()
        return RawManifest(
            data=data,
            media_type=document_type(data, declared),
            digest=reference.digest or digest_of(data),
        )

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
        path = f"/v2/{reference.repository}/blobs/{descriptor.digest}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._open("GET", reference, path, headers=headers) as response:
            if response.status_code not in {200, 206}:
                raise await _blob_problem(response, reference, descriptor, offset)
            skip = _bytes_to_skip(response, descriptor, offset)
            async for chunk in response.aiter_raw():
                if skip < len(chunk):
                    yield chunk[skip:] if skip else chunk
                skip = max(0, skip - len(chunk))

    async def _list(self, reference: Reference, path: str, member: str, *, what: str) -> list[str]:
        """Return an array of strings that comes in pages joined by Link headers."""
        found: list[str] = []
        seen = set()
        target = f"{path}?n={_PAGE}"
        while target and target not in seen:
            seen.add(target)
            page = partial(self._read, reference, target, what=what, limit=_MAX_PAGE_BYTES)
            headers, data = await retrying(page)
            names = load(data, what).get(member)
            found += [name.text() for name in names.items()] if names else []
            if len(found) > _MAX_TAGS:
                raise FormatError(f"{what} are more than {_MAX_TAGS:,}")
            target = _next_target(headers.get("link", ""), path)
        return found

    async def _read(
        self,
        reference: Reference,
        path: str,
        *,
        what: str,
        limit: int,
        accept: str = "application/json",
    ) -> tuple[httpx.Headers, bytes]:
        """Return the headers and body of a ``GET`` that must succeed."""
        async with self._open("GET", reference, path, headers={"Accept": accept}) as response:
            if response.status_code != 200:
                raise await _problem(response, what)
            return response.headers, await read_body(response, limit)

    @contextlib.asynccontextmanager
    async def _open(
        self, method: str, reference: Reference, path: str, *, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Make one request, with the authorization that the registry asks for."""
        scope = f"repository:{reference.repository}:pull"
        registry = reference.registry
        url = await self._base(registry) + path
        for asked in (False, True):
            known = self._auth.header(registry, scope)
            async with self._transport.open(method, url, {**headers, **known}) as response:
                if response.status_code != 401 or not _same_host(response, url):
                    yield response
                    return
                if not asked:
                    await self._auth.answer(response, registry, scope)
        raise refused(registry, await self._credentials.find(registry, reference.repository))

    async def _base(self, registry: str) -> str:
        """Return scheme and host of a registry."""
        if registry not in self._bases:
            host = DOCKER_HUB_HOST if registry == DOCKER_HUB else registry
            secure, plain = f"https://{host}", f"http://{host}"
            use_plain = self._plain_http or not await self._speaks_https(host, secure)
            self._bases[registry] = plain if use_plain else secure
        return self._bases[registry]

    async def _speaks_https(self, host: str, url: str) -> bool:
        """Find out whether a registry on this machine does; all others must."""
        if not is_loopback(host.rpartition(":")[0] or host):
            return True
        try:
            async with self._transport.open("GET", f"{url}/v2/", {}):
                return True
        except PlainHttpError:
            return False


def _same_host(response: httpx.Response, url: str) -> bool:
    """Tell whether an answer is the registry's own, not that of a host it redirected to."""
    return url.startswith(f"{response.url.scheme}://{response.url.netloc.decode()}/")


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
            host = response.url.host
            raise NetworkError(f"{host} sent another part of {descriptor.digest} than asked for")
    length = response.headers.get("content-length", "")
    if length.isdecimal() and starts_at + int(length) != descriptor.size:
        raise wrong_size(descriptor, starts_at + int(length))
    return offset - starts_at


def wrong_size(descriptor: Descriptor, got: int) -> VerificationError:
    """Return the error for a blob that has another size than the manifest says."""
    return VerificationError(
        f"blob {descriptor.digest} has the wrong size",
        why=f"expected {descriptor.size} bytes, got {got}",
        hint="the registry, or something on the way to it, is broken; tell its administrator",
    )


async def _blob_problem(
    response: httpx.Response, reference: Reference, descriptor: Descriptor, offset: int
) -> BackendError:
    if response.status_code == 416:
        return wrong_size(descriptor, offset)
    return await _problem(response, f"blob {descriptor.digest} of {reference.name}")


async def _problem(response: httpx.Response, what: str) -> BackendError:
    """Return the error that an answer other than success means."""
    error = await failure(response, what)
    host = one_line(response.url.host)
    if response.status_code in {401, 403}:
        return AuthenticationError(
            f"{host} does not let us have {what}",
            why=error.why or f"it answered {response.status_code}",
            hint="check the name, and the login with 'sifdeck registry list'",
        )
    if response.status_code == 404:
        return NotFoundError(f"{host} has no {what}", why=error.why or "it answered 404")
    if response.status_code == 429:
        error.hint = "log in for a higher limit, or try again later"
    return error


def _next_target(link: str, path: str) -> str:
    """Return the path of the next page, or "" after the last.

    Only the query is taken from the Link header: it may not lead to another place.
    """
    found = _NEXT.search(link[:8192])
    query = found[1].partition("?")[2] if found else ""
    return f"{path}?{query}" if query else ""
