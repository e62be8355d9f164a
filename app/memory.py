"""What the deck remembers between two runs; losing it costs nothing but comfort."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES = 1 << 20
_MAX_NAMES = 500


@dataclass(kw_only=True)
class Memory:
    """The memory, kept in one small file.

    Attributes:
        path: The file; None keeps nothing.
        repositories: ``registry/repository`` or ``registry``, as the user added them.
        orders: Sort column of each view's list; a minus before it means turned round.
        filters: Filter of each view's list.
        view: The view that was shown last.
        failures: Numbers of failed jobs that somebody has looked at.
        profile: The profile that a container was last run with.
        seen: When the deck was last closed, seconds since 1970; 0 when it never was.
    """

    path: Path | None = None
    repositories: list[str] = field(default_factory=list)
    orders: dict[str, str] = field(default_factory=dict)
    filters: dict[str, str] = field(default_factory=dict)
    view: str = ""
    failures: list[int] = field(default_factory=list)
    profile: str = ""
    seen: float = 0.0

    def save(self) -> None:
        """Write the file."""
        if self.path is None:
            return
        fields = asdict(self) | {"repositories": self.repositories[-_MAX_NAMES:]}
        del fields["path"]
        partial = self.path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial.write_text(json.dumps(fields), encoding="utf-8")
            partial.replace(self.path)


def load_memory(path: Path) -> Memory:
    """Read the file; what is missing or makes no sense in it is as on the first day."""
    fields: Any = {}
    with contextlib.suppress(OSError, ValueError, RecursionError), path.open("rb") as file:
        fields = json.loads(file.read(_MAX_BYTES))
    if not isinstance(fields, dict):
        fields = {}
    failures = fields.get("failures")
    names, seen = fields.get("repositories"), fields.get("seen")
    return Memory(
        path=path,
        repositories=[name for name in names if isinstance(name, str)][:_MAX_NAMES]
        if isinstance(names, list)
        else [],
        orders=_texts(fields.get("orders")),
        failures=[number for number in failures if type(number) is int][-_MAX_NAMES:]
        if isinstance(failures, list)
        else [],
        filters=_texts(fields.get("filters")),
        **_texts({key: fields.get(key) for key in ("view", "profile")}),
        seen=float(seen) if isinstance(seen, int | float) else 0.0,
    )


def _texts(value: object) -> dict[str, str]:
    """Return a mapping of texts; nothing when it is none."""
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}
