"""A real terminal: tmux on a server of the test's own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import uuid
from typing import TYPE_CHECKING, Self

import pytest

from tests.support.containers import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Terminal:
    """A tmux window with a shell in it; a context manager.

    Args:
        width: Columns.
        height: Rows.
        environment: Of the shell; None for the test's.
    """

    def __init__(
        self, *, width: int = 100, height: int = 30, environment: Mapping[str, str] | None = None
    ) -> None:
        if not shutil.which("tmux"):
            pytest.skip("no tmux")
        self._server = f"sifdeck-test-{uuid.uuid4().hex[:12]}"
        self._size = (width, height)
        self._environment = dict(environment or os.environ)

    def __enter__(self) -> Self:
        width, height = (str(number) for number in self._size)
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, "sh")
        self.type("PS1=host$' '; clear")  # sh takes none from the environment
        wait_until(lambda: self.screen().startswith("host$"))
        return self

    def __exit__(self, *_: object) -> None:
        self.tmux("kill-server")

    def tmux(self, *arguments: str) -> str:
        """Run a tmux command and return what it prints."""
        argv = ["tmux", "-L", self._server, *arguments]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=True, env=self._environment, timeout=20
        )
        return done.stdout

    def run(self, argv: Sequence[str], script: Path) -> None:
        """Run a command line, however long, by way of a script that is written for it."""
        script.write_text(f"exec {shlex.join(argv)}\n")
        self.type(f"clear; sh {script}")

    def type(self, text: str, *, enter: bool = True) -> None:
        """Type text as it is."""
        self.tmux("send-keys", "-l", text)
        if enter:
            self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names, such as ``C-c``."""
        self.tmux("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """Change the window's size."""
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def screen(self) -> str:
        """Return what is to be seen."""
        return self.tmux("capture-pane", "-p")

    def wait_for(self, text: str) -> None:
        """Wait until ``text`` is to be seen."""
        try:
            wait_until(lambda: text in self.screen())
        except AssertionError:
            pytest.fail(f"{text!r} did not appear in:\n{self.screen()}")
