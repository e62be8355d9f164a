"""Text of any length: a log that grows, or a document; only what is on the screen is read.

Follows the end while lines are added, wraps, finds and lights up matches.  Keys are bound by
whoever uses it: the ``action_*`` methods are there for that.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from widgets import ansi

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from textual.selection import Selection

ERROR = re.compile(rb"(?i)\b(error|fatal|failed|failure|panic|traceback|exception|denied)\b")
"""What a line that speaks of an error has in it."""

_MAX_MATCHES = 1_000_000
_SIDEWAYS = 8
"""Cells that the arrows to the left and right scroll."""


class Lines(Protocol):
    """Where text comes from; :class:`backend.logfile.LogFile` is one."""

    def __len__(self) -> int: ...

    def line(self, number: int, /) -> str:
        """Return a line without its end; it may hold escape sequences."""

    def find(self, pattern: re.Pattern[bytes], /) -> Iterator[int]:
        """Yield the numbers of the lines that match, in order."""


class Document:
    """Lines that are all there, for what is no file."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._lines = tuple(lines)

    def __len__(self) -> int:
        return len(self._lines)

    def line(self, number: int) -> str:
        """Return a line."""
        return self._lines[number]

    def find(self, pattern: re.Pattern[bytes]) -> Iterator[int]:
        """Yield the numbers of the lines that match."""
        for number, line in enumerate(self._lines):
            if pattern.search(line.encode("utf-8", "replace")):
                yield number


