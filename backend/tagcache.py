"""The tags of repositories as they were when a registry last answered, for when it does not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTags:
    """What was known of a repository.

    Attributes:
        names: Its tags, in the registry's order.
        when: Seconds since 1970, UTC.
    """

    names: tuple[str, ...]
    when: float


class TagCache:
    """One small file for each repository.

    Args:
        root: Folder of the files; made when there is something to write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, repository: str) -> KnownTags | None:
        """Return what was known; None when nothing was, or the file is broken."""
        document: Any = None
        with (
            contextlib.suppress(OSError, ValueError, RecursionError),
            self._path(repository).open("rb") as file,
        ):
            document = json.loads(file.read(_MAX_BYTES))
        if not isinstance(document, dict) or document.get("repository") != repository:
            return None
        names, when = document.get("names"), document.get("when")
        if not isinstance(names, list) or not isinstance(when, int | float):
            return None
        return KnownTags(names=tuple(one for one in names if isinstance(one, str)), when=when)

    def put(self, repository: str, names: Sequence[str], when: float) -> None:
        """Keep what a registry answered; a cache that cannot be written does without."""
        path = self._path(repository)
        partial = path.with_suffix(f".{os.getpid()}")
        document = {"repository": repository, "names": list(names), "when": when}
        with contextlib.suppress(OSError):
            self._root.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(document), encoding="utf-8")
            partial.replace(path)

    def _path(self, repository: str) -> Path:
        name = hashlib.sha256(repository.encode("utf-8", "replace")).hexdigest()[:24]
        return self._root / f"{name}.json"
