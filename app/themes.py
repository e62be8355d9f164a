"""Colours: two themes of our own with checked contrast, and which one fits the terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from textual.theme import Theme

if TYPE_CHECKING:
    from collections.abc import Mapping

DARK = Theme(
    name="sifdeck-dark",
    primary="#6cb6ff",
    secondary="#7f9fbf",
    accent="#8fc7ff",
    foreground="#d7dde4",
    background="#14181d",
    surface="#1a1f26",
    panel="#242b34",
    success="#5fb8d9",  # blue and orange are told apart by every eye; green and red are not
    warning="#e6b450",
    error="#ff9a66",
    dark=True,
)
LIGHT = Theme(
    name="sifdeck-light",
    primary="#0a558c",
    secondary="#3f5f7f",
    accent="#0a4f86",
    foreground="#1c2128",
    background="#fbfbf9",
    surface="#f2f2ee",
    panel="#e3e3dd",
    success="#0b5f80",
    warning="#7a5200",
    error="#a33a00",
    dark=False,
)
THEMES = (DARK, LIGHT)


def choose_theme(environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of the theme that the terminal can show.

    With ``NO_COLOR``, or fewer than 256 colours, the terminal's own sixteen are used.
    """
    if environment.get("NO_COLOR"):
        return "ansi-dark"
    if environment.get("COLORTERM", "") in {"truecolor", "24bit"}:
        return DARK.name
    return DARK.name if "256color" in environment.get("TERM", "") else "ansi-dark"
