"""A token server for the registry's ``auth.token``, and the registry that trusts it.

It hands out JWTs by the distribution project's token specification: ES256, the signer's
certificate in ``x5c``.  Time limits and who may do what are for each test to choose.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.support.certificates import make_authority
from tests.support.registry import PASSWORD, USER, Registry, start_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.certificates import Authority

SERVICE, ISSUER = "test registry", "test tokens"
REFRESH_TOKEN = "refresh-me"


@dataclass(kw_only=True)
class TokenServer:
    """A running token server.

    Attributes:
        realm: Its address.
        life_s: ``expires_in`` of the tokens, and their life for the registry; the registry
            itself allows a minute more, for clocks that differ.
        anonymous: Whether strangers may pull.
        name: The member that holds the token: ``token`` or ``access_token``.
        requests: (method, scopes, who) of each request; who is "" for a stranger.
    """

    authority: Authority
    realm: str = ""
    life_s: int = 300
    anonymous: bool = True
    name: str = "token"
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    def token(self, scopes: list[str], who: str) -> str:
        """Return a signed token for some scopes; strangers may only pull."""
        now = int(time.time())
        access = []
        for one in scopes:
            kind, rest = one.split(":", 1)
            name, _, actions = rest.rpartition(":")
            allowed = [action for action in actions.split(",") if who or action == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        claims = {
            "iss": ISSUER,
            "sub": who,
            "aud": SERVICE,
            "exp": now + self.life_s,
            "nbf": now - 5,
            "iat": now,
            "jti": str(time.monotonic_ns()),
            "access": access,
        }
        pem = self.authority.certificate.read_text()
        body = "".join(line for line in pem.splitlines() if "CERTIFICATE" not in line)
        head = {"typ": "JWT", "alg": "ES256", "x5c": [body]}
        signed = f"{_encode(json.dumps(head).encode())}.{_encode(json.dumps(claims).encode())}"
        return f"{signed}.{_encode(self._sign(signed.encode()))}"

    def _sign(self, data: bytes) -> bytes:
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self.authority.key)]
        der = subprocess.run(argv, input=data, capture_output=True, check=True).stdout
        return _raw_signature(der)


@contextlib.contextmanager
def token_registry(folder: Path) -> Iterator[tuple[Registry, TokenServer]]:
    """Run a registry and its token server; USER and PASSWORD may do everything."""
    server = TokenServer(authority=make_authority(folder))
    with _serving(server):
        section = {
            "realm": server.realm,
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(server.authority.certificate),
        }
        (folder / "registry").mkdir()
        with start_registry(folder / "registry", token=section) as running:
            yield running, server


def grant(running: Registry, server: TokenServer, name: str) -> None:
    """Let the test push to a repository."""
    token = server.token([f"repository:{name}:pull,push"], USER)
    running.headers["Authorization"] = f"Bearer {token}"


@contextlib.contextmanager
def _serving(server: TokenServer) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            self._grant("GET", query, _basic_user(self.headers.get("Authorization", "")))

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            form = parse_qs(self.rfile.read(length).decode())
            known = form.get("refresh_token") == [REFRESH_TOKEN]
            self._grant("POST", form, USER if known else None)

        def _grant(self, method: str, query: dict[str, list[str]], who: str | None) -> None:
            scopes = query.get("scope", [])
            server.requests.append((method, " ".join(scopes), who or ""))
            if who is None or (not who and not server.anonymous):
                self._send(401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]})
                return
            answer = {server.name: server.token(scopes, who), "expires_in": server.life_s}
            self._send(200, answer)

        def _send(self, status: int, answer: dict[str, Any]) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        server.realm = f"http://127.0.0.1:{httpd.server_address[1]}/token"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            httpd.shutdown()
            thread.join()


def _basic_user(header: str) -> str | None:
    """Return USER, "" for a stranger, or None for a wrong password."""
    if not header:
        return ""
    wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return USER if header == f"Basic {wanted}" else None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _raw_signature(der: bytes) -> bytes:
    """Turn ECDSA's DER pair into the 64 bytes that a JWT wants (RFC 7518 section 3.4)."""
    place, numbers = 2, []
    for _ in range(2):
        length = der[place + 1]
        numbers.append(int.from_bytes(der[place + 2 : place + 2 + length], "big"))
        place += 2 + length
    return b"".join(number.to_bytes(32, "big") for number in numbers)
