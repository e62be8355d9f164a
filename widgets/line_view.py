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
from widgets.cutting import mark_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from textual.selection import Selection

ERROR = re.compile(rb"(?i)\b(error|fatal|failed|failure|panic|traceback|exception|denied)\b")
"""What a line that speaks of an error has in it."""

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z ")
"""The time that stands before each line of a job's log."""

_OF_STAMP = re.compile(r"[0-9TZ:. -]+")
"""What may be found in a time alone, and is then no match while times are hidden."""
_MAX_MATCHES = 1_000_000
_SIDEWAYS = 8
"""Cells that the arrows to the left and right scroll."""


class Lines(Protocol):
    """Where text comes from; :class:`backend.logfile.LogFile` is one."""

    def __len__(self) -> int: ...

    def line(self, number: int, limit: int = ..., /) -> str:
        """Return a line without its end, or so much of it; it may hold escape sequences."""

    def find(self, pattern: re.Pattern[bytes], begin: int = 0, /) -> Iterator[int]:
        """Yield the numbers of the lines that match, in order, from the line ``begin`` on."""

    def again(self) -> Lines:
        """Return the same text for another thread, which closes it."""

    def close(self) -> None:
        """Let go of the text."""


class Document:
    """Lines that are all there, for what is no file."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._lines = tuple(lines)

    def __len__(self) -> int:
        return len(self._lines)

    def line(self, number: int, limit: int = 1 << 18) -> str:
        """Return a line, or so many characters of it."""
        return self._lines[number][:limit]

    def find(self, pattern: re.Pattern[bytes], begin: int = 0) -> Iterator[int]:
        """Yield the numbers of the lines that match, from the line ``begin`` on."""
        for number, line in enumerate(self._lines[begin:], begin):
            if pattern.search(line.encode("utf-8", "replace")):
                yield number

    def again(self) -> Document:
        """Return the same text."""
        return self

    def close(self) -> None:
        """Keep the text: it costs nothing."""


class LineView(ScrollView, can_focus=True):
    """The text.

    Args:
        follow: Whether to stay at the end while lines are added.
        empty: What to show while there are no lines.
        stamped: Whether lines begin with a time, which is shown on request.
    """

    COMPONENT_CLASSES = {
        "line-view--match",
        "line-view--current",
        "line-view--empty",
        "line-view--cut",
    }

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
        stamped: bool = False,
        id: str | None = None,  # noqa: A002  (Textual's name)
    ) -> None:
        super().__init__(id=id)
        self.following = follow
        self.stamped = stamped
        self.timing = False
        self.wrapping = False
        self.empty = empty
        self.wanted = ""
        self._pattern: re.Pattern[bytes] | None = None
        self._light: re.Pattern[str] | None = None
        self.matches: list[int] = []
        self._searched = 0
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
        self._search()
        self.grown()

    def grown(self) -> None:
        """Show lines that were added to the source."""
        self._search_on()
        # Wrapped, the last line must be able to stand at the top: lines are taller than one.
        spare = max(0, self.size.height - 1) if self.wrapping else 0
        self.virtual_size = Size(self.size.width, len(self._source) + spare)
        if self.following:
            self._to_end()
        self._rows = []
        self.refresh()
        self.post_message(self.Changed(self))

    @property
    def _width(self) -> int:
        """Cells of a line of the screen, those under the scroll bar left out."""
        return self.scrollable_content_region.width

    @property
    def line_count(self) -> int:
        """How many lines there are."""
        return len(self._source)

    @property
    def source(self) -> Lines:
        """Where the text comes from."""
        return self._source

    # Finding

    def find(self, wanted: str, *, line: int | None = None) -> None:
        """Light up a text, in any case of letters, and go to its next match.

        Args:
            wanted: The text; empty lights up nothing.
            line: Go to the first match from this line on; None means from the top of the screen.
        """
        self.wanted = wanted
        self._pattern = re.compile(re.escape(wanted.encode()), re.IGNORECASE) if wanted else None
        self._light = re.compile(re.escape(wanted), re.IGNORECASE) if wanted else None
        self._search()
        if self.matches:
            begin = self.scroll_offset.y if line is None else line
            here = bisect.bisect_left(self.matches, begin)
            self._to_match(here % len(self.matches))
        self.refresh()
        self.post_message(self.Changed(self))

    def _search(self) -> None:
        """Look for matches in all lines."""
        self.matches, self._searched = [], 0
        self._search_on()
        self.match_at = min(self.match_at, len(self.matches) - 1)

    def _search_on(self) -> None:
        """Look for matches in the lines that were added, the last one of before included."""
        if self._pattern is None:
            return
        begin = max(0, min(self._searched, len(self._source)) - 1)
        self._searched = len(self._source)
        while self.matches and self.matches[-1] >= begin:
            self.matches.pop()
        hides = self.stamped and not self.timing and _OF_STAMP.fullmatch(self.wanted)
        in_stamp = re.escape(self.wanted) if hides else ""
        for number in self._source.find(self._pattern, begin):
            if len(self.matches) >= _MAX_MATCHES:
                break
            if not in_stamp or re.search(in_stamp, self.text_of(number)):
                self.matches.append(number)

    def text_of(self, number: int) -> str:
        """Return a line as it is shown, colours and all: without its time, unless that is too."""
        line = self._source.line(number)
        hidden = STAMP.match(line) if self.stamped and not self.timing else None
        return line[hidden.end() :] if hidden else line

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

    def action_times(self) -> None:
        """Show the time of each line, or no longer."""
        self.timing = not self.timing
        self._search()
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
        width = max(1, self._width)
        return max(1, -(-cell_len(ansi.plain(self.text_of(number))) // width))

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
        width, base = self._width, self.rich_style
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
        whole = self._selected(self._strip(number, base), number)
        strip = whole.crop_extend(begin, begin + width, base)
        if not self.wrapping:
            strip = self._marked(strip, left=begin > 0, right=whole.cell_length > begin + width)
        return strip.apply_offsets(begin, number)

    def _marked(self, strip: Strip, *, left: bool, right: bool) -> Strip:
        """Return a line with marks at the ends where there is more of it."""
        style = self.get_component_rich_style("line-view--cut")
        mark = Strip([Segment(mark_of(self), style)])
        middle = strip.crop(int(left), strip.cell_length - int(right))
        return Strip.join([*([mark] if left else []), middle, *([mark] if right else [])])

    def _strip(self, number: int, base: Style) -> Strip:
        pieces = [
            Segment(text, base + style if style else base)
            for text, style, _ in ansi.segments(self.text_of(number))
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
        lines = [ansi.plain(self.text_of(number)) for number in range(first, end)]
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
