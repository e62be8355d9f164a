"""Who may do what: a password file, Basic and Bearer authentication.

The password file is Apache's ``htpasswd``.  Two of its formats are taken: bcrypt (``htpasswd
-B``, checked with the ``bcrypt`` package, which does nothing else and is kept by the people
who keep ``cryptography``) and ``{SHA}`` (``htpasswd -s``, checked with ``hashlib``; unsalted,
so for labs only).  Apache's MD5, crypt and plain text are refused when the file is read.

Bearer follows the token specification of Docker's distribution: a 401 names the token end
point, which is on the same server; a token is a JSON Web Token (HS256) that says user,
expiry and scopes, signed with a key that lives as long as the process.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from backend.errors import FormatError
from backend.escape import one_line
from backend.labregistry.answers import Answer, RefusedError, json_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backend.labregistry.wire import Request

Scheme = Literal["basic", "bearer"]
Action = Literal["pull", "push", "delete"]

SERVICE = "sifdeck"
_TOKEN_S = 300
"""Seconds that a token lives, as in Docker Hub's; a client gets a new one when it must."""
_MAX_USERS = 10_000
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_HASH = re.compile(
    r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}|\{SHA\}[A-Za-z0-9+/]{27}="
)
_SCOPE = re.compile(r"(repository|registry):([a-z0-9._/-]+):([a-z*,]+)")


class Users:
    """The users of a password file.

    Args:
        hashes: Password hash by user.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)
        # bcrypt is slow on purpose, and a client sends its password with each of a
        # hundred requests: what was right once is remembered, under a key of this process.
        self._key = secrets.token_bytes(32)
        self._right: set[bytes] = set()

    def __repr__(self) -> str:
        return f"Users({len(self._hashes)})"

    async def knows(self, user: str, password: str) -> bool:
        """Tell whether the password is the user's."""
        secret = f"{user}\0{password}".encode()
        seal = hmac.digest(self._key, secret, "sha256")
        if seal in self._right:
            return True
        right = await asyncio.to_thread(_matches, password, self._hashes.get(user, ""))
        if right:
            self._right.add(seal)
        return right


def parse_htpasswd(text: str) -> Users:
    """Read a password file.

    Raises:
        FormatError: A line is not ``user:hash``, or its hash is of a kind that is not taken.
    """
    hashes: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, value = line.strip().partition(":")
        if not user or not colon:
            raise FormatError(f"line {number} of the password file is not user:hash")
        if not _HASH.fullmatch(value):
            raise FormatError(
                f"line {number} of the password file: {one_line(user, limit=40)} has a hash that"
                " is neither bcrypt nor {SHA}",
                hint="make it with: htpasswd -B FILE USER",
            )
        hashes[user] = value
    if not hashes:
        raise FormatError("the password file names no user")
    if len(hashes) > _MAX_USERS:
        raise FormatError(f"the password file names more than {_MAX_USERS} users")
    return Users(hashes)


