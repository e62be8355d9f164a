"""Copy text to where the user will paste it, also over SSH and inside tmux.

Measured with tmux 3.3a: a bare OSC 52 is dropped by tmux's default settings without a word;
``tmux load-buffer -w`` reaches the outer terminal.  Nothing answers when OSC 52 arrives, so
the text is always kept in a file as well, and the user is told which way was taken.
"""

from __future__ import annotations

import base64
import contextlib
import os
from typing import TYPE_CHECKING, Any

from backend.errors import BackendError, ToolError
from backend.paths import state_home
from backend.process import run_tool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.app import App

_LIMIT = 74_994
"""Bytes of base64 that terminals take in one OSC 52."""
_TIMEOUT_S = 3.0

_HELPERS = (
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
)


async def copy(text: str, app: App[Any]) -> str:
    """Copy ``text`` and return the way that was taken.

    Raises:
        BackendError: No clipboard can be reached; the error says where the text is kept.
    """
    file = _keep(text)
    if os.environ.get("TMUX") and await _fed(("tmux", "load-buffer", "-w", "-"), text):
        return "tmux"
    for variable, argv in _HELPERS:
        if (
            os.environ.get(variable)
            and not os.environ.get("SSH_CONNECTION")
            and await _fed(argv, text)
        ):
            return argv[0]
    sequence = osc52(text, os.environ)
    if sequence and app._driver:  # noqa: SLF001  (Textual's own way knows nothing of screen)
        app._driver.write(sequence)  # noqa: SLF001
        return "the terminal"
    kept = f"the text is in {file}" if file else "the text is not kept either"
    raise BackendError("no clipboard can be reached", kept=kept)


def osc52(text: str, environment: Mapping[str, str]) -> str:
    """Return the sequence that hands ``text`` to the terminal; empty when it cannot take it."""
    payload = base64.b64encode(text.encode("utf-8", "replace")).decode()
    term = environment.get("TERM", "")
    if len(payload) > _LIMIT or term in {"dumb", "linux", ""}:
        return ""
    sequence = f"\x1b]52;c;{payload}\x07"
    if term.startswith("screen") and not environment.get("TMUX"):
        return f"\x1bP{sequence}\x1b\\"
    return sequence


def _keep(text: str) -> str:
    """Write the text to a file that only we can read; return its path, empty when it failed."""
    path = state_home() / "clip.txt"
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
        return str(path)
    return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


async def _fed(argv: tuple[str, ...], text: str) -> bool:
    """Run a program with the text as its input; tell whether it took it."""
    try:
        await run_tool(argv, timeout_s=_TIMEOUT_S, stdin=text.encode("utf-8", "replace"))
    except ToolError:
        return False
    return True
