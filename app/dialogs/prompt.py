"""One line of text, asked for at the bottom of the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Horizontal
from textual.widgets import Input, Label

from app.dialogs.dialog import Dialog

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult


class PromptDialog(Dialog[str]):
    """The line.

    Args:
        question: What is asked, a word or two.
        value: The answer at first.
        hint: What an answer looks like.
        on_change: Called with every letter that is typed.
    """

    def __init__(
        self,
        question: str,
        value: str = "",
        *,
        hint: str = "",
        on_change: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self._question, self._value, self._hint = question, value, hint
        self._on_change = on_change

    def compose(self) -> ComposeResult:
        """Lay out question and answer."""
        with Horizontal(classes="prompt"):
            yield Label(f"{self._question}: ", markup=False)
            yield Input(self._value, placeholder=self._hint, compact=True)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Tell who asked."""
        if self._on_change:
            self._on_change(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer."""
        self.dismiss(event.value)
