"""Docker's credential helpers: programs ``docker-credential-NAME`` that keep secrets.

The protocol is that of docker-credential-helpers: the verb is the argument, the key or a
JSON object goes to stdin, the answer is JSON on stdout.  Secrets are never arguments.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import dataclass

from backend.errors import FormatError, ToolError, ToolFailedError
from backend.escape import one_line, quoted
from backend.oci.json import load
from backend.process import run_tool
from backend.registry.secret import Secret

_log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
"""A helper may wait for an unlocked keyring that nobody is there to unlock."""

_UNKNOWN = "credentials not found"
"""Part of the words by which helpers say that they do not know a key."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperLogin:
    """What a helper knows about one key."""

    username: str
    secret: Secret


async def get(name: str, key: str) -> HelperLogin | None:
    """Return what the helper ``name`` has for ``key``, or None.

    Raises:
        ToolError: It is not installed, takes too long, or fails otherwise.
        FormatError: Its answer is none, or ``name`` is no name of a helper.
    """
    try:
        text = await _run(name, "get", key)
    except ToolFailedError as error:
        if _UNKNOWN in error.stdout + error.stderr:
            return None
        raise
    answer = load(text.encode(), f"the answer of docker-credential-{name}")
    username, secret = answer.need("Username").text(), answer.need("Secret").text()
    return HelperLogin(username=username, secret=Secret(secret)) if secret else None


async def store(name: str, key: str, username: str, secret: Secret) -> None:
    """Have the helper keep a login.

    Raises:
        ToolError: It cannot, or is not installed.
        FormatError: ``name`` is no name of a helper.
    """
    login = {"ServerURL": key, "Username": username, "Secret": secret.reveal()}
    await _run(name, "store", json.dumps(login))


async def erase(name: str, key: str) -> None:
    """Have the helper forget a login.

    Raises:
        ToolError: It cannot, or is not installed.
        FormatError: ``name`` is no name of a helper.
    """
    await _run(name, "erase", key)


async def list_keys(name: str) -> dict[str, str]:
    """Return the user names by key that the helper knows; a broken helper knows none."""
    try:
        return load((await _run(name, "list", "")).encode(), "the helper's list").mapping()
    except (ToolError, FormatError) as error:
        _log.warning("docker-credential-%s: %s", one_line(name, limit=40), error)
        return {}


def is_installed(name: str) -> bool:
    """Tell whether the helper is on PATH, where other tools look for it as well."""
    return shutil.which(f"docker-credential-{name}") is not None


async def _run(name: str, verb: str, stdin: str) -> str:
    if not _NAME.fullmatch(name):
        raise FormatError(f"{quoted(name, limit=40)} is no name of a credential helper")
    argv = [f"docker-credential-{name}", verb]
    done = await run_tool(argv, timeout_s=_TIMEOUT_S, stdin=stdin.encode())
    return done.stdout
