"""Options from the environment, under our name or the neighbours'.

``variable("NO_HTTPS")`` is ``$SIFDECK_NO_HTTPS``, else ``$SINGULARITY_NO_HTTPS``, else
``$APPTAINER_NO_HTTPS``, so that a site's module files keep working.  Only options that mean
the same thing are asked for in this way.
"""

from __future__ import annotations

import os

from backend.errors import UsageError
from backend.escape import quoted

PREFIXES = ("SIFDECK_", "SINGULARITY_", "APPTAINER_")

_TRUE = frozenset({"1", "t", "true", "yes", "y", "on"})
_FALSE = frozenset({"", "0", "f", "false", "no", "n", "off"})


def variable(name: str) -> str | None:
    """Return the option's value from the environment, or None when it is set nowhere."""
    for prefix in PREFIXES:
        value = os.environ.get(prefix + name)
        if value is not None:
            return value
    return None


def flag(name: str) -> bool:
    """Return whether the environment switches an option on.

    Raises:
        UsageError: The value is neither a yes nor a no.
    """
    value = (variable(name) or "").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise UsageError(f"{name} in the environment is {quoted(value)}; it takes yes or no")
