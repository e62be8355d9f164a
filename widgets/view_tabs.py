"""The line with the names of the views, or of the parts of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from widgets.cutting import end_cut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual import events
    from textual.app import RenderResult


class ViewTabs(Widget):
    """The line; the one that is shown stands in brackets, not only in another colour.

    Args:
        names: Key of a tab to what it is called, in order.
        current: Key of the one that is shown.
        numbered: Whether to put the number of the key before each.
    """

    DEFAULT_CSS = """
    ViewTabs { height: 1; width: 1fr; }
    """

    @dataclass
    class Chosen(Message):
        """A tab was clicked."""

        tabs: ViewTabs
        key: str

        @property
        def control(self) -> ViewTabs:
            """The line, for ``@on`` selectors."""
            return self.tabs

    def __init__(
        self,
        names: Mapping[str, str],
        current: str = "",
        *,
        numbered: bool = False,
        id: str | None = None,  # noqa: A002  (Textual's name)
    ) -> None:
        super().__init__(id=id)
        self._names = dict(names)
        self._numbered = numbered
        self._notes: Mapping[str, str] = {}
        self.current = current or next(iter(self._names), "")

    def show(self, current: str, notes: Mapping[str, str] | None = None) -> None:
        """Show another tab as the current one, and notes (a count) behind some names."""
        if notes is not None:
            self._notes = dict(notes)
        self.current = current
        self.refresh()

    def rename(self, names: Mapping[str, str]) -> None:
        """Offer other tabs."""
        self._names = dict(names)
        if self.current not in self._names:
            self.current = next(iter(self._names), "")
        self.refresh()

    def step(self, by: int) -> str:
        """Return the key of the tab so many further, round the end."""
        keys = list(self._names)
        return keys[(keys.index(self.current) + by) % len(keys)] if keys else ""

    def _labels(self) -> list[tuple[str, str]]:
        """Return (key, text) of each tab; the current one in brackets."""
        labels = []
        for number, (key, name) in enumerate(self._names.items(), 1):
            text = f"{number} {name}" if self._numbered else name
            if note := self._notes.get(key):
                text += f" {note}"
            labels.append((key, f"[{text}]" if key == self.current else f" {text} "))
        return labels

    def render(self) -> RenderResult:
        """Return the line."""
        tabs = (
            Content.styled(text, "bold $accent" if key == self.current else "")
            for key, text in self._labels()
        )
        return end_cut(Content.assemble(*tabs), self.size.width, self)

    def on_click(self, event: events.Click) -> None:
        """Tell which tab is under the mouse."""
        left = 0
        for key, text in self._labels():
            if left <= event.x < left + len(text):
                self.post_message(self.Chosen(self, key))
                return
            left += len(text)