def htpasswd_line(user: str, password: str) -> str:
    """Return a line of a password file, bcrypt with few rounds: for labs, not for secrets."""
    import bcrypt

    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(5)).decode()}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a request needs.

    Attributes:
        repository: Its name; empty for the catalogue and the version check.
        action: What it does to it.
    """

    repository: str = ""
    action: Action = "pull"

    @property
    def scope(self) -> str:
        """The scope that a client should ask a token for; empty when any token will do."""
        if not self.repository:
            return ""
        actions = "pull,push" if self.action == "push" else self.action
        return f"repository:{self.repository}:{actions}"


class Access:
    """Lets requests through, or refuses them with the challenge that says how to come again.

    Args:
        users: None lets everybody in.
        scheme: How clients have to come.
    """

    def __init__(self, users: Users | None, scheme: Scheme) -> None:
        self._users = users
        self._scheme = scheme
        self._key = secrets.token_bytes(32)

    @property
    def gives_tokens(self) -> bool:
        """Whether clients come with tokens, each good for some repositories."""
        return self._users is not None and self._scheme == "bearer"

    async def check(self, request: Request, need: Need) -> None:
        """Let the request through.

        Raises:
            RefusedError: 401 with the challenge.
        """
        if self._users is None:
            return
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if self._scheme == "basic":
            if kind.lower() == "basic" and await self._user(value):
                return
            raise _unauthorized('Basic realm="sifdeck lab registry", charset="UTF-8"')
        if kind.lower() == "bearer" and self.allows(value.strip(), need):
            return
        raise _unauthorized(_bearer_challenge(request, need))

    def allows(self, token: str, need: Need) -> bool:
        """Tell whether a token is ours, still lives and covers ``need``."""
        claims = self._claims(token)
        if claims is None:
            return False
        granted = claims.get("access")
        if not need.repository or not isinstance(granted, dict):
            return True
        return need.action in granted.get(need.repository, [])

    async def token(self, request: Request) -> Answer:
        """Answer a request to the token end point (``GET /token?service=...&scope=...``).

        Raises:
            RefusedError: There are no tokens here, or the password is wrong.
        """
        if not self.gives_tokens:
            raise RefusedError(404, "UNSUPPORTED", "this registry gives no tokens")
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        user = await self._user(value) if kind.lower() == "basic" else ""
        if not user:
            raise _unauthorized('Basic realm="sifdeck lab registry", charset="UTF-8"')
        now = int(time.time())
        granted = _granted(request.scopes)
        token = self._sign({"sub": user, "iat": now, "exp": now + _TOKEN_S, "access": granted})
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        answer = {"token": token, "access_token": token, "expires_in": _TOKEN_S}
        return json_answer(answer | {"issued_at": issued}, headers=(("Cache-Control", "no-store"),))

    async def _user(self, encoded: str) -> str:
        """Return the user whose name and password these are; empty when they are wrong."""
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:  # binascii.Error and UnicodeDecodeError are of this kind
            return ""
        if self._users and colon and await self._users.knows(user, password):
            return user
        return ""

    def _sign(self, claims: dict[str, object]) -> str:
        parts = (json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        text = b".".join(map(_encode, parts))
        return b".".join((text, _encode(hmac.digest(self._key, text, "sha256")))).decode()

    def _claims(self, token: str) -> dict[str, object] | None:
        """Return what a token says, or None when it is not ours or no longer lives."""
        text, _, signature = token.encode("utf-8", "replace").rpartition(b".")
        expected = _encode(hmac.digest(self._key, text, "sha256"))
        if not hmac.compare_digest(signature, expected):
            return None
        # What we signed needs no more checks than its age.
        claims: dict[str, object] = json.loads(_decode(text.partition(b".")[2]))
        expires = claims["exp"]
        return claims if isinstance(expires, int) and expires > time.time() else None


def _granted(scopes: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the actions by repository that the scopes ask for; here everybody gets them all."""
    granted: dict[str, set[str]] = {}
    for scope in " ".join(scopes).split(" ")[:100]:
        found = _SCOPE.fullmatch(scope)
        if found and found[1] == "repository":
            actions = set(found[3].split(","))
            wanted = {"pull", "push", "delete"} if "*" in actions else actions
            granted.setdefault(found[2], set()).update(wanted)
    return {name: sorted(actions) for name, actions in granted.items()}


def _unauthorized(challenge: str) -> RefusedError:
    return RefusedError(
        401, "UNAUTHORIZED", "a login is needed", headers=(("WWW-Authenticate", challenge),)
    )


def _bearer_challenge(request: Request, need: Need) -> str:
    # The client's own word for us: right also behind a forwarded port.
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise RefusedError(400, "UNSUPPORTED", "the Host header is no host")
    realm = f"{'https' if request.secure else 'http'}://{host}/token"
    scope = f',scope="{need.scope}"' if need.scope else ""
    return f'Bearer realm="{realm}",service="{SERVICE}"{scope}'


def _matches(password: str, stored: str) -> bool:
    if stored.startswith("{SHA}"):
        digest = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
        return hmac.compare_digest(base64.b64encode(digest).decode(), stored[5:])
    import bcrypt

    # Of a longer password bcrypt looks at 72 bytes only, as Apache's program does; an
    # unknown user costs the same time as a wrong password.
    found = bcrypt.checkpw(password.encode()[:72], (stored or _NOBODY).encode())
    return found and bool(stored)


_NOBODY = "$2b$05$" + "." * 53


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(data: bytes) -> bytes:
    return base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4))
