"""One image: what it says about itself, page by page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from textual import work

from app.inspection import inspect_file
from app.requests import RunRequested
from app.screens.inspector import Inspector
from app.screens.view import Text, ViewScreen, bindings
from app.words import short_path
from backend.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk
    from backend.catalog import Image


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

    @work(exclusive=True, group="image")
    async def _load(self) -> None:
        inspector = self.query_one(Inspector)
        try:
            inspector.show(self.image.title, inspect_file(Path(self.image.path)))
        except BackendError as error:
            inspector.show(self.image.title, {"Problem": [error.message, error.why, error.hint]})

    def subject(self) -> Mapping[str, str]:
        """Return the image."""
        return {"image": short_path(self.image.path), "reference": self.image.title}

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
