"""Which file of the cache a reference meant when it was last run, by how it was written.

``run docker://NAME@DIGEST``, or any tag with ``--offline``, then need not load what resolves
references and talks to registries, which takes longer than the container itself.
"""

from __future__ import annotations

import os

from backend.cachefolder import cache_place

_MAX_NOTE = 1 << 16


def note_spelling(text: str, file: str, tag_file: str) -> None:
    """Note that a reference means a file; a cache that cannot be written to is no error.

    Args:
        text: The reference as it was written.
        file: In the cache.
        tag_file: Where the cache says what the reference's tag means; empty for one with a
            digest, which always means the same.
    """
    place = _place(text)
    part = f"{place}.{os.getpid()}"
    try:
        tag = _read(tag_file) if tag_file else ""
        os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
        with open(part, "wb") as note:
            note.write(os.fsencode("\0".join((file, tag_file, tag))))
        os.replace(part, place)
    except (OSError, ValueError):
        return


def find_spelled(text: str, *, offline: bool) -> str:
    """Return the file that a reference means, or an empty text where that is to be looked up.

    Args:
        text: The reference as it was written.
        offline: Believe the cache what a tag means.
    """
    try:
        file, tag_file, tag = _read(_place(text)).split("\0")
        is_known = not tag_file or (offline and _read(tag_file) == tag)
    except (OSError, ValueError):
        return ""
    return file if is_known else ""


def _place(text: str) -> str:
    name = text.replace("%", "%25").replace("/", "%2F")
    return f"{cache_place()}/references/{name}"


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return os.fsdecode(file.read(_MAX_NOTE))
