"""Where cache and state are, as text: a start of a container cannot spend 10 ms on pathlib.

The cache: ``SIFDECK_CACHE_DIR``, else a folder of our own in ``SINGULARITY_CACHEDIR`` or
``APPTAINER_CACHEDIR``.  The state: ``SIFDECK_STATE_DIR``.  Else what the XDG specification says,
which is also what ``platformdirs`` answers on Linux.
"""

from __future__ import annotations

import os

from backend.settings import variable

APP = "sifdeck"


def cache_place() -> str:
    """Return the path of the folder whose whole content may be deleted at any time."""
    own = os.environ.get("SIFDECK_CACHE_DIR") or os.environ.get("SIFDECK_CACHEDIR")
    if own:
        return own
    if shared := variable("CACHEDIR"):
        return f"{shared}/{APP}"
    return _xdg("XDG_CACHE_HOME", "~/.cache")


def state_place() -> str:
    """Return the path of the folder of jobs, logs and what is remembered."""
    return os.environ.get("SIFDECK_STATE_DIR") or _xdg("XDG_STATE_HOME", "~/.local/state")


def _xdg(variable_name: str, otherwise: str) -> str:
    place = os.environ.get(variable_name, "").strip()
    return f"{place or os.path.expanduser(otherwise)}/{APP}"  # noqa: PTH111  (loads pathlib)
