"""An error in its five parts: what, why, what was kept, what to do next, and how to report it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Label, Static

from app.dialogs.dialog import Dialog
from app.forms import login_form
from app.requests import CopyRequested, LoginRequested
from backend.escape import printable

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from app.trouble import Trouble


class ReportDialog(Dialog[str]):
    """The error; ``y`` copies a report without secrets, ``R`` tries again what was a job."""

    BINDINGS = [
        Binding("y", "copy", "Copy report"),
        Binding("R", "retry", "Retry"),
        Binding("l", "login", "Log in"),
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
                    with Horizontal(classes="part"):
                        yield Label(name, classes="name", markup=False)
                        yield Static(printable(text), markup=False)
            keys = [
                "l  log in" if trouble.registry else "",
                "R  retry" if trouble.job else "",
                "y  copy a report without secrets",
                "esc  close",
            ]
            yield Static("   ".join(filter(None, keys)), classes="dialog-keys", markup=False)

    def action_copy(self) -> None:
        """Copy the report."""
        self.post_message(CopyRequested(self.trouble.report()))

    def action_login(self) -> None:
        """Ask for a login, where one is missing."""
        if self.trouble.registry:
            self.app.post_message(LoginRequested(login_form(self.trouble.registry)))
            self.dismiss("login")

    def action_retry(self) -> None:
        """Ask for another try of the job."""
        if self.trouble.job:
            self.dismiss("retry")
