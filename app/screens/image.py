"""One image: what it says about itself, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.message import Message
from textual.worker import get_current_worker

from app.commands import BY_ID, CommandLine
from app.inspection import file_lines, inspect_file
from app.requests import RunRequested
from app.screens.inspector import Inspector
from app.screens.view import Text, ViewScreen, bindings
from app.words import short_path
from backend.errors import BackendError
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk
    from backend.catalog import Image


@dataclass
class _FilesRead(Message):
    """The files of the image were listed."""

    lines: list[str]


class ImageScreen(ViewScreen):
    """The image."""

    VIEW = "image"
    TAB = "images"
    BINDINGS = bindings("image")

    def __init__(self, desk: Desk, board: Board, image: Image) -> None:
        super().__init__(desk, board)
        self.image = image

    def compose_body(self) -> Iterable[Widget]:
        """Return the inspector."""
        yield Inspector(id="inspector")

    def on_mount(self) -> None:
        """Read the file."""
        super().on_mount()
        self.query_one(Text).focus()
        self._load()

    def _load(self) -> None:
        inspector = self.query_one(Inspector)
        try:
            pages = inspect_file(Path(self.image.path))
        except BackendError as error:
            pages = {"Problem": [error.message, error.why, error.hint]}
        else:
            pages = {**pages, "Files": ["reading ..."]}
            self._load_files()
        inspector.show(self.image.title, pages)

    @work(thread=True, exclusive=True, group="files")
    def _load_files(self) -> None:
        worker = get_current_worker()
        try:
            lines = file_lines(Path(self.image.path), lambda: worker.is_cancelled)
        except (BackendError, OSError) as error:
            lines = [one_line(str(error))]
        if not worker.is_cancelled:
            self.post_message(_FilesRead(lines))

    @on(_FilesRead)
    def _show_files(self, event: _FilesRead) -> None:
        self.query_one(Inspector).replace("Files", event.lines)

    def subject(self) -> Mapping[str, str]:
        """Return the image."""
        return {"image": short_path(self.image.path), "reference": self.image.title}

    def command(self) -> CommandLine:
        """Return what prints the same."""
        return BY_ID["images.open"].command(self.subject())

    def action_next_tab(self) -> None:
        """Show the next page."""
        self.query_one(Inspector).step(1)

    def action_previous_tab(self) -> None:
        """Show the page before."""
        self.query_one(Inspector).step(-1)

    def action_run(self) -> None:
        """Run the image."""
        self.post_message(RunRequested(self.image, "run"))

    def action_shell(self) -> None:
        """Open a shell in it."""
        self.post_message(RunRequested(self.image, "shell"))
