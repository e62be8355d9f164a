"""Digests: ``sha256:`` and 64 hexadecimal digits, always over bytes as they were received."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from backend.errors import FormatError
from backend.escape import one_line

Digest = NewType("Digest", str)

_FORM = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def parse_digest(text: str) -> Digest:
    """Return ``text`` as a digest.

    Raises:
        FormatError: It is not ``sha256:`` or ``sha512:`` and lower-case hexadecimal digits.
    """
    if not _FORM.fullmatch(text):
        raise FormatError(f"not a digest: {one_line(text, limit=100)!r}")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """Return the SHA-256 digest of ``data``."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def hasher(digest: Digest) -> hashlib._Hash:
    """Return a fresh hash object of the digest's algorithm."""
    return hashlib.new(digest.partition(":")[0])


def short(digest: str) -> str:
    """Return the first 12 hexadecimal digits, as people name an image."""
    return digest.partition(":")[2][:12]
