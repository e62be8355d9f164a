"""The keys that work on a screen, and what each does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Static

from app.commands import actions_of, key_name
from app.dialogs.dialog import Dialog
from app.screens.view import Text
from widgets.line_view import Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from textual.app import ComposeResult

    from app.desk import Desk

_NAMES = {"deck": "Everywhere", "list": "In a list", "log": "In a text"}


class HelpDialog(Dialog[None]):
    """The keys.

    Args:
        desk: Knows which keys the user bound anew.
        views: Places in the table of actions, what is nearest first.
    """

    BINDINGS = [Binding("question_mark,f1,q,enter", "close", "Close", show=False)]

    def __init__(self, desk: Desk, views: Sequence[str]) -> None:
        super().__init__()
        self._desk = desk
        self._views = tuple(views)

    def compose(self) -> ComposeResult:
        """Lay out the lines."""
        with Vertical(classes="dialog -tall"):
            yield Static("Keys", classes="dialog-title", markup=False)
            yield Text(id="help")
            yield Static("esc  close    ctrl+p  all commands", classes="dialog-note", markup=False)

    def on_mount(self) -> None:
        """Fill in the lines."""
        self.query_one(Text).show(Document(self._lines()))
        self.query_one(Text).focus()

    def _lines(self) -> Iterator[str]:
        for view in self._views:
            yield f"\x1b[1m{_NAMES.get(view, 'Here')}\x1b[0m"
            for action in actions_of(view):
                keys = " ".join(key_name(key) for key in self._desk.keys(action) if key)
                yield f"  {keys:14} {action.label:12} {action.help}"
                command = action.command({})
                if action.argv:
                    also = f"   ({command.elsewhere})" if command.singularity else ""
                    yield f"  {'':14} {'':12} \x1b[2m$ {command}{also}\x1b[0m"
            yield ""
