"""Digests: ``sha256:`` and 64 hexadecimal digits, always over bytes as they were received."""

from __future__ import annotations

import hashlib
import os
import re

from backend.errors import FormatError
from backend.escape import quoted

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from typing import NewType

    Digest = NewType("Digest", str)
else:
    Digest = str

_CHUNK = 256 << 10
"""Bytes hashed at once: few enough to stay near the processor."""
_FORM = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def parse_digest(text: str) -> Digest:
    """Return ``text`` as a digest.

    Raises:
        FormatError: It is not ``sha256:`` or ``sha512:`` and lower-case hexadecimal digits.
    """
    if not _FORM.fullmatch(text):
        raise FormatError(f"not a digest: {quoted(text, limit=100)}")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """Return the SHA-256 digest of ``data``."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def digest_of_range(fd: int, offset: int, size: int) -> Digest:
    """Return the SHA-256 digest of a part of a file; what was just written is still in memory.

    Raises:
        FormatError: The file ends before that.
    """
    total = hashlib.sha256()
    buffer = memoryview(bytearray(min(size, _CHUNK)))
    while size:
        count = os.preadv(fd, [buffer[:size]], offset)
        if not count:
            raise FormatError("the file ends too early", offset=offset)
        total.update(buffer[:count])
        offset, size = offset + count, size - count
    return Digest(f"sha256:{total.hexdigest()}")


def hasher(digest: Digest) -> hashlib._Hash:
    """Return a fresh hash object of the digest's algorithm."""
    return hashlib.new(digest.partition(":")[0])


def short(digest: str) -> str:
    """Return the first 12 hexadecimal digits, as people name an image."""
    return digest.partition(":")[2][:12]
