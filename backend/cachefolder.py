"""Where the cache is, as text: a start of a container cannot spend 10 ms on loading pathlib.

``SIFDECK_CACHE_DIR``, else a folder of our own in ``SINGULARITY_CACHEDIR`` or
``APPTAINER_CACHEDIR``, else what the XDG specification says, which is also what ``platformdirs``
answers on Linux.
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
    xdg = os.environ.get("XDG_CACHE_HOME", "").strip()
    return f"{xdg or os.path.expanduser('~/.cache')}/{APP}"  # noqa: PTH111  (loads pathlib)
