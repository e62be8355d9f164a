"""Our registry logins for a builder: a file for the time of one build.

The builder would look into the files of its own kind; ours may come from another tool's file,
a keyring, the environment or a prompt.  They are written to a folder that only its owner can
read and that is removed with the build, and never stand in an argument.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

from backend.errors import UsageError
from backend.reference import DOCKER_HUB, parse
from backend.registry.credentials import HUB_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from backend.reference import Reference
    from backend.registry.credentials import Credentials, Login


def base_references(names: Iterable[str]) -> list[Reference]:
    """Return the registry images behind what stands in a Dockerfile; others are left out."""
    found = []
    for name in names:
        try:
            found.append(parse(name if "://" in name else f"docker://{name}"))
        except UsageError:
            continue  # a variable that nobody set: the builder will say so
    return [reference for reference in found if reference.registry]


def find_logins(references: Iterable[Reference], credentials: Credentials) -> dict[str, Login]:
    """Return the logins for registries, by the key that auth files use.

    Raises:
        AuthenticationError: ``--authfile`` cannot be read.
    """

    async def find_all() -> dict[str, Login]:
        found = {}
        for reference in references:
            login = await credentials.find(reference.registry, reference.repository)
            if login:
                found[auth_key(reference.registry)] = login
        return found

    return asyncio.run(find_all())


def write_auth_file(logins: dict[str, Login], folder: Path) -> Path | None:
    """Write the logins as ``config.json`` into a new folder and return that.

    Args:
        logins: By key; nothing is written when there are none.
        folder: The place for the new folder.
    """
    if not logins:
        return None
    place = folder / "auth"
    place.mkdir(mode=0o700)
    auths = {key: _entry(login) for key, login in logins.items()}
    number = os.open(place / "config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "w", encoding="utf-8") as file:
        json.dump({"auths": auths}, file)
    return place


def auth_key(registry: str) -> str:
    """Return the key of a registry in auth files."""
    return HUB_KEY if registry == DOCKER_HUB else registry


def _entry(login: Login) -> dict[str, str]:
    if login.kind == "identity":
        return {"identitytoken": login.secret.reveal()}
    if login.kind == "registry":
        return {"registrytoken": login.secret.reveal()}
    return {"auth": login.basic().removeprefix("Basic ")}
