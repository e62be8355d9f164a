"""Answers to ``401``: the ``WWW-Authenticate`` header (RFC 7235) and access tokens.

Tokens are those of the distribution project's token specification, by ``GET`` with Basic
authentication, or by OAuth2 ``POST`` for identity tokens.  A token is kept per registry and
scope until shortly before it expires.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import httpx

from backend.errors import AuthenticationError, NetworkError
from backend.escape import one_line
from backend.oci.json import load
from backend.registry.secret import Secret
from backend.registry.transport import failure, is_loopback, read_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backend.registry.credentials import Credentials, Login
    from backend.registry.transport import Transport

_MAX_TOKEN = 1 << 20
_DEFAULT_LIFE_S = 60.0
"""What the specification says for a token that does not tell."""
_MAX_LIFE_S = 1e7
_MARGIN_S = 10.0
"""A token is not used in its last seconds: the clock runs while the request does."""

_TELL = "the registry is not set up well; tell its administrator"

_TOKEN68 = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # RFC 7230's token
_SCHEME = re.compile(rf"[\s,]*({_TOKEN68})(?:[ \t]+|(?=,)|$)")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN68})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way in that a server offers: ``basic`` or ``bearer``, in lower case, and its words."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    value: Secret
    expires_at: float
    """In seconds of the monotonic clock."""


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Return the challenges of one or more WWW-Authenticate headers joined by commas."""
    found: list[Challenge] = []
    place = 0
    header = header[:8192]
    while scheme := _SCHEME.match(header, place):
        place = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, place):
            place = parameter.end()
            quoted, plain = parameter[2], parameter[3]
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(parameter[1].lower(), value)
        found.append(Challenge(scheme=scheme[1].lower(), parameters=parameters))
    return tuple(found)


class Authorizer:
    """Knows what to send as ``Authorization``, and learns it from the answers ``401``.

    Args:
        transport: For the requests to token servers.
        credentials: Where logins are found.
    """

    def __init__(self, transport: Transport, credentials: Credentials) -> None:
        self._transport = transport
        self._credentials = credentials
        self._tokens: dict[tuple[str, str], _Token] = {}
        self._basic: dict[tuple[str, str], Secret] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    def header(self, registry: str, scope: str) -> dict[str, str]:
        """Return the headers to send with a request, as far as we know by now."""
        basic = self._basic.get((registry, _repository(scope)))
        if basic:
            return {"Authorization": basic.reveal()}
        token = self._tokens.get((registry, scope))
        if token and token.expires_at > time.monotonic():
            return {"Authorization": f"Bearer {token.value.reveal()}"}
        return {}

    async def answer(self, response: httpx.Response, registry: str, scope: str) -> None:
        """Obtain what a ``401`` asks for, so that :meth:`header` has it.

        Of several requests that a token's end hits at once, one fetches the next token.

        Raises:
            AuthenticationError: We have nothing to offer, or it was refused.
            NetworkError: The token server cannot be reached.
        """
        sent = response.request.headers.get("authorization")
        async with self._locks.setdefault((registry, scope), asyncio.Lock()):
            if sent == self.header(registry, scope).get("Authorization"):
                self._forget(registry, scope)
                await self._learn(response, registry, scope)

    async def _learn(self, response: httpx.Response, registry: str, scope: str) -> None:
        offers = parse_challenges(",".join(response.headers.get_list("www-authenticate")))
        login = await self._credentials.find(registry, _repository(scope))
        for offer in offers:
            if offer.scheme == "bearer" and "realm" in offer.parameters:
                try:
                    token = await self._fetch_token(response.url, offer, scope, login)
                except _RefusedError as error:
                    raise refused(registry, login, self._credentials.troubles) from error
                self._tokens[registry, scope] = token
                return
            if offer.scheme == "basic" and login and login.kind == "password":
                self._basic[registry, _repository(scope)] = Secret(login.basic())
                return
        raise refused(registry, login, self._credentials.troubles)

    def _forget(self, registry: str, scope: str) -> None:
        """Drop what a registry no longer accepts: its clock, not ours, ends a token."""
        self._basic.pop((registry, _repository(scope)), None)
        self._tokens.pop((registry, scope), None)

    async def _fetch_token(
        self, origin: httpx.URL, offer: Challenge, scope: str, login: Login | None
    ) -> _Token:
        if login and login.kind == "registry":
            return _Token(value=login.secret, expires_at=float("inf"))
        realm = _realm(origin, offer.parameters["realm"])
        wanted = [("service", offer.parameters.get("service", ""))]
        wanted += [("scope", one) for one in scope.split()]
        query: list[tuple[str, str | int | float | bool | None]] = [
            (key, value) for key, value in wanted if value
        ]
        asked = time.monotonic()
        if login and login.kind == "identity":
            return await self._post(realm, query, login, asked)
        headers = {"Authorization": login.basic()} if login else {}
        if login and login.username:
            query.append(("account", login.username))
        url = str(realm.copy_merge_params(query))
        async with self._transport.open("GET", url, headers) as response:
            return await _read_token(response, asked)

    async def _post(
        self, realm: httpx.URL, query: Sequence[tuple[str, object]], login: Login, asked: float
    ) -> _Token:
        """Exchange an identity token, as ``docker login`` stores it, for an access token."""
        form = [*query, ("grant_type", "refresh_token"), ("client_id", "sifdeck")]
        form.append(("refresh_token", login.secret.reveal()))
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        content = urlencode(form).encode()
        async with self._transport.open("POST", str(realm), headers, content) as response:
            return await _read_token(response, asked)


