"""Secrets in addresses, masked."""

from __future__ import annotations

import re

MASK = "***"

_NAMES = r"pass(?:word|wd|phrase)?|token|secret|api_?key|credential|sig(?:nature)?|auth"
_USER_INFO = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]+@")
_IN_QUERY = re.compile(rf"(?i)([?&][\w.-]*(?:{_NAMES})=)[^&#\s]+")


def mask_url(text: str) -> str:
    """Return text with the passwords and signatures in its addresses masked.

    These are ``scheme://user:PASSWORD@host`` and ``?token=SECRET``.
    """
    return _IN_QUERY.sub(rf"\1{MASK}", _USER_INFO.sub(rf"\1:{MASK}@", text))