class LineView(ScrollView, can_focus=True):
    """The text.

    Args:
        follow: Whether to stay at the end while lines are added.
    """

    COMPONENT_CLASSES = {"line-view--match", "line-view--current", "line-view--empty"}

    DEFAULT_CSS = """
    LineView { height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; }
    """

    @dataclass
    class Changed(Message):
        """What is shown, followed or found changed."""

        view: LineView

        @property
        def control(self) -> LineView:
            """The view, for ``@on`` selectors."""
            return self.view

        def can_replace(self, message: Message) -> bool:
            """Only the last state matters."""
            return isinstance(message, LineView.Changed) and message.view is self.view

    def __init__(
        self,
        *,
        follow: bool = False,
        empty: str = "",
        id: str | None = None,  # noqa: A002  (Textual's name)
    ) -> None:
        super().__init__(id=id)
        self.following = follow
        self.wrapping = False
        self.empty = empty
        self.wanted = ""
        self._pattern: re.Pattern[bytes] | None = None
        self._light: re.Pattern[str] | None = None
        self.matches: Sequence[int] = ()
        self.match_at = -1
        self._source: Lines = Document()
        self._rows: list[tuple[int, int]] = []
        self._left = 0

    # What it shows

    def show(self, source: Lines, *, keep_place: bool = False) -> None:
        """Show other text, from its start or, when following, its end."""
        self._source = source
        if not keep_place:
            self._left = 0
            self.scroll_to(y=0, animate=False, force=True)
        if self._pattern:
            self._search()
        self.grown()

    def grown(self) -> None:
        """Show lines that were added to the source."""
        # Wrapped, the last line must be able to stand at the top: lines are taller than one.
        spare = max(0, self.size.height - 1) if self.wrapping else 0
        self.virtual_size = Size(self.size.width, len(self._source) + spare)
        if self.following:
            self._to_end()
        self._rows = []
        self.refresh()
        self.post_message(self.Changed(self))

    @property
    def line_count(self) -> int:
        """How many lines there are."""
        return len(self._source)

    @property
    def source(self) -> Lines:
        """Where the text comes from."""
        return self._source

    # Finding

    def find(self, wanted: str) -> None:
        """Light up a text, in any case of letters, and go to its next match."""
        self.wanted = wanted
        self._pattern = re.compile(re.escape(wanted.encode()), re.IGNORECASE) if wanted else None
        self._light = re.compile(re.escape(wanted), re.IGNORECASE) if wanted else None
        self._search()
        if self.matches:
            here = bisect.bisect_left(self.matches, self.scroll_offset.y)
            self._to_match(here % len(self.matches))
        self.refresh()
        self.post_message(self.Changed(self))

    def _search(self) -> None:
        found: list[int] = []
        if self._pattern:
            for number in self._source.find(self._pattern):
                found.append(number)
                if len(found) >= _MAX_MATCHES:
                    break
        self.matches = found
        self.match_at = min(self.match_at, len(found) - 1)

    def action_next(self) -> None:
        """Go to the next match, after the last to the first."""
        if self.matches:
            self._to_match((self.match_at + 1) % len(self.matches))

    def action_previous(self) -> None:
        """Go to the match before."""
        if self.matches:
            self._to_match((self.match_at - 1) % len(self.matches))

    def action_error(self) -> None:
        """Go to the next line that speaks of an error, after the last to the first."""
        lines = list(self._source.find(ERROR))
        if not lines:
            self.app.bell()
            return
        here = self._shown_line if self._shown_line in lines else self.scroll_offset.y - 1
        place = bisect.bisect_right(lines, here) % len(lines)
        self._to_line(lines[place])

    _shown_line = -1

    def _to_match(self, place: int) -> None:
        self.match_at = place
        self._to_line(self.matches[place])

    def _to_line(self, number: int) -> None:
        """Show a line, some lines below the top, and light it up."""
        self.following = False
        self._shown_line = number
        self.scroll_to(y=max(0, number - self.size.height // 3), animate=False, force=True)
        self._rows = []
        self.refresh()
        self.post_message(self.Changed(self))

    # Moving about

    def _go(self, y: float) -> None:
        self.following = False
        self.scroll_to(y=y, animate=False, force=True)
        self.post_message(self.Changed(self))

    def _to_end(self) -> None:
        self.scroll_to(y=self._last_top(), animate=False, force=True)

    def _last_top(self) -> int:
        """Return the line at the top of the screen when the last one is at its bottom."""
        height, number = self.size.height, len(self._source)
        while number > 0 and height > 0:
            height -= self._height(number - 1)
            number -= height >= 0
        return max(0, min(number, len(self._source) - 1))

    def action_down(self) -> None:
        """Go one line down."""
        self._go(self.scroll_offset.y + 1)

    def action_up(self) -> None:
        """Go one line up."""
        self._go(self.scroll_offset.y - 1)

    def action_page_down(self) -> None:
        """Go one screen down."""
        self._go(self.scroll_offset.y + max(1, self.size.height - 1))

    def action_page_up(self) -> None:
        """Go one screen up."""
        self._go(self.scroll_offset.y - max(1, self.size.height - 1))

    def action_top(self) -> None:
        """Go to the first line."""
        self._go(0)

    def action_bottom(self) -> None:
        """Go to the last line."""
        self._go(self._last_top())

    def action_left(self) -> None:
        """Scroll to the left."""
        self._sideways(-_SIDEWAYS)

    def action_right(self) -> None:
        """Scroll to the right."""
        self._sideways(_SIDEWAYS)

    def _sideways(self, cells: int) -> None:
        if not self.wrapping:
            self._left = max(0, self._left + cells)
            self.refresh()

    def action_follow(self) -> None:
        """Stay at the end while lines are added, or no longer."""
        self.following = not self.following
        self.grown()

    def action_wrap(self) -> None:
        """Break long lines, or no longer."""
        self.wrapping = not self.wrapping
        self._left = 0
        self.grown()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Draw the lines that came into sight."""
        super().watch_scroll_y(old_value, new_value)
        self._rows = []

    def on_resize(self) -> None:
        """Break lines anew."""
        self.grown()

    def on_mouse_scroll_up(self) -> None:
        """Looking back ends following."""
        self.following = False
        self.post_message(self.Changed(self))

    # Drawing

    def _height(self, number: int) -> int:
        """Return how many lines of the screen a line takes."""
        if not self.wrapping:
            return 1
        width = max(1, self.size.width)
        return max(1, -(-cell_len(ansi.plain(self._source.line(number))) // width))

    def _layout(self) -> list[tuple[int, int]]:
        """Return (line, part of it) for each line of the screen."""
        rows: list[tuple[int, int]] = []
        number = self.scroll_offset.y
        while len(rows) < self.size.height and number < len(self._source):
            rows += ((number, part) for part in range(self._height(number)))
            number += 1
        return rows[: self.size.height]

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        width, base = self.size.width, self.rich_style
        if not len(self._source):
            text = f"  {self.empty}" if y == 1 else ""
            style = self.get_component_rich_style("line-view--empty")
            return Strip([Segment(text, style)]).adjust_cell_length(width, base)
        if not self._rows:
            self._rows = self._layout()
        if y >= len(self._rows):
            return Strip.blank(width, base)
        number, part = self._rows[y]
        begin = part * width if self.wrapping else self._left
        strip = self._selected(self._strip(number, base), number)
        return strip.crop_extend(begin, begin + width, base).apply_offsets(begin, number)

    def _strip(self, number: int, base: Style) -> Strip:
        pieces = [
            Segment(text, base + style if style else base)
            for text, style, _ in ansi.segments(self._source.line(number))
        ]
        strip = Strip(pieces)
        return self._lit(strip, self._light, number) if self._light else strip

    def _selected(self, strip: Strip, number: int) -> Strip:
        """Return a line with what the mouse has selected of it."""
        span = self.text_selection.get_span(number) if self.text_selection else None
        if span is None:
            return strip
        text = strip.text
        first, last = span
        begin = cell_len(text[:first])
        end = strip.cell_length if last < 0 else cell_len(text[:last])
        style = self.screen.get_component_rich_style("screen--selection", partial=True)
        parts = strip.crop(0, begin), _over(strip.crop(begin, end), style), strip.crop(end)
        return Strip.join(parts)

    def _lit(self, strip: Strip, wanted: re.Pattern[str], number: int) -> Strip:
        """Return a line with its matches lit up."""
        is_current = number == self._shown_line
        style = self.get_component_rich_style(
            "line-view--current" if is_current else "line-view--match", partial=True
        )
        text = strip.text
        out: list[Strip] = []
        place = 0
        for match in wanted.finditer(text):
            begin, end = (cell_len(text[:at]) for at in match.span())
            out += [strip.crop(place, begin), _over(strip.crop(begin, end), style)]
            place = end
        return Strip.join([*out, strip.crop(place)])

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Return the text that was selected with the mouse."""
        first, end = self._span(selection)
        lines = [ansi.plain(self._source.line(number)) for number in range(first, end)]
        if not lines:
            return None
        # The last line first: cutting the first one would move its columns.
        if selection.end:
            lines[-1] = lines[-1][: selection.end.x]
        if selection.start:
            lines[0] = lines[0][selection.start.x :]
        return "\n".join(lines), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Draw what is selected now."""
        del selection
        self.refresh()

    def _span(self, selection: Selection) -> tuple[int, int]:
        begin = selection.start.y if selection.start else 0
        end = selection.end.y + 1 if selection.end else len(self._source)
        return begin, min(end, len(self._source))


def _over(strip: Strip, style: Style) -> Strip:
    """Return a strip whose colours give way to those of ``style``."""
    return Strip([Segment(text, (own or Style.null()) + style) for text, own, _ in strip])
