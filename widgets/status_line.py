"""One line of words: at the left what matters most, at the right what may be cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

if TYPE_CHECKING:
    from textual.app import RenderResult


class StatusLine(Widget):
    """The line; markup in its texts is not interpreted."""

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
        gap = width - self.left.cell_length - self.right.cell_length - 2
        if gap < 1 or not self.right:
            return Content.assemble(" ", self.left).truncate(width, ellipsis=True)
        return Content.assemble(" ", self.left, " " * gap, self.right, " ")


def _content(text: str | Content) -> Content:
    return text if isinstance(text, Content) else Content(text)
