"""An error in its five parts: what, why, what was kept, what to do next, and how to report it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from app.dialogs.dialog import Dialog
from app.requests import CopyRequested
from backend.escape import printable

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from app.trouble import Trouble


class ReportDialog(Dialog[str]):
    """The error; ``y`` copies a report without secrets, ``R`` tries again what was a job."""

    BINDINGS = [
        Binding("y", "copy", "Copy report"),
        Binding("R", "retry", "Retry"),
        Binding("enter", "close", "Close", show=False),
    ]

    def __init__(self, trouble: Trouble) -> None:
        super().__init__()
        self.trouble = trouble

    def compose(self) -> ComposeResult:
        """Lay out the parts."""
        trouble = self.trouble
        with Vertical(classes="dialog -error"):
            yield Static(printable(trouble.title), classes="dialog-title", markup=False)
            with VerticalScroll(classes="fields"):
                for name, text in trouble.parts:
                    yield Static(f"{name:6}{printable(text)}", classes="part", markup=False)
            keys = "y  copy a report without secrets   esc  close"
            if trouble.job:
                keys = f"R  retry   {keys}"
            yield Static(keys, classes="dialog-note", markup=False)

    def action_copy(self) -> None:
        """Copy the report."""
        self.post_message(CopyRequested(self.trouble.report()))

    def action_retry(self) -> None:
        """Ask for another try of the job."""
        if self.trouble.job:
            self.dismiss("retry")
