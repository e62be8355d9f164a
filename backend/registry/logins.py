"""Storing, removing and listing registry logins, in the files that all tools share.

The form is that of Docker's ``config.json``; everything in a file that is not the login at
hand stays as it is.  A secret goes to the system's keyring through
``docker-credential-sifdeck``, named in the file's ``credHelpers``, or as base64 into the file.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from backend.errors import BackendError, FormatError, ToolError
from backend.escape import one_line, quoted
from backend.oci.json import load
from backend.paths import singularity_home
from backend.reference import DOCKER_HUB, DOCKER_HUB_HOST
from backend.registry import helpers
from backend.registry.credentials import (
    HUB_KEY,
    AuthFile,
    Credentials,
    Login,
    addresses_of,
    auth_files,
    environment_login,
    read_auth_file,
)
from backend.staging import StagedFile

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

OUR_HELPER = "sifdeck"
_PERMISSIONS = "see who owns it and its folder, or name another file with --authfile"

Where = Literal["keyring", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogin:
    """A login that some place holds.

    Attributes:
        key: As it stands there.
        registry: Host that the key means; "" for a login used for every registry.
        repository: Path below the host for which it counts; "" for all.
        username: "" for tokens, or when the helper does not tell.
        place: The file, or None for the environment.
        holder: Where the secret is: ``base64 in the file``, ``docker-credential-x`` ...
        expires: When the token ends, as far as it says so itself; None otherwise.
    """

    key: str
    registry: str
    repository: str
    username: str
    place: AuthFile | None
    holder: str
    expires: datetime | None = None

    @property
    def path(self) -> str:
        """The place, for people."""
        return str(self.place.path) if self.place else "environment"


def default_file() -> Path:
    """Return the file that SingularityCE and we store logins in."""
    return singularity_home() / "docker-config.json"


def key_for(registry: str, repository: str = "") -> str:
    """Return the key under which SingularityCE stores a login for ``host[/path]``."""
    if registry in {DOCKER_HUB, "index.docker.io", DOCKER_HUB_HOST} and not repository:
        return HUB_KEY
    return f"{registry}/{repository}" if repository else registry


async def store(path: Path, key: str, login: Login, where: Where) -> None:
    """Store a login.

    Args:
        path: The auth file, created when it is not there.
        key: See :func:`key_for`.
        login: With a user name and a password.
        where: In the keyring, or in the file itself.

    Raises:
        BackendError: The keyring does not answer, or the file cannot be written.
        FormatError: The file is no auth file.
    """
    document = _load(path)
    if where == "keyring":
        try:
            await helpers.store(OUR_HELPER, key, login.username, login.secret)
        except ToolError as error:
            raise BackendError(
                "the keyring does not keep the login",
                why=error.message,
                hint="store it in the file instead: --store file",
            ) from error
        _member(document, "credHelpers")[key] = OUR_HELPER
        _member(document, "auths").pop(key, None)
    else:
        encoded = login.basic().removeprefix("Basic ")
        _member(document, "auths")[key] = {"auth": encoded}
        _member(document, "credHelpers").pop(key, None)
    _save(path, document)


async def remove(path: Path, registry: str, repository: str = "") -> bool:
    """Remove a login from an auth file and from the helper it names; tell whether it was there.

    Raises:
        BackendError: The file cannot be written.
        FormatError: The file is no auth file.
    """
    document = _load(path)
    removed = False
    for key in _same_keys(registry, repository):
        program = _member(document, "credHelpers").get(key) or document.get("credsStore")
        if isinstance(program, str) and program and await _erase(program, key):
            removed = True
        for member in ("auths", "credHelpers"):
            if _member(document, member).pop(key, None) is not None:
                removed = True
    if removed:
        _save(path, document)
    return removed


async def _erase(program: str, key: str) -> bool:
    """Have a helper forget a login; one that does not work keeps the file from nothing."""
    try:
        if not await helpers.get(program, key):
            return False
        await helpers.erase(program, key)
    except (ToolError, FormatError) as error:
        _log.warning("%s", error.message)
        return False
    return True


async def stored_logins(authfile: Path | None = None) -> tuple[StoredLogin, ...]:
    """Return every login there is, in the order in which they are looked for.

    Args:
        authfile: ``--authfile``, which comes first.
    """
    found: list[StoredLogin] = []
    if authfile:
        found += await _in_file(AuthFile(path=authfile, readers="whoever is given --authfile"))
    if login := environment_login():
        found.append(
            StoredLogin(
                key="(every registry)",
                registry="",
                repository="",
                username=login.username,
                place=None,
                holder=login.source,
            )
        )
    for place in auth_files():
        found += await _in_file(place)
    return tuple(found)


def credentials_of(login: StoredLogin) -> Credentials:
    """Return credentials that look only where this login is."""
    return Credentials(places=(login.place,)) if login.place else Credentials()


def token_end(secret: str) -> datetime | None:
    """Return when a JSON web token ends, by its own unverified word; None for other secrets."""
    parts = secret.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = load(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), "the token")
        end = claims.get("exp")
        return datetime.fromtimestamp(end.size(), UTC) if end else None
    except (binascii.Error, ValueError, FormatError, OverflowError, OSError):
        return None


async def _in_file(place: AuthFile) -> list[StoredLogin]:
    try:
        root = read_auth_file(place.path)
    except (FormatError, OSError) as error:
        _log.warning("%s cannot be read: %s", one_line(str(place.path)), error)
        return []
    if root is None:
        return []
    document = root.object()
    found = {}
    for key, program in _member(document, "credHelpers").items():
        found[key] = _stored(key, place, "", f"docker-credential-{program}")
    store_name = document.get("credsStore")
    if isinstance(store_name, str) and store_name:
        for key, username in (await helpers.list_keys(store_name)).items():
            found[key] = _stored(key, place, username, f"docker-credential-{store_name}")
    for key, entry in _member(document, "auths").items():
        if key not in found and isinstance(entry, dict) and entry:
            found[key] = _stored_entry(key, place, entry)
    return list(found.values())


def _stored_entry(key: str, place: AuthFile, entry: dict[str, Any]) -> StoredLogin:
    username, secret, holder = "", "", "base64 in the file"
    for name in ("identitytoken", "registrytoken"):
        if isinstance(entry.get(name), str):
            secret, holder = entry[name], f"{name} in the file"
    if isinstance(entry.get("auth"), str):
        try:
            pair = base64.b64decode(entry["auth"]).decode()
        except (binascii.Error, ValueError):
            holder = "damaged"
        else:
            username, _, password = pair.partition(":")
            secret = secret or password
    if place.path.stat().st_mode & 0o044:
        holder += ", open to others"
    return _stored(key, place, username, holder, token_end(secret))


def _stored(
    key: str, place: AuthFile, username: str, holder: str, expires: datetime | None = None
) -> StoredLogin:
    registry, repository = split_key(key)
    return StoredLogin(
        key=key,
        registry=registry,
        repository=repository,
        username=username,
        place=place,
        holder=holder,
        expires=expires,
    )


def split_key(key: str) -> tuple[str, str]:
    """Return the (registry, repository) that a key of an auth file means."""
    bare = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    host, _, path = bare.partition("/")
    if host in {"index.docker.io", DOCKER_HUB_HOST, DOCKER_HUB}:
        host = DOCKER_HUB
    return host, "" if path in {"v1", "v2"} else path


def _same_keys(registry: str, repository: str) -> tuple[str, ...]:
    """Return the keys that stand for exactly this host and path."""
    key = key_for(registry, repository)
    if key == HUB_KEY:
        return (HUB_KEY, HUB_KEY.rstrip("/"), DOCKER_HUB, "index.docker.io", DOCKER_HUB_HOST)
    return (key, *addresses_of(key))


def _load(path: Path) -> dict[str, Any]:
    try:
        root = read_auth_file(path)
    except OSError as error:
        raise BackendError(
            f"{path} cannot be read", why=error.strerror or "", hint=_PERMISSIONS
        ) from error
    except FormatError as error:
        raise FormatError(
            f"{path} is no auth file",
            why=error.message,
            hint="nothing in it was changed: mend it, or move it away",
        ) from error
    return root.object() if root else {}


def _member(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.setdefault(name, {})
    if not isinstance(value, dict):
        raise FormatError(f"{quoted(name)} in the auth file is not an object")
    return value


def _save(path: Path, document: dict[str, Any]) -> None:
    """Write the file anew, readable by its owner only, through a link if it is one."""
    kept = {
        name: value
        for name, value in document.items()
        if value or name not in {"auths", "credHelpers"}
    }
    kept.setdefault("auths", {})
    target = path.resolve()
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with StagedFile(target, overwrite=True, mode=0o600) as file:
            os.write(file.fd, json.dumps(kept, indent="\t").encode())
            file.commit()
    except OSError as error:
        raise BackendError(
            f"{path} cannot be written", why=error.strerror or "", hint=_PERMISSIONS
        ) from error
