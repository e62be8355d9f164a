"""HTTP to registries: connections, redirects, time limits, errors in our words.

Redirects are followed here rather than by httpx, because they decide who sees a
credential: ``Authorization`` stays with the scheme, host and port that it was made for, and
no redirect leads from HTTPS to HTTP.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import re
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import httpcore
import httpx

from backend.errors import FormatError, NetworkError, RegistryError
from backend.escape import one_line, quoted
from backend.registry.tls import Trust, certificate_folders, make_context, plain_context
from backend.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
    from typing import Self

_log = logging.getLogger(__name__)
# Below WARNING these print addresses with signatures in them, and headers.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

MAX_REDIRECTS = 5
MAX_ERROR_BODY = 64 << 10
"""Bytes that are read of an answer that is an error."""

_CONNECT_S = 15.0
_SILENCE_S = 30.0
"""Seconds without a byte after which a connection counts as dead."""

_LATER = "check this machine's network, and try again: what came is not fetched again"
_MAYBE_HTTPS = "it may want HTTPS: leave --no-https out; an address then begins with https://"
_BROKEN = "the registry is not set up well; tell its administrator"

_FOREVER_S = 1e9
"""Some thirty years: no server means more, and such a number can still be told."""

_READ_SIZE = 512 << 10
"""httpcore reads 64 KiB at a time, which costs three times the CPU for large layers."""

Content: TypeAlias = "bytes | AsyncIterable[bytes] | None"


class PlainHttpError(NetworkError):
    """A server does not speak TLS on a port where it should."""


class Transport:
    """The connections of one operation, to any number of hosts.  An async context manager.

    Args:
        trust: Which certificates are accepted.
        silence_s: Seconds without a byte after which a request fails.
    """

    def __init__(self, *, trust: Trust | None = None, silence_s: float = _SILENCE_S) -> None:
        httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = _READ_SIZE
        self._timeout = httpx.Timeout(silence_s, connect=min(silence_s, _CONNECT_S))
        self._trust = trust or Trust()
        self._clients: dict[tuple[str, str, bool, bool], httpx.AsyncClient] = {}
        self._insecure: set[str] = set()
        self._reached: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.aclose()

    def accept_any_certificate(self, netloc: str) -> None:
        """Do what ``insecure = true`` in registries.conf asks for ``host:port``."""
        self._insecure.add(netloc)

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Mapping[str, str], content: Content = None
    ) -> AsyncIterator[httpx.Response]:
        """Make a request, follow redirects, and give the answer with its body still to be read.

        Raises:
            NetworkError: No answer came, or a redirect leads where we do not go.
        """
        response = await self._send(method, httpx.URL(url), dict(headers), content)
        try:
            with translated(response.url):
                yield response
        finally:
            await response.aclose()

    async def _send(
        self, method: str, url: httpx.URL, headers: dict[str, str], content: Content
    ) -> httpx.Response:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send_once(method, url, headers, content)
            location = response.headers.get("location", "")
            followed = response.status_code in {301, 302, 303, 307, 308}
            if not followed or not location or method not in {"GET", "HEAD"}:
                return response
            await response.aclose()
            target = _redirect_target(url, location)
            if _origin(target) != _origin(url):
                headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
            url = target
        raise NetworkError(
            f"{host_of(url)} redirects more than {MAX_REDIRECTS} times", hint=_BROKEN
        )

    async def _send_once(
        self, method: str, url: httpx.URL, headers: dict[str, str], content: Content
    ) -> httpx.Response:
        netloc = url.netloc.decode("ascii")
        if url.port is not None and not 0 < url.port < 1 << 16:
            raise NetworkError(f"there is no port {url.port}, which {host_of(url)} names")
        _log.debug("%s %s://%s%s", method, url.scheme, netloc, url.path)
        client = self._client(url, insecure=netloc in self._insecure)
        request = client.build_request(method, url, headers=headers, content=content)
        with translated(url, transient=url.host in self._reached):
            response = await client.send(request, stream=True)
        self._reached.add(url.host)
        _log.debug("%s answered %d", url.host, response.status_code)
        return response

    def _client(self, url: httpx.URL, *, insecure: bool) -> httpx.AsyncClient:
        """Return the client for an address; loopback never goes through a proxy."""
        netloc = url.netloc.decode("ascii")
        own = netloc if certificate_folders(netloc) else ""
        key = (url.scheme, own, is_loopback(url.host), insecure)
        if key not in self._clients:
            context = plain_context()
            if url.scheme == "https":
                trust = replace(self._trust, insecure=self._trust.insecure or insecure)
                context = make_context(trust, netloc)
            self._clients[key] = httpx.AsyncClient(
                verify=context,
                timeout=self._timeout,
                trust_env=not is_loopback(url.host),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
                headers={"User-Agent": f"sifdeck/{__version__}", "Accept-Encoding": "identity"},
            )
        return self._clients[key]


def host_of(url: httpx.URL) -> str:
    """Return host and port, fit for an error's sentence."""
    return one_line(url.netloc.decode("ascii", "replace"))


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, judged by its name alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def read_body(response: httpx.Response, limit: int) -> bytes:
    """Return the body as it was sent.

    Raises:
        FormatError: It is longer than ``limit`` bytes.
    """
    parts: list[bytes] = []
    total = 0
    async for part in response.aiter_raw():
        total += len(part)
        if total > limit:
            raise FormatError(
                f"{host_of(response.url)} sent more than {limit} bytes where less belong"
            )
        parts.append(part)
    return b"".join(parts)


