"""One line of words: at the left what matters most, at the right what may be cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from widgets.cutting import end_cut

if TYPE_CHECKING:
    from textual.app import RenderResult


_GAP = 4
"""Cells around the texts: one at each end, two between them."""
_LEAST = 16
"""Cells of a cut right text that are worth showing."""


class StatusLine(Widget):
    """The line; markup in its texts is not interpreted, and what is cut is marked."""

    DEFAULT_CSS = """
    StatusLine { height: 1; width: 1fr; }
    """

    def __init__(
        self,
        left: str | Content = "",
        right: str | Content = "",
        *,
        id: str | None = None,  # noqa: A002  (Textual's name)
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.left, self.right = _content(left), _content(right)

    def show(self, left: str | Content, right: str | Content = "") -> None:
        """Show other words; draws nothing when they are the same."""
        parts = _content(left), _content(right)
        if parts != (self.left, self.right):
            self.left, self.right = parts
            self.refresh()

    @property
    def text(self) -> str:
        """Both texts, for tests and for copying."""
        return f"{self.left.plain} {self.right.plain}".strip()

    def render(self) -> RenderResult:
        """Return the line: the right text gives way when there is no room for both."""
        width = self.size.width
        room = width - self.left.cell_length - _GAP
        if not self.right or room < min(_LEAST, self.right.cell_length):
            return end_cut(Content.assemble(" ", self.left), width, self)
        right = end_cut(self.right, room, self)
        gap = width - self.left.cell_length - right.cell_length - 2
        return Content.assemble(" ", self.left, " " * gap, right, " ")


def _content(text: str | Content) -> Content:
    return text if isinstance(text, Content) else Content(text)
