"""The environment of a container's process."""

from __future__ import annotations

import os

from backend.runtime.spec import LIBRARIES, PATH

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from backend.runtime.image import RunnableImage
    from backend.runtime.options import RunOptions
    from backend.runtime.spec import Grants

_PREFIXES = ("APPTAINERENV_", "SINGULARITYENV_", "SIFDECKENV_")
"""``SINGULARITYENV_X=1`` on the host is ``X=1`` in the container; the last one wins."""

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_PASSED = ("TERM", *_PROXIES, *(name.upper() for name in _PROXIES))
"""What the host's environment gives to any container."""
_KEPT_BACK = frozenset({"HOME", "PATH", "LD_LIBRARY_PATH"})
"""What it does not give to one that takes the rest of it over."""


def compose_environment(
    runnable: RunnableImage, options: RunOptions, home: str, devices: Grants
) -> dict[str, str]:
    """Return the container's environment; later sources win, as in SingularityCE.

    The image's, then ``SINGULARITYENV_X``, then the user's ``--env-file`` and ``--env``; at last
    what the host passes on and nothing has set.
    """
    found = dict(_pairs(runnable.env))
    found.setdefault("PATH", PATH)
    found.update(_pairs(tuple(devices.environment)))
    if any(target.startswith(LIBRARIES) for _, target, _ in devices.mounts):
        before = found.get("LD_LIBRARY_PATH", "")
        found["LD_LIBRARY_PATH"] = f"{before}:{LIBRARIES}" if before else LIBRARIES
    found["SINGULARITY_CONTAINER"] = runnable.path
    found["SINGULARITY_NAME"] = runnable.name
    if options.app and runnable.is_native:
        found["SINGULARITY_APPNAME"] = options.app
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
    _take_over(found, options)
    if options.action == "shell":
        found.setdefault("PS1", "sifdeck> ")
    return found


def _take_over(found: dict[str, str], options: RunOptions) -> None:
    """Add what the host's environment passes on, where nothing else has set it."""
    keep_all = not options.compat and not options.clean_environment
    for name, value in os.environ.items():
        is_own = name in _KEPT_BACK or name.startswith(_PREFIXES)
        if name in _PASSED or (keep_all and not is_own):
            found.setdefault(name, value)


def _pairs(entries: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, value) for name, found, value in (e.partition("=") for e in entries) if found]
