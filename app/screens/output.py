"""What a program printed into a file: it is followed as it grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.screens.panes import Text
from app.screens.view import ViewScreen
from backend.escape import one_line
from backend.logfile import LogFile
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from textual.widget import Widget

    from app.board import Board
    from app.commands import CommandLine
    from app.desk import Desk

_LOOK_S = 0.5
"""Seconds between two looks at the file, while the screen is shown."""


class OutputScreen(ViewScreen):
    """The file.

    Args:
        desk: As for every screen.
        board: As for every screen.
        path: The file.
        title: What printed it.
        command: What prints the same.
    """

    VIEW = "output"
    TAB = "running"

    def __init__(
        self, desk: Desk, board: Board, path: Path, title: str, command: CommandLine
    ) -> None:
        super().__init__(desk, board)
        self._file = LogFile(path)
        self._title_text = title
        self._command = command

    def compose_body(self) -> Iterable[Widget]:
        """Return title and text."""
        yield StatusLine(one_line(self._title_text), id="title", classes="pane-title")
        yield Text(follow=True, empty="Nothing printed yet.", save_as="sifdeck-output.log")

    def on_mount(self) -> None:
        """Show the file."""
        self.query_one(Text).show(self._file, keep_place=True)
        super().on_mount()
        self.query_one(Text).focus()
        self.set_interval(_LOOK_S, self._look)

    def on_unmount(self) -> None:
        """Close the file."""
        self._file.close()

    def _look(self) -> None:
        if self.is_current and self._file.refresh():
            self.query_one(Text).grown()

    def command(self) -> CommandLine:
        """Return the command that prints the file."""
        return self._command
