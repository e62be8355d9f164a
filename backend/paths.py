"""Where sifdeck keeps things; the only module that knows the XDG folders.

``platformdirs`` answers, unless a variable names another place, ``SIFDECK_CONFIG_DIR``; cache
and state are in :mod:`backend.cachefolder`.  Nothing is created here.
"""

from __future__ import annotations

import os
from pathlib import Path

from backend.cachefolder import APP, cache_place, state_place


def cache_home() -> Path:
    """Return the folder whose whole content may be deleted at any time."""
    return Path(cache_place())


def shared_cache() -> Path | None:
    """Return a cache that the site, or a teacher, shares; we read it and never write to it."""
    own = os.environ.get("SIFDECK_SHARED_CACHE")
    return Path(own) if own else None


def state_home() -> Path:
    """Return the folder of jobs, logs and what the deck remembers."""
    return Path(state_place())


def config_home() -> Path:
    """Return the folder of the user's ``config.toml``."""
    if own := os.environ.get("SIFDECK_CONFIG_DIR"):
        return Path(own)
    import platformdirs

    return Path(platformdirs.user_config_dir(APP))


def site_config() -> Path:
    """Return the site's configuration file, which need not exist."""
    return Path(os.environ.get("SIFDECK_SITE_CONFIG") or "/etc/sifdeck/config.toml")


def singularity_home() -> Path:
    """Return SingularityCE's configuration folder, where its registry logins are."""
    return Path(os.environ.get("SINGULARITY_CONFIGDIR") or "~/.singularity").expanduser()


def jobs_home() -> Path:
    """Return the folder with one folder per job."""
    return state_home() / "jobs"
