"""``docker-credential-sifdeck``: keeps registry logins in the system's keyring.

Docker, Podman, skopeo, SingularityCE and we call it in the way of Docker's credential
helpers: the verb is the argument; a key, or for ``store`` a JSON object, comes on stdin.
"""

from __future__ import annotations

import sys

from backend.errors import BackendError
from backend.registry import keyring

_MAX_INPUT = 1 << 20

_NOT_FOUND = "credentials not found in native keychain"
"""The words by which Docker knows this answer from a real error."""


def main(args: list[str]) -> int:
    """Answer one call and return the exit status."""
    verb = args[0] if len(args) == 1 else ""
    try:
        match verb:
            case "get":
                answer = keyring.get(_stdin().strip())
                if answer is None:
                    return _say(_NOT_FOUND, status=1)
                return _say(answer)
            case "store":
                keyring.store(_stdin())
            case "erase":
                keyring.erase(_stdin().strip())
            case "list":
                return _say(keyring.list_keys())
            case "version":
                from backend.version import __version__

                return _say(f"docker-credential-sifdeck {__version__}")
            case _:
                return _say("use: docker-credential-sifdeck get|store|erase|list|version", status=2)
    except BackendError as error:
        return _say(error.message, status=1)
    return 0


def _stdin() -> str:
    return sys.stdin.read(_MAX_INPUT)


def _say(text: str, *, status: int = 0) -> int:
    # The protocol wants errors on stdout as well.
    sys.stdout.write(f"{text}\n")
    return status
