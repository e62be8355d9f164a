"""A terminal for tests: tmux with its default settings and a server of its own; a deck in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LIMIT_S = 60.0
SIFDECK = Path(sys.executable).with_name("sifdeck")


@dataclass(kw_only=True)
class Terminal:
    """One window of a tmux server."""

    socket: Path

    def tmux(self, *argv: str) -> str:
        """Run a tmux command and return what it printed."""
        return subprocess.run(
            ("tmux", "-S", str(self.socket), *argv), capture_output=True, text=True, check=True
        ).stdout

    @property
    def text(self) -> str:
        """What is on the screen."""
        return self.tmux("capture-pane", "-p", "-t", "t")

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names."""
        self.tmux("send-keys", "-t", "t", *keys)

    def type(self, text: str) -> None:
        """Type text as it stands."""
        self.tmux("send-keys", "-t", "t", "-l", text)

    def wait(self, wanted: str, *, gone: str = "") -> str:
        """Wait until a text is on the screen, and another is not, and return the screen."""
        end = time.monotonic() + LIMIT_S
        while True:
            text = self.text
            if wanted in text and not (gone and gone in text):
                return text
            if time.monotonic() > end:
                raise AssertionError(f"{wanted!r} did not appear:\n{text}")
            time.sleep(0.05)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        wait_until(condition)

    def value(self, name: str) -> str:
        """Return one of tmux's format variables, such as ``alternate_on``."""
        return self.tmux("display-message", "-p", "-t", "t", f"#{{{name}}}").strip()

    @property
    def modes(self) -> tuple[str, str, str]:
        """Return whether the alternate screen, mouse reports and the cursor are on."""
        alternate, mouse, cursor = (
            self.value(name) for name in ("alternate_on", "mouse_any_flag", "cursor_flag")
        )
        return alternate, mouse, cursor


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        time.sleep(0.05)


SHELL_MODES = ("0", "0", "1")
"""The modes of a terminal in which nothing runs."""


@contextmanager
def open_terminal(
    folder: Path, environment: Mapping[str, str], *, size: tuple[int, int] = (80, 24)
) -> Iterator[Terminal]:
    """Open a shell in a terminal, in ``folder``, with these variables and few others."""
    if shutil.which("tmux") is None:
        pytest.skip("no tmux")
    terminal = Terminal(socket=folder / "tmux")
    given = [f"{name}={value}" for name, value in environment.items()]
    command = ("env", "-i", *given, "PS1=shell> ", "sh")
    columns, lines = size
    terminal.tmux(
        *("-f", "/dev/null", "new-session", "-d", "-s", "t", "-c", str(folder)),
        *("-x", str(columns), "-y", str(lines), *command),
    )
    try:
        terminal.wait("shell>")
        yield terminal
    finally:
        subprocess.run(("tmux", "-S", str(terminal.socket), "kill-server"), check=False)


@contextmanager
def log_in(base: Path) -> Iterator[Terminal]:
    """Open a shell in an empty folder, as someone has it who just logged in."""
    folder = base / "work"
    folder.mkdir()
    environment = {
        "HOME": str(base / "home"),
        "PATH": f"{SIFDECK.parent}:{os.environ['PATH']}",
        "TERM": "screen-256color",
        "TMPDIR": str(base),
        "LC_ALL": "C.UTF-8",
    }
    with open_terminal(folder, environment) as opened:
        yield opened


def open_deck(terminal: Terminal, command: str = "sifdeck deck") -> int:
    """Open the deck from the shell and return its process number."""
    terminal.type(f"{command} & echo pid $!; fg")
    terminal.press("Enter")
    terminal.wait("[1 Images]")
    history = terminal.tmux("capture-pane", "-p", "-a", "-q", "-t", "t")
    found = re.findall(r"pid (\d+)", history)
    assert found, history
    return int(found[-1])


def inside_tmux(terminal: Terminal) -> str:
    """Return the assignment that tells a program of the tmux around it."""
    return f"TMUX={terminal.socket},{terminal.value('pid')},0"


def is_running(pid: int) -> bool:
    """Tell whether a process is there, and has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] not in {"Z", "X"}
