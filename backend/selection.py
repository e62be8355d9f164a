"""Choices of images that people ask for again and again: what may go, what nobody checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backend.catalog import Image

UNUSED_S = 90 * 86_400
"""Seconds after which an image counts as unused."""
LARGE = 1 << 30
"""Bytes above which an image counts as large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """One choice.

    Attributes:
        title: What it is called.
        takes: Whether an image belongs to it, at a time in seconds since 1970.
    """

    title: str
    takes: Callable[[Image, float], bool]


def _is_unused(image: Image, now: float) -> bool:
    """Tell whether nobody ran or wrote a file for long."""
    return max(image.used, image.modified_ns / 1e9) < now - UNUSED_S


SELECTIONS: Mapping[str, Selection] = {
    "unsigned": Selection(
        title="unsigned", takes=lambda image, _: not (image.signatures or image.cosigned)
    ),
    "large": Selection(title="> 1G", takes=lambda image, _: image.size > LARGE),
    "unused": Selection(title="unused 90 days", takes=_is_unused),
    "failed": Selection(
        title="failed verify",
        takes=lambda image, _: image.verdict in {"bad signature", "damaged", "differs"},
    ),
    "unreadable": Selection(title="unreadable", takes=lambda image, _: image.kind == "unreadable"),
}
"""What ``sifdeck ls --only`` takes, and the deck offers beside the folders."""
