"""The environment of a container's process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from backend.runtime.spec import PATH

if TYPE_CHECKING:
    from backend.runtime.image import RunnableImage
    from backend.runtime.options import RunOptions

_PREFIXES = ("APPTAINERENV_", "SINGULARITYENV_", "SIFDECKENV_")
"""``SINGULARITYENV_X=1`` on the host is ``X=1`` in the container; the last one wins."""

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_PASSED = ("TERM", *_PROXIES, *(name.upper() for name in _PROXIES))
"""What the host's environment gives to any container."""


def compose_environment(runnable: RunnableImage, options: RunOptions, home: str) -> dict[str, str]:
    """Return the container's environment; later sources win, as in SingularityCE.

    The image's, then ``SINGULARITYENV_X``, then the user's ``--env-file`` and ``--env``; at last
    what the host passes on and nothing has set.
    """
    found = dict(_pairs(runnable.env))
    found.setdefault("PATH", PATH)
    found["SINGULARITY_CONTAINER"] = runnable.path
    found["SINGULARITY_NAME"] = runnable.name
    for prefix in _PREFIXES:
        for name, value in os.environ.items():
            if name.startswith(prefix) and len(name) > len(prefix):
                found[name.removeprefix(prefix)] = value
    found.update(options.environment)
    if before := found.pop("PREPEND_PATH", ""):
        found["PATH"] = f"{before}:{found['PATH']}"
    if after := found.pop("APPEND_PATH", ""):
        found["PATH"] = f"{found['PATH']}:{after}"
    found.setdefault("HOME", home)
    for name in _PASSED:
        if name in os.environ:
            found.setdefault(name, os.environ[name])
    if options.action == "shell":
        found.setdefault("PS1", "sifdeck> ")
    return found


def _pairs(entries: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, value) for name, found, value in (e.partition("=") for e in entries) if found]
