"""Lines to be read, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Static

from app.dialogs.dialog import Dialog
from app.screens.panes import Text
from widgets.line_view import Document

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import ComposeResult


class TextDialog(Dialog[None]):
    """The lines.

    Args:
        title: What they are about.
        lines: Safe to show; colours (SGR) in them are drawn.
    """

    BINDINGS = [Binding("question_mark,f1,q,enter", "close", "Close", show=False)]

    def __init__(self, title: str, lines: Iterable[str]) -> None:
        super().__init__()
        self._title = title
        self._lines = tuple(lines)

    def compose(self) -> ComposeResult:
        """Lay out the lines."""
        with Vertical(classes="dialog -tall"):
            yield Static(self._title, classes="dialog-title", markup=False)
            yield Text(empty="Nothing.", save_as="sifdeck-text.txt")
            yield Static("esc  close    / find", classes="dialog-keys", markup=False)

    def on_mount(self) -> None:
        """Fill in the lines."""
        self.query_one(Text).show(Document(self._lines))
        self.query_one(Text).focus()