async def failure(response: httpx.Response, what: str) -> RegistryError:
    """Return the error that an answer means; ``what`` was asked for, such as ``the tag x``."""
    status, host = response.status_code, host_of(response.url)
    wait_s = retry_after(response.headers.get("retry-after", ""))
    return RegistryError(
        f"{host} answered {status} {one_line(response.reason_phrase)} to {what}",
        status=status,
        why=await _explanation(response),
        hint=_advice(status, wait_s) or (_MAYBE_HTTPS if _is_plain_400(response) else ""),
        retry_after_s=wait_s,
    )


def _is_plain_400(response: httpx.Response) -> bool:
    """Tell whether an answer is what a server with TLS says to plain HTTP."""
    return response.status_code == 400 and response.url.scheme == "http"


def _advice(status: int, wait_s: float | None) -> str:
    """Return what can be done about an answer that is an error."""
    if wait_s:
        from humanize import naturaldelta

        return f"try again in {naturaldelta(wait_s)}, as it asks"
    if status == 429:
        return "try again later"
    if status >= 500:
        return "the registry is in trouble: try again later, or tell its administrator"
    return ""


def retry_after(value: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, which also may be a date."""
    if value.strip().isdecimal():
        return min(float(value), _FOREVER_S)
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max(0.0, (when - datetime.now(UTC)).total_seconds()), _FOREVER_S)


@contextlib.contextmanager
def translated(url: httpx.URL, *, transient: bool = True) -> Iterator[None]:
    """Turn httpx's errors into ours, while talking to the host of ``url``.

    Args:
        url: For the sentence.
        transient: Whether a refused connection may be a passing trouble.
    """
    name = host_of(url)
    try:
        yield
    except httpx.TimeoutException as error:
        raise NetworkError(
            f"{name} does not answer",
            why="no byte came in time",
            hint=_LATER,
            transient=transient,
        ) from error
    except httpx.ConnectError as error:
        raise _connect_error(name, error, transient=transient) from error
    except httpx.ProxyError as error:
        hint = "HTTPS_PROXY names the proxy, NO_PROXY the hosts that are reached without it"
        raise NetworkError(
            f"the proxy refuses to reach {name}", why=_text(error), hint=hint
        ) from error
    except ssl.SSLError as error:  # after the handshake, where httpx does not expect it
        hint = "it may want a client certificate; see containers-certs.d(5)"
        why = without_codes(_text(error))
        raise NetworkError(f"{name} ends the TLS connection", why=why, hint=hint) from error
    except httpx.RemoteProtocolError as error:
        if "location header" in str(error):
            raise NetworkError(
                f"{name} redirects to no address", why=_text(error), hint=_BROKEN
            ) from error
        raise _cut(name, error) from error
    except httpx.TransportError as error:
        raise _cut(name, error) from error
    except (httpx.InvalidURL, httpx.StreamError) as error:
        raise NetworkError(
            f"{name} sent an address that is none", why=_text(error), hint=_BROKEN
        ) from error


def _cut(host: str, error: Exception) -> NetworkError:
    return NetworkError(
        f"the connection to {host} was cut", why=_text(error), hint=_LATER, transient=True
    )


def _connect_error(host: str, error: httpx.ConnectError, *, transient: bool) -> NetworkError:
    why = _first_cause(error)
    if "CERTIFICATE_VERIFY_FAILED" in why:
        hint = "trust its authority with --ca-cert FILE, or see 'sifdeck registry test'"
        return NetworkError(
            f"the certificate of {host} is not trusted", why=without_codes(why), hint=hint
        )
    if "WRONG_VERSION_NUMBER" in why or "RECORD_LAYER" in why:
        hint = "if it speaks plain HTTP, add --no-https; an address then begins with http://"
        return PlainHttpError(f"{host} does not speak HTTPS", why=without_codes(why), hint=hint)
    hint = "check the name and the port, and this machine's network; HTTPS_PROXY names a proxy"
    return NetworkError(f"no connection to {host}", why=why, hint=hint, transient=transient)


def without_codes(text: str) -> str:
    """Return what OpenSSL says of an error, without the names and lines of its sources."""
    return re.sub(r"^\[[^]]*\]\s*|\s*\(_ssl\.c:\d+\)$", "", text)


def _redirect_target(url: httpx.URL, location: str) -> httpx.URL:
    """Return where a redirect leads.

    Raises:
        NetworkError: To something that is not HTTP, or from HTTPS to HTTP.
    """
    with translated(url):
        target = url.join(location)
    if target.scheme not in {"http", "https"} or not target.host:
        shown = quoted(location, limit=120)
        raise NetworkError(f"{host_of(url)} redirects to {shown}", hint=_BROKEN)
    if url.scheme == "https" and target.scheme == "http":
        raise NetworkError(
            f"{host_of(url)} redirects from HTTPS to HTTP at {host_of(target)}",
            why="what comes over HTTP can be changed on the way",
            hint=_BROKEN,
        )
    return target


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def _explanation(response: httpx.Response) -> str:
    """Return what the body of an error says, in one bounded line."""
    try:
        body = await read_body(response, MAX_ERROR_BODY)
    except (FormatError, httpx.HTTPError):
        return ""
    try:
        errors: Any = json.loads(body).get("errors", ())
        found = [str(one.get("message") or one.get("code") or "") for one in errors]
    except (ValueError, AttributeError, TypeError, RecursionError):
        kind = response.headers.get("content-type", "")
        found = [body.decode("utf-8", "replace")] if kind.startswith("text/plain") else []
    return one_line("; ".join(text for text in found if text).strip(), limit=300)


def _first_cause(error: Exception) -> str:
    """Return what the system said; asyncio's own words for it say only that all tries failed."""
    cause: BaseException = error
    while found := cause.__cause__ or cause.__context__:
        cause = found
    if isinstance(cause, socket.gaierror):
        return one_line(cause.strerror or str(cause))
    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(cause, ssl.SSLError) or not number or number < 0:
        return _text(error)
    return os.strerror(number)


def _text(error: Exception) -> str:
    return one_line(str(error) or type(error).__name__, limit=300)
