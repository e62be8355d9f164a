"""What all dialogs share: they stand in the middle, Escape closes them, nothing is done then."""

from __future__ import annotations

from typing import TypeVar

from textual.binding import Binding
from textual.screen import ModalScreen

Result = TypeVar("Result")


class Dialog(ModalScreen[Result | None]):
    """A modal screen whose result is None when it was closed without an answer."""

    BINDINGS = [Binding("escape", "close", "Cancel")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (20, "-high")]

    def action_close(self) -> None:
        """Close without an answer."""
        self.dismiss(None)
