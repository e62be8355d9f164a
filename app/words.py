"""How numbers and times read in the deck: short, in fixed forms, without a locale."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

_UNITS = "BKMGTPE"


def size(count: float) -> str:
    """Return bytes as people say them, at most five characters: ``412B``, ``9.1G``."""
    power = 0
    while count >= 999.5 and power < len(_UNITS) - 1:
        count /= 1024
        power += 1
    if power == 0 or count >= 9.95:
        return f"{count:.0f}{_UNITS[power]}"
    return f"{count:.1f}{_UNITS[power]}"


def age(seconds: float) -> str:
    """Return how long ago something was: ``now``, ``5m ago``, ``3h ago``, ``2d ago``."""
    for limit, unit, name in (
        (60, 1, ""),
        (3600, 60, "m"),
        (86400, 3600, "h"),
        (86400 * 60, 86400, "d"),
        (86400 * 365 * 2, 86400 * 30, "mo"),
    ):
        if seconds < limit:
            return f"{int(seconds // unit)}{name} ago" if name else "now"
    return f"{int(seconds // (86400 * 365))}y ago"


def duration(seconds: float | None) -> str:
    """Return a duration as ``04:51`` or ``1:04:51``; a dash when there is none."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def bar(fraction: float | None, width: int, *, full: str = "#", empty: str = "-") -> str:
    """Return a bar of ``width`` characters; spaces when nobody knows how far it is."""
    if fraction is None:
        return " " * width
    done = int(min(max(fraction, 0.0), 1.0) * width)
    return full * done + empty * (width - done)


def percent(fraction: float | None) -> str:
    """Return ``58%``, rounded down so that 100% means done."""
    return "" if fraction is None else f"{int(fraction * 100)}%"


def timestamp(text: str) -> float | None:
    """Return seconds since 1970 of an RFC 3339 time; None when it is none, or before 1980."""
    try:
        moment = datetime.fromisoformat(text)
        seconds = moment.timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return seconds if seconds > 315_532_800 else None


def short_path(path: str) -> str:
    """Return a path as one would type it here: the name alone for a file in this folder."""
    folder, _, name = path.rpartition("/")
    return name if folder == os.getcwd() and not name.startswith("-") else path  # noqa: PTH109


def home_path(path: str) -> str:
    """Return a path to be read, not typed: what is below the home folder begins with ``~``."""
    home = str(Path.home())
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path


def count(number: int, thing: str, things: str = "") -> str:
    """Return ``1 job`` or ``3 jobs``; ``things`` where it is not the same with an s."""
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"
