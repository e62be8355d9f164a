"""A list that stays quick with 100,000 rows: only the lines on the screen are ever drawn.

Rows are values of any type; a :class:`Column` says how one part of them reads and sorts.  The
list filters, sorts and marks, and keeps its cursor on the same row while rows come and go.
Keys are bound by whoever uses it: the ``action_*`` methods are there for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from backend.escape import one_line
from backend.matching import matcher
from widgets.cutting import middle_cut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual import events

Row = TypeVar("Row")
_Row_contra = TypeVar("_Row_contra", contravariant=True)


class _Text(Protocol[_Row_contra]):
    def __call__(self, row: _Row_contra, /) -> str: ...


class _Order(Protocol[_Row_contra]):
    def __call__(self, row: _Row_contra, /) -> Any: ...  # noqa: ANN401  (any ordered type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[Row]):
    """One column.

    Attributes:
        key: What settings and the sort dialog call it.
        title: Its heading.
        width: Cells; of the stretching column the least.
        text: The cell of a row; hostile text is escaped by the list.
        order: What the column sorts by; None means by its text.
        stretch: Takes the cells that are left; one column does.
        right: Aligned to the right.
        rank: 0 is always shown; a higher one goes first when the list is narrow.
        tone: The cell's colour: ``good``, ``warn``, ``bad``, ``dim`` or nothing.
    """

    key: str
    title: str
    width: int
    text: _Text[Row]
    order: _Order[Row] | None = None
    stretch: bool = False
    right: bool = False
    rank: int = 0
    tone: _Text[Row] | None = None


class Roster(ScrollView, Generic[Row], can_focus=True):
    """The list.

    Args:
        columns: From left to right.
        key: What identifies a row while its other values change.
        empty: What to show when there are no rows, one line each.
        marks: Whether rows can be marked.
    """

    COMPONENT_CLASSES = {
        "roster--header",
        "roster--cursor",
        "roster--marked",
        "roster--good",
        "roster--warn",
        "roster--bad",
        "roster--dim",
    }

    DEFAULT_CSS = """
    Roster { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    """

    @dataclass
    class Highlighted(Message):
        """The cursor is on another row, or the row under it changed."""

        roster: Roster[Any]

        @property
        def control(self) -> Roster[Any]:
            """The list, for ``@on`` selectors."""
            return self.roster

        def can_replace(self, message: Message) -> bool:
            """Only the last place of the cursor matters."""
            return isinstance(message, Roster.Highlighted) and message.roster is self.roster

    @dataclass
    class Opened(Message):
        """A row was chosen with Enter or a double click."""

        roster: Roster[Any]

        @property
        def control(self) -> Roster[Any]:
            """The list, for ``@on`` selectors."""
            return self.roster

    @dataclass
    class Changed(Message):
        """What is shown, marked or sorted changed."""

        roster: Roster[Any]

        @property
        def control(self) -> Roster[Any]:
            """The list, for ``@on`` selectors."""
            return self.roster

    def __init__(
        self,
        columns: Sequence[Column[Row]],
        *,
        key: Callable[[Row], object],
        empty: Sequence[str] = (),
        marks: bool = False,
        id: str | None = None,  # noqa: A002  (Textual's name)
    ) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self._empty: tuple[str, ...] = tuple(empty)
        self._key = key
        self._can_mark = marks
        self._rows: Sequence[Row] = ()
        self._shown: list[Row] = []
        self._texts: dict[object, str] = {}
        self._marks: set[object] = set()
        self._cursor = 0
        self.sorted_by = ""
        self.reverse = False
        self.wanted = ""

    # What it holds

    def show(self, rows: Sequence[Row]) -> None:
        """Replace the rows; the cursor stays on the row it was on, marks stay on theirs."""
        self._rows = rows
        self._texts.clear()
        if self._marks:
            self._marks &= {self._key(row) for row in rows}
        self._arrange()

    @property
    def empty(self) -> tuple[str, ...]:
        """What is shown when there are no rows, one line each."""
        return self._empty

    @empty.setter
    def empty(self, lines: Sequence[str]) -> None:
        if tuple(lines) != self._empty:
            self._empty = tuple(lines)
            self.refresh()

    @property
    def rows(self) -> Sequence[Row]:
        """All rows, unfiltered, in the order they were given."""
        return self._rows

    @property
    def shown(self) -> Sequence[Row]:
        """The rows that pass the filter, in the order shown."""
        return self._shown

    @property
    def current(self) -> Row | None:
        """The row under the cursor; None when the list is empty."""
        return self._shown[self._cursor] if self._cursor < len(self._shown) else None

    @property
    def marked(self) -> list[Row]:
        """The marked rows in the order shown, hidden ones left out."""
        return [row for row in self._shown if self._key(row) in self._marks]

    @property
    def chosen(self) -> list[Row]:
        """What an action is about: the marked rows, else the row under the cursor."""
        current = self.current
        return self.marked or ([] if current is None else [current])

    def sort_by(self, key: str, *, reverse: bool = False) -> None:
        """Sort by the column of that key; an unknown or empty one gives the order of the rows."""
        self.sorted_by, self.reverse = key, reverse
        self._arrange()

    def filter(self, wanted: str) -> None:
        """Show only rows whose cells match; see :mod:`backend.matching`."""
        self.wanted = wanted
        self._arrange()

    def select(self, key: object) -> bool:
        """Put the cursor on the row of that key; tell whether it is shown."""
        for place, row in enumerate(self._shown):
            if self._key(row) == key:
                self._move(place)
                return True
        return False

    def _arrange(self) -> None:
        current = self.current
        rows = list(self._rows)
        if self.wanted.strip():
            matches = matcher(self.wanted)
            rows = [row for row in rows if matches(self._text(row))]
        column = next((one for one in self.columns if one.key == self.sorted_by), None)
        if column:
            rows.sort(key=column.order or column.text, reverse=self.reverse)
        place = min(self._cursor, max(0, len(rows) - 1))
        if current is not None:
            kept = self._key(current)
            if not (place < len(rows) and self._key(rows[place]) == kept):
                place = next((i for i, row in enumerate(rows) if self._key(row) == kept), place)
        self._shown, self._cursor = rows, place
        self.virtual_size = Size(self.size.width, len(rows) + 1)
        self._reveal()
        self.refresh()
        self.post_message(self.Changed(self))
        self.post_message(self.Highlighted(self))

    def _text(self, row: Row) -> str:
        """Return all cells of a row in lower case, for the filter."""
        key = self._key(row)
        found = self._texts.get(key)
        if found is None:
            found = self._texts[key] = " ".join(c.text(row) for c in self.columns).lower()
        return found

    # Moving about

    def _move(self, place: int) -> None:
        place = max(0, min(place, len(self._shown) - 1))
        if place != self._cursor:
            self._cursor = place
            self._reveal()
            self.refresh()
            self.post_message(self.Highlighted(self))

    def _reveal(self) -> None:
        """Scroll so that the cursor is on the screen."""
        page = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, force=True)
        elif self._cursor >= top + page:
            self.scroll_to(y=self._cursor - page + 1, animate=False, force=True)

    @property
    def cursor(self) -> int:
        """The place of the cursor among the rows shown, from 0."""
        return self._cursor

    def action_down(self) -> None:
        """Go to the next row."""
        self._move(self._cursor + 1)

    def action_up(self) -> None:
        """Go to the row before."""
        self._move(self._cursor - 1)

    def action_page_down(self) -> None:
        """Go down by what the screen holds."""
        self._move(self._cursor + max(1, self.size.height - 2))

    def action_page_up(self) -> None:
        """Go up by what the screen holds."""
        self._move(self._cursor - max(1, self.size.height - 2))

    def action_top(self) -> None:
        """Go to the first row."""
        self._move(0)

    def action_bottom(self) -> None:
        """Go to the last row."""
        self._move(len(self._shown) - 1)

    def action_open(self) -> None:
        """Choose the row under the cursor."""
        if self.current is not None:
            self.post_message(self.Opened(self))

    def action_mark(self) -> None:
        """Mark or unmark the row under the cursor and go to the next."""
        if self._can_mark and self.current is not None:
            self._marks ^= {self._key(self.current)}
            self.action_down()
            self._marks_changed()

    def action_mark_all(self) -> None:
        """Mark every row shown; when all are marked, unmark them."""
        if self._can_mark:
            keys = {self._key(row) for row in self._shown}
            self._marks = set() if keys <= self._marks else self._marks | keys
            self._marks_changed()

    def clear_marks(self) -> None:
        """Unmark everything."""
        self._marks = set()
        self._marks_changed()

    def _marks_changed(self) -> None:
        self.refresh()
        self.post_message(self.Changed(self))

    def on_click(self, event: events.Click) -> None:
        """Put the cursor where the mouse points; a second click opens."""
        place = self.scroll_offset.y + event.y - 1
        if event.y == 0:
            self._sort_at(event.x)
        elif place < len(self._shown):
            self._move(place)
            if event.chain == 2:
                self.action_open()

    def _sort_at(self, x: int) -> None:
        left = 2
        for column, width in self._widths(self.size.width):
            if left <= x < left + width:
                again = column.key == self.sorted_by
                self.sort_by(column.key, reverse=not self.reverse if again else False)
                return
            left += width + 1

    def on_resize(self) -> None:
        """Keep the cursor on the screen."""
        self.virtual_size = Size(self.size.width, len(self._shown) + 1)
        self._reveal()

    # Drawing

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        width = self.size.width
        plain = self.rich_style
        if y == 0:
            return self._header(width)
        place = self.scroll_offset.y + y - 1
        if not self._shown and y >= 2 and y - 2 < len(self.empty):
            text = set_cell_size(f"  {self.empty[y - 2]}", width)
            return Strip([Segment(text, plain)], width)
        if place >= len(self._shown):
            return Strip.blank(width, plain)
        return self._line(place, width)

    def _widths(self, width: int) -> list[tuple[Column[Row], int]]:
        """Return the columns that fit into ``width`` cells, and how wide each is."""
        columns = list(self.columns)
        space = width - 3  # two for the marks, one for the eye
        while sum(c.width + 1 for c in columns) - 1 > space and any(c.rank for c in columns):
            columns.remove(max(columns, key=lambda column: column.rank))
        left = space - (sum(c.width + 1 for c in columns) - 1)
        return [
            (c, c.width + max(left, min(0, 8 - c.width)) if c.stretch else c.width) for c in columns
        ]

    def _header(self, width: int) -> Strip:
        style = self.get_component_rich_style("roster--header")
        cells = []
        for column, size in self._widths(width):
            arrow = ("v" if self.reverse else "^") if column.key == self.sorted_by else ""
            cells.append(_cell(f"{column.title}{arrow}", size, right=column.right))
        return Strip([Segment(set_cell_size("  " + " ".join(cells), width), style)], width)

    def _line(self, place: int, width: int) -> Strip:
        row = self._shown[place]
        is_marked = self._key(row) in self._marks
        at_cursor = place == self._cursor
        base = self.rich_style
        if is_marked:
            base += self.get_component_rich_style("roster--marked", partial=True)
        if at_cursor:
            base += self.get_component_rich_style("roster--cursor", partial=not self.has_focus)
        lead = (">" if at_cursor else " ") + ("+" if is_marked else " ")
        segments = [Segment(lead, base)]
        for number, (column, size) in enumerate(self._widths(width)):
            if number:
                segments.append(Segment(" ", base))
            text = middle_cut(one_line(column.text(row)), size)
            segments.append(
                Segment(
                    _cell(text, size, right=column.right),
                    base + self._tone(column, row, at_cursor=at_cursor),
                )
            )
        return Strip(segments).adjust_cell_length(width, base)

    def _tone(self, column: Column[Row], row: Row, *, at_cursor: bool) -> Style:
        tone = column.tone(row) if column.tone else ""
        if not tone or (at_cursor and self.has_focus):
            return Style.null()
        return self.get_component_rich_style(f"roster--{tone}", partial=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the height that shows every row."""
        del container, viewport, width
        return len(self._shown) + 1

    def line_region(self) -> Region:
        """Return where the row under the cursor is drawn, within the list."""
        return Region(0, self._cursor - self.scroll_offset.y + 1, self.size.width, 1)


def _cell(text: str, width: int, *, right: bool) -> str:
    """Return ``text`` in exactly ``width`` cells."""
    short = cell_len(text) < width
    return " " * (width - cell_len(text)) + text if right and short else set_cell_size(text, width)
