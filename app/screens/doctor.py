"""What this host can do, and what it lacks for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.screens.view import Text, ViewScreen, bindings
from widgets.line_view import Document

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget


class DoctorScreen(ViewScreen):
    """The checks and their outcome."""

    VIEW = "doctor"
    TAB = "doctor"
    BINDINGS = bindings("doctor")

    def compose_body(self) -> Iterable[Widget]:
        """Return the text."""
        yield Text(empty="Checking ...", id="report")

    def on_mount(self) -> None:
        """Run the checks."""
        super().on_mount()
        self.query_one(Text).focus()

    def action_again(self) -> None:
        """Run the checks again."""
        self.query_one(Text).show(Document())
