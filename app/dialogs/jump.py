"""A letter on every pane and field: typing it goes there."""

from __future__ import annotations

from string import ascii_lowercase
from typing import TYPE_CHECKING

from textual.widgets import Static

from app.dialogs.dialog import Dialog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget


class JumpDialog(Dialog[int]):
    """The letters; the answer is the place of the widget in the list.

    Args:
        widgets: Where one can go, in the order of the letters.
    """

    def __init__(self, widgets: Sequence[Widget]) -> None:
        super().__init__()
        self._places = [widget.region for widget in widgets][: len(ascii_lowercase)]

    def compose(self) -> ComposeResult:
        """Lay out a letter over the corner of each widget."""
        for letter, region in zip(ascii_lowercase, self._places, strict=False):
            label = Static(f" {letter} ", classes="jump-letter", markup=False)
            label.styles.offset = (region.x, region.y)
            yield label

    def on_key(self, event: events.Key) -> None:
        """Answer with the widget of the letter; any other key closes."""
        event.stop()
        place = ascii_lowercase.find(event.character or " ")
        self.dismiss(place if 0 <= place < len(self._places) else None)
