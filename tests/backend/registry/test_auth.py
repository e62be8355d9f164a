"""Challenges are parsed whatever they hold; realms may not take a password off HTTPS."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import NetworkError
from backend.registry.auth import Challenge, _life, _realm, parse_challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"',
            [
                (
                    "bearer",
                    {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"},
                )
            ],
        ),
        ("Basic realm=simple", [("basic", {"realm": "simple"})]),
        ('BASIC realm="with, comma"', [("basic", {"realm": "with, comma"})]),
        (r'Basic realm="a \"b\""', [("basic", {"realm": 'a "b"'})]),
        (
            'Bearer realm="r",scope="repository:a:pull,push", Basic realm="b"',
            [
                ("bearer", {"realm": "r", "scope": "repository:a:pull,push"}),
                ("basic", {"realm": "b"}),
            ],
        ),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("", []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    found = parse_challenges(header)
    assert [(one.scheme, dict(one.parameters)) for one in found] == expected


@given(st.text())
def test_any_header_parses(header: str) -> None:
    assert all(isinstance(one, Challenge) for one in parse_challenges(header))


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(300, 300), (0.5, 0.5), (None, 60), ("300", 60), (-1, 60), (0, 60), (True, 60), (1e300, 60)],
)
def test_the_life_of_a_token(said: object, seconds: float) -> None:
    """A server that does not tell, or tells nonsense, means a minute (token specification)."""
    assert _life(said) == seconds


def test_realm_keeps_the_password_on_https() -> None:
    secure, plain = httpx.URL("https://r.example/v2/"), httpx.URL("http://r.example/v2/")
    assert _realm(secure, "https://auth.example/token").host == "auth.example"
    assert _realm(plain, "http://auth.example/token").host == "auth.example"
    with pytest.raises(NetworkError, match="without HTTPS"):
        _realm(secure, "http://auth.example/token")
    for bad in ("ftp://x/y", "/relative", "https://", "http://[::1"):
        with pytest.raises(NetworkError, match="no address"):
            _realm(secure, bad)
