"""Text that does not fit: what is left out is always marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from textual.content import Content
    from textual.widget import Widget


def mark_of(widget: Widget) -> str:
    """Return the character that stands for what was left out: one that the terminal can draw."""
    return ">" if widget.app.has_class("-ascii") else "\u2026"


def end_cut(content: Content, width: int, widget: Widget) -> Content:
    """Return text in at most ``width`` cells, its end left out."""
    if content.cell_length <= width:
        return content
    return content.truncate(max(0, width - 1)).append(mark_of(widget))


def middle_cut(text: str, width: int, *, ellipsis: str = "..") -> str:
    """Return text in at most ``width`` cells, cut in its middle: both ends of a name matter."""
    if cell_len(text) <= width:
        return text
    if width <= len(ellipsis) + 2:
        return set_cell_size(text, width)
    tail = (width - len(ellipsis)) * 3 // 5
    head = set_cell_size(text, width - len(ellipsis) - tail)
    return head + ellipsis + _end(text, tail)


def _end(text: str, width: int) -> str:
    """Return the last characters of a text that fill ``width`` cells, or nearly."""
    end = text[-width:]
    while cell_len(end) > width:
        end = end[1:]
    return end
