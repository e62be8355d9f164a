"""Registries: the distribution API, its challenges and tokens, and where credentials are kept."""

from __future__ import annotations

import sys

# httpx imports a command line of its own, and with it rich and pygments, when it finds them:
# 0.2 s of every start.  None makes that import fail, which httpx is prepared for.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None is documented
