"""A question before something that cannot be undone; the safe answer has the focus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Static

from app.dialogs.dialog import Dialog
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult


class ConfirmDialog(Dialog[bool]):
    """The question.

    Args:
        question: What would happen to what and how much, one line each.
        command: The command line that does it.
        go: What the button says that does it.
    """

    def __init__(self, question: Sequence[str], command: str, go: str) -> None:
        super().__init__()
        self._question = tuple(one_line(line) for line in question)
        self._command = one_line(command)
        self._go = go

    def compose(self) -> ComposeResult:
        """Lay out the question and two buttons."""
        with Vertical(classes="dialog"):
            yield Static(self._question[0], classes="dialog-title", markup=False)
            yield Static("\n".join(self._question[1:]), markup=False)
            yield Static(f"$ {self._command}", classes="dialog-command", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="cancel", compact=True)
                yield Button(self._go, id="go", variant="error", compact=True)

    def on_mount(self) -> None:
        """Focus the safe answer."""
        self.query_one("#cancel").focus()

    @on(Button.Pressed)
    def _answer(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "go")
