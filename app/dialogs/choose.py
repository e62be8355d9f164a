"""One of a few words, by its letter or by the arrows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from app.dialogs.dialog import Dialog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual import events
    from textual.app import ComposeResult


class ChooseDialog(Dialog[str]):
    """The words.

    Args:
        title: What is chosen.
        names: Answer to what it is called.
        current: The answer that the cursor is on at first.
        wide: Whether the words are long ones, which letters could not tell apart.
    """

    def __init__(
        self, title: str, names: Mapping[str, str], current: str = "", *, wide: bool = False
    ) -> None:
        super().__init__()
        self._title = title
        self._names = dict(names)
        self._current = current
        self._shape = "dialog" if wide else "dialog -small"
        self._letters = dict.fromkeys(self._names, "") if wide else _letters(self._names)

    def compose(self) -> ComposeResult:
        """Lay out title and words."""
        with Vertical(classes=self._shape):
            yield Static(self._title, classes="dialog-title", markup=False)
            yield OptionList(
                *(
                    Option(Content(f"{letter or ' '}  {self._names[key]}"), id=key)
                    for key, letter in self._letters.items()
                ),
                compact=True,
            )

    def on_mount(self) -> None:
        """Put the cursor on the current answer."""
        options = self.query_one(OptionList)
        keys = list(self._names)
        options.highlighted = keys.index(self._current) if self._current in keys else 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer with the word under the cursor."""
        self.dismiss(event.option_id)

    def on_key(self, event: events.Key) -> None:
        """Answer with the word whose letter was typed."""
        for key, letter in self._letters.items():
            if letter and event.character == letter:
                event.stop()
                self.dismiss(key)


def _letters(names: Mapping[str, str]) -> dict[str, str]:
    """Return a letter of its own for each key, out of its name where one is left."""
    letters: dict[str, str] = {}
    for key, name in names.items():
        free = (c for c in name.lower() if c.isalpha() and c not in letters.values())
        letters[key] = next(free, "")
    return letters
