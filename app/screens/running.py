"""To be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.screens.view import Text, ViewScreen, bindings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget


class RunningScreen(ViewScreen):
    """The checks and their outcome."""

    VIEW = "running"
    TAB = "running"
    BINDINGS = bindings("running")

    def compose_body(self) -> Iterable[Widget]:
        """Return the text."""
        yield Text(empty="Checking ...", id="report")

    def on_mount(self) -> None:
        """Run the checks."""
        super().on_mount()
        self.query_one(Text).focus()
