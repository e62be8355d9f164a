"""Logins: where they are found, in which order, and that nothing gives them away."""

from __future__ import annotations

import base64
import json
import os
import pickle
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import AuthenticationError, FormatError
from backend.oci.json import Node
from backend.registry.auth import refused
from backend.registry.credentials import (
    Credentials,
    Login,
    _entry_login,
    auth_files,
    given_login,
    lookup_keys,
)
from backend.registry.secret import Secret
from tests.support.helper import install_helper

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write(path: Path, entries: Mapping[str, object], **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": entries, **more}))
    return path


def entry(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


async def user(registry: str, repository: str = "", authfile: Path | None = None) -> str:
    found = await Credentials(authfile=authfile).find(registry, repository)
    return found.username if found else ""


async def test_order_of_places(
    clean_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "named.json"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    expected = [
        clean_home / ".singularity/docker-config.json",
        clean_home / ".apptainer/docker-config.json",
        tmp_path / "named.json",
        tmp_path / "run/containers/auth.json",
        clean_home / ".config/containers/auth.json",
        clean_home / ".docker/config.json",
    ]
    assert [place.path for place in auth_files()] == expected
    for number, path in reversed(list(enumerate(expected))):
        write(path, {"r.example": entry(f"file{number}", "x")})
        assert await user("r.example") == f"file{number}"
    for prefix in ("", "APPTAINER_", "SINGULARITY_", "SIFDECK_"):
        monkeypatch.setenv(f"{prefix}DOCKER_USERNAME", f"env{prefix}")
        monkeypatch.setenv(f"{prefix}DOCKER_PASSWORD", "x")
        assert await user("r.example") == f"env{prefix}"
    own = write(tmp_path / "own.json", {"r.example": entry("own", "x")})
    assert await user("r.example", authfile=own) == "own"
    assert await user("other.example", authfile=own) == "envSIFDECK_"


async def test_path_before_host(clean_home: Path) -> None:
    entries = {
        "r.example": entry("host", "x"),
        "r.example/group": entry("group", "x"),
        "r.example/group/tool": entry("tool", "x"),
        "https://old.example/v1/": entry("old", "x"),
    }
    write(clean_home / ".docker/config.json", entries)
    assert await user("r.example", "group/tool") == "tool"
    assert await user("r.example", "group/other") == "group"
    assert await user("r.example", "elsewhere") == "host"
    assert await user("old.example", "x") == "old"
    assert await user("r.example.evil", "x") == ""


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
async def test_docker_hub_has_many_names(clean_home: Path, key: str) -> None:
    write(clean_home / ".docker/config.json", {key: entry("hub", "x")})
    assert await user("docker.io", "library/ubuntu") == "hub"
    assert lookup_keys("docker.io", "library/ubuntu")[0] == "docker.io/library/ubuntu"


async def test_helpers_are_asked(
    clean_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_helper(tmp_path, "one", {"r.example": ("helped", "s")}, monkeypatch)
    install_helper(tmp_path, "all", {"q.example": ("<token>", "t")}, monkeypatch)
    config = {"credHelpers": {"r.example": "one", "x.example": "missing"}, "credsStore": "all"}
    write(clean_home / ".docker/config.json", {"z.example": entry("plain", "x")}, **config)
    assert await user("r.example", "a/b") == "helped"
    assert await user("z.example") == "plain"
    assert await user("x.example") == ""
    token = await Credentials().find("q.example")
    assert token
    assert (token.kind, token.secret) == ("identity", Secret("t"))


async def test_hostile_helper_names_are_not_run(clean_home: Path, tmp_path: Path) -> None:
    config = {"credsStore": f"../../{tmp_path}/evil; touch {tmp_path}/owned"}
    write(clean_home / ".docker/config.json", {}, **config)
    assert await user("r.example") == ""
    assert not (tmp_path / "owned").exists()


async def test_broken_files(clean_home: Path, tmp_path: Path) -> None:
    broken = clean_home / ".singularity/docker-config.json"
    broken.parent.mkdir()
    broken.write_text("{not json")
    write(clean_home / ".docker/config.json", {"r.example": entry("fine", "x")})
    assert await user("r.example") == "fine"
    with pytest.raises(AuthenticationError, match="cannot be read"):
        await user("r.example", authfile=broken)
    with pytest.raises(AuthenticationError, match="is not there"):
        await user("r.example", authfile=tmp_path / "none")


BROKEN_HELPERS = {
    "garbage": (r"printf '\377\000[{\033'; head -c 100000 /dev/zero", "is not JSON"),
    "empty": ("exit 0", "is not JSON"),
    "list": ("echo '[]'", "not an object"),
    "failing": ("printf '\\033[31mlocked' >&2; exit 3", r"status 3: \x1b[31mlocked"),
    "silent": ("sleep 600 & exec sleep 600", "took longer than"),
    "absent": ("", "is not installed"),
}


@pytest.mark.parametrize("name", BROKEN_HELPERS)
async def test_broken_helpers_are_named(
    name: str, clean_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a helper does wrong is said once, keeps nothing else from being found, and is why."""
    script, word = BROKEN_HELPERS[name]
    if script:
        path = tmp_path / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if name == "silent":
        monkeypatch.setattr("backend.registry.helpers._TIMEOUT_S", 0.5 if name == "silent" else 100)
    file = write(
        clean_home / ".docker/config.json",
        {"r.example": entry("fine", "x")},
        credsStore=name,
    )
    credentials = Credentials()
    found = await credentials.find("r.example")
    assert found
    assert found.username == "fine"
    assert await credentials.find("q.example") is None
    (trouble,) = credentials.troubles
    assert trouble.startswith(f"{file}: ")
    assert word in trouble
    error = refused("q.example", None, credentials.troubles)
    assert (error.why, error.hint) == (trouble, "sifdeck registry login docker://q.example")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("// a comment\n{}", "not JSON"),
        ('{"auths":', "not JSON"),
        ("[1]", "not an object"),
        ("null", "not an object"),
        ('{"auths": []}', "auths is not an object"),
        ('{"auths": {"r.example": {"auth": 5}}}', "not a string"),
        ('{"auths": {"r.example": {"auth": "%%%"}}}', "not base64"),
        ('{"credHelpers": []}', "credHelpers is not an object"),
        ('{"credsStore": 5}', "credsStore is not a string"),
        ('{"credsStore": "../x"}', "no name of a credential helper"),
    ],
)
async def test_files_that_are_none_are_named(text: str, word: str, clean_home: Path) -> None:
    file = clean_home / ".docker/config.json"
    file.parent.mkdir()
    file.write_text(text)
    credentials = Credentials()
    assert await credentials.find("r.example") is None
    (trouble,) = credentials.troubles
    assert trouble.startswith(str(file))
    assert word in trouble


@pytest.mark.parametrize(
    "key",
    [
        *("r.example", "r.example/", "https://r.example", "http://r.example/"),
        *("https://r.example/v1/", "https://r.example/v2", "http://r.example/v2/"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
async def test_forms_that_others_write(key: str, encoding: str, clean_home: Path) -> None:
    file = clean_home / ".docker/config.json"
    file.parent.mkdir()
    wrapped = entry("alice", "x" * 60)["auth"]
    wrapped = f"{wrapped[:40]}\r\n{wrapped[40:]}\n"
    text = json.dumps({"auths": {key: {"auth": wrapped, "email": None}, "r.examples": {}}})
    file.write_text(text, encoding=encoding)
    found = await Credentials().find("r.example", "a/b")
    assert found == Login(username="alice", secret=Secret("x" * 60), source=str(file))


@given(
    st.dictionaries(
        st.sampled_from(["auth", "identitytoken", "username", "password"]),
        st.one_of(st.text(), st.integers(), st.none()),
        max_size=4,
    )
)
def test_any_entry_is_a_login_or_an_error(members: dict[str, object]) -> None:
    try:
        found = _entry_login(Node(members, "x"), source="test")
    except FormatError:
        return
    assert found is None or isinstance(found.secret, Secret)


def test_a_secret_is_never_shown() -> None:
    login = given_login("alice", "planted")
    shown = [repr(login), str(login), f"{login.secret}", f"{login.secret:>9}", "%s" % login.secret]  # noqa: UP031
    assert not any("planted" in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(login.secret)
