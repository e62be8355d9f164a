"""Authorized requests to registries: the layer between HTTP and the distribution API."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from backend.errors import AuthenticationError, NetworkError, NotFoundError
from backend.escape import one_line
from backend.oci.json import MAX_DOCUMENT
from backend.reference import DOCKER_HUB, DOCKER_HUB_HOST
from backend.registry.auth import Authorizer, refused
from backend.registry.retry import retrying
from backend.registry.transport import (
    PlainHttpError,
    Transport,
    failure,
    host_of,
    is_loopback,
    read_body,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    import httpx

    from backend.errors import BackendError
    from backend.registry.credentials import Credentials
    from backend.registry.transport import Content

_DOCUMENT_S = 300.0
"""Seconds for one document: a server that sends a byte now and then is never silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """How many pulls a registry still allows, by its own word.

    Attributes:
        limit: Pulls in a window.
        remaining: What is left of them.
        window_s: Seconds of a window; 0 while unknown.
    """

    limit: int
    remaining: int
    window_s: int = 0


class Session:
    """Requests to any number of registries; an async context manager that owns the connections.

    Args:
        credentials: Where logins are found.
        plain_http: Talk HTTP.  Registries on this machine get it without asking, when they
            do not speak HTTPS.
        transport: The connections; made when None.

    Attributes:
        rate_limits: By registry, as far as one has told.
    """

    def __init__(
        self, *, credentials: Credentials, plain_http: bool, transport: Transport | None
    ) -> None:
        self.transport = transport or Transport()
        self.rate_limits: dict[str, RateLimit] = {}
        self._auth = Authorizer(self.transport, credentials)
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
        await self.transport.__aexit__(kind, value, trace)

    @contextlib.asynccontextmanager
    async def open(
        self,
        method: str,
        registry: str,
        target: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
    ) -> AsyncIterator[httpx.Response]:
        """Make one request, with the authorization that the registry asks for.

        Args:
            method: Of HTTP.
            registry: As it stands in a reference.
            target: Path and query; or a whole address, which gets no login unless it is the
                registry's.
            scope: What the request needs, as ``repository:NAME:pull``, several joined by
                spaces; "" for nothing.
            headers: More of them.
            content: The body.

        Raises:
            AuthenticationError: We have no login, or it was refused.
            NetworkError: No answer came.
        """
        base = await self.base(registry)
        url = base + target if target.startswith("/") else target
        is_ours = url.startswith(f"{base}/")
        for asked in (False, True):
            known = self._auth.header(registry, scope) if is_ours else {}
            sent = {**(headers or {}), **known}
            async with self.transport.open(method, url, sent, content) as response:
                self._note_limit(registry, response)
                if response.status_code != 401 or not _same_host(response, base):
                    yield response
                    return
                if not asked:
                    await self._auth.answer(response, registry, scope)
        repository = scope.partition(" ")[0].partition(":")[2].rpartition(":")[0]
        login = await self._credentials.find(registry, repository)
        raise refused(registry, login, self._credentials.troubles)

    async def read(
        self,
        registry: str,
        target: str,
        *,
        scope: str,
        what: str,
        accept: str = "application/json",
        limit: int = MAX_DOCUMENT,
    ) -> tuple[httpx.Headers, bytes]:
        """Return headers and body of a ``GET``, made again when it fails in passing.

        Args:
            registry: As it stands in a reference.
            target: Path and query.
            scope: What the request needs.
            what: What is asked for, for errors: ``the tags of x``.
            accept: Media types.
            limit: Bytes that the body may have.

        Raises:
            NotFoundError: There is no such thing.
            AuthenticationError: We are not let in.
            NetworkError: The registry cannot be reached, or answers with something else.
            FormatError: The body is too long.
        """

        async def once() -> tuple[httpx.Headers, bytes]:
            headers = {"Accept": accept}
            async with self.open("GET", registry, target, scope=scope, headers=headers) as response:
                if response.status_code != 200:
                    raise await problem(response, what)
                return response.headers, await read_body(response, limit)

        async def in_time() -> tuple[httpx.Headers, bytes]:
            try:
                async with asyncio.timeout(_DOCUMENT_S):
                    return await once()
            except TimeoutError as error:
                raise NetworkError(
                    f"{one_line(registry)} takes longer than {_DOCUMENT_S:g} s for {what}",
                    hint="the registry, or the network, is too slow; try again later",
                ) from error

        return await retrying(in_time)

    async def base(self, registry: str) -> str:
        """Return scheme and host of a registry."""
        if registry not in self._bases:
            host = DOCKER_HUB_HOST if registry == DOCKER_HUB else registry
            secure, plain = f"https://{host}", f"http://{host}"
            use_plain = self._plain_http or not await self._speaks_https(host, secure)
            self._bases[registry] = plain if use_plain else secure
        return self._bases[registry]

    async def accept_insecure(self, registry: str) -> None:
        """Take any certificate from a registry, and HTTP where it does not speak HTTPS."""
        self.transport.accept_any_certificate(registry)
        if registry not in self._bases:
            try:
                async with self.transport.open("GET", f"https://{registry}/v2/", {}):
                    self._bases[registry] = f"https://{registry}"
            except PlainHttpError:
                self._bases[registry] = f"http://{registry}"

    async def _speaks_https(self, host: str, url: str) -> bool:
        """Find out whether a registry on this machine does; all others must."""
        name = host if host.startswith("[") else host.partition(":")[0]
        if not is_loopback(name.partition("]")[0]):
            return True
        try:
            async with self.transport.open("GET", f"{url}/v2/", {}):
                return True
        except PlainHttpError:
            return False

    def _note_limit(self, registry: str, response: httpx.Response) -> None:
        limit = _limit(response.headers.get("ratelimit-limit", ""))
        remaining = _limit(response.headers.get("ratelimit-remaining", ""))
        if limit and remaining:
            self.rate_limits[registry] = RateLimit(
                limit=limit[0], remaining=remaining[0], window_s=limit[1]
            )


async def problem(response: httpx.Response, what: str) -> BackendError:
    """Return the error that an answer other than success means; ``what`` was asked for."""
    error = await failure(response, what)
    host = host_of(response.url)
    if response.status_code in {401, 403}:
        return AuthenticationError(
            f"{host} does not let us have {what}",
            why=error.why or f"it answered {response.status_code}",
            hint="check the name, and the login with 'sifdeck registry list'",
        )
    if response.status_code == 404:
        return NotFoundError(f"{host} has no {what}", why=error.why or "it answered 404")
    if response.status_code == 429:
        error.hint = f"log in for a higher limit, or {error.hint}"
    return error


def _same_host(response: httpx.Response, base: str) -> bool:
    """Tell whether an answer is the registry's own, not that of a host it redirected to."""
    return f"{response.url.scheme}://{response.url.netloc.decode()}" == base


def _limit(header: str) -> tuple[int, int] | None:
    """Return (count, seconds) of a header such as ``100;w=21600``."""
    found = re.match(r"\s*(\d{1,9})(?:\s*;\s*w=(\d{1,9}))?", header)
    return (int(found[1]), int(found[2] or 0)) if found else None
