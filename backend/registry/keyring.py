"""Registry logins in the system's keyring, in the words of Docker's credential helpers.

Only ``docker-credential-sifdeck`` uses this module: a keyring may wait for somebody to unlock
it, and a process of its own can be ended.  Keyrings cannot list what is in them, so one entry
more holds the keys.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

from backend.errors import BackendError, FormatError
from backend.oci.json import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyring.backend import KeyringBackend

Answer = TypeVar("Answer")

_SERVICE = "sifdeck registry login"
_INDEX = "keys"


def get(key: str) -> str | None:
    """Return the login of ``key`` as the helper's answer, or None.

    Raises:
        BackendError: No keyring answers.
    """
    return _asked(lambda: _keyring().get_password(_SERVICE, _entry(key)))


def store(document: str) -> None:
    """Keep the login of a document with ``ServerURL``, ``Username`` and ``Secret``.

    Raises:
        FormatError: It is none.
        BackendError: No keyring answers.
    """
    root = load(document.encode("utf-8", "replace"), "the login")
    key, username = root.need("ServerURL").text(), root.need("Username").text()
    login = {"ServerURL": key, "Username": username, "Secret": root.need("Secret").text()}
    _asked(lambda: _keyring().set_password(_SERVICE, _entry(key), json.dumps(login)))
    _write_index(_read_index() | {key: username})


def erase(key: str) -> None:
    """Forget the login of ``key``.

    Raises:
        BackendError: There is none, or no keyring answers.
    """
    index = _read_index()
    if key in index:
        _asked(lambda: _keyring().delete_password(_SERVICE, _entry(key)))
        _write_index({name: user for name, user in index.items() if name != key})


def list_keys() -> str:
    """Return the user names by key, as JSON.

    Raises:
        BackendError: No keyring answers.
    """
    return json.dumps(_read_index())


def _read_index() -> dict[str, str]:
    text = _asked(lambda: _keyring().get_password(_SERVICE, _INDEX))
    try:
        return load(text.encode(), "the list of logins").mapping() if text else {}
    except FormatError:
        return {}


def _write_index(index: dict[str, str]) -> None:
    _asked(lambda: _keyring().set_password(_SERVICE, _INDEX, json.dumps(index)))


def _entry(key: str) -> str:
    # A key cannot be taken for the index.
    return f"login {key}"


def _keyring() -> KeyringBackend:
    import keyring

    return keyring.get_keyring()


def _asked(question: Callable[[], Answer]) -> Answer:
    """Return the keyring's answer; all of its troubles are one error of ours."""
    from keyring.errors import KeyringError

    try:
        return question()
    except KeyringError as error:
        raise BackendError(
            "no keyring answers",
            why=str(error),
            hint="store the login in a file: sifdeck registry login --store file",
        ) from error