def refused(
    registry: str, login: Login | None, troubles: Sequence[str] = ()
) -> AuthenticationError:
    """Return the error for a registry that does not let us in.

    Args:
        registry: Host and port.
        login: What was tried; None when none was found.
        troubles: What kept logins from being found.
    """
    host = one_line(registry)
    if login is None:
        return AuthenticationError(
            f"{host} wants a login, and none was found for it",
            why="; ".join(troubles),
            hint=f"sifdeck registry login docker://{host}",
        )
    return AuthenticationError(
        f"{host} refuses the login of {one_line(login.username) or 'the stored token'}",
        why=f"it was found in {login.source}",
        hint=f"sifdeck registry login docker://{host}",
    )


class _RefusedError(Exception):
    """A token server does not like our login, or that we have none."""


async def _read_token(response: httpx.Response, asked: float) -> _Token:
    if response.status_code in {400, 401, 403}:
        raise _RefusedError
    if response.status_code != 200:
        raise await failure(response, "a request for a token")
    root = load(await read_body(response, _MAX_TOKEN), "the token server's answer")
    # "access_token" is OAuth2's name of the same thing.
    text = (root.get("token") or root.need("access_token")).text()
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise NetworkError(f"{response.url.host} sent a token that cannot be one", hint=_TELL)
    seconds = _life(root.object().get("expires_in"))
    return _Token(value=Secret(text), expires_at=asked + max(seconds - _MARGIN_S, seconds / 2))


def _life(said: object) -> float:
    """Return the seconds for which a token is good; servers write what they like."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return _DEFAULT_LIFE_S
    return float(said) if 0 < said < _MAX_LIFE_S else _DEFAULT_LIFE_S


def _realm(origin: httpx.URL, text: str) -> httpx.URL:
    """Return a token server's address.

    Raises:
        NetworkError: It is none, or would take the password off HTTPS.
    """
    try:
        realm = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise NetworkError(
            f"{origin.host} names a token server that is no address", hint=_TELL
        ) from error
    if realm.scheme not in {"http", "https"} or not realm.host:
        raise NetworkError(f"{origin.host} names a token server that is no address", hint=_TELL)
    if realm.scheme == "http" and origin.scheme == "https" and not is_loopback(realm.host):
        raise NetworkError(
            f"{origin.host} sends us to a token server without HTTPS",
            why=f"the password would go to {one_line(realm.host)} for all to read",
            hint=_TELL,
        )
    return realm


def _repository(scope: str) -> str:
    """Return the repository of a scope such as ``repository:group/name:pull``, the first one."""
    kind, _, rest = scope.partition(" ")[0].partition(":")
    return rest.rpartition(":")[0] if kind == "repository" else ""
