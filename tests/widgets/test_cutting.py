"""What does not fit is cut with a mark, in every widget, and never in the middle of a wide sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.content import Content

from widgets.cutting import middle_cut
from widgets.line_view import Document, LineView
from widgets.roster import Column, Roster
from widgets.status_line import StatusLine
from widgets.view_tabs import ViewTabs

if TYPE_CHECKING:
    from textual.widget import Widget

LONG = "sha256:" + "0123456789abcdef" * 4


COLUMNS: tuple[Column[str], ...] = (
    Column(key="a", title="A", width=12, text=lambda row: row),
    Column(key="b", title="B", width=12, text=lambda row: row, stretch=True),
)


class Cuts(App[None]):
    """One of each."""

    def __init__(self, *, ascii_only: bool) -> None:
        super().__init__()
        self.set_class(ascii_only, "-ascii")

    def compose(self) -> ComposeResult:
        yield StatusLine(LONG, id="left")
        yield StatusLine("a word", LONG, id="right")
        yield StatusLine(LONG[:24], "beside", id="both")
        yield ViewTabs({str(n): f"page {n}" for n in range(9)})
        yield LineView()
        yield Roster(
            COLUMNS,
            key=lambda row: row,
        )


def drawn(widget: Widget) -> str:
    content = widget.render()
    assert isinstance(content, Content)
    return content.plain


@pytest.mark.parametrize(("ascii_only", "mark"), [(False, "\u2026"), (True, ">")])
async def test_every_cut_is_marked(*, ascii_only: bool, mark: str) -> None:
    app = Cuts(ascii_only=ascii_only)
    async with app.run_test(size=(40, 20)) as pilot:
        app.query_one(LineView).show(Document([LONG, "short"]))
        app.query_one(Roster).show([LONG])
        await pilot.pause()
        for name in ("#left", "#right"):
            text = drawn(app.query_one(name))
            assert cell_len(text.rstrip()) <= 40
            assert text.rstrip().endswith(mark)
        assert drawn(app.query_one("#both")).endswith("beside ")
        assert drawn(app.query_one(ViewTabs)).endswith(mark)
        view = app.query_one(LineView)
        assert view.render_line(0).text == LONG[:39] + mark
        assert view.render_line(1).text.rstrip() == "short"
        view.action_right()
        assert view.render_line(0).text == mark + LONG[9:47] + mark
        view.action_wrap()
        assert mark not in view.render_line(0).text
        row = app.query_one(Roster).render_line(1).text
        assert row.count("..") == 2
        assert "\u2026" not in row


async def test_the_mark_is_not_under_the_scroll_bar() -> None:
    app = Cuts(ascii_only=False)
    async with app.run_test(size=(40, 20)) as pilot:
        view = app.query_one(LineView)
        view.show(Document([LONG] * 100))
        await pilot.pause()
        assert view.show_vertical_scrollbar
        assert view.render_line(0).text == LONG[:38] + "\u2026"
        view.action_wrap()
        await pilot.pause()
        assert view.render_line(0).text == LONG[:39]


async def test_a_right_text_of_which_nothing_would_be_left_gives_way() -> None:
    app = Cuts(ascii_only=False)
    async with app.run_test(size=(40, 20)) as pilot:
        line = app.query_one("#left", StatusLine)
        line.show("x" * 30, "y" * 30)
        await pilot.pause()
        assert drawn(line) == " " + "x" * 30


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [
        ("short", 10, "short"),
        ("docker.io/library/python", 16, "docker..y/python"),
        ("abcdef", 3, "abc"),
        ("\u4e2d" * 10, 9, "\u4e2d ..\u4e2d\u4e2d"),
    ],
)
def test_names_are_cut_in_their_middle(text: str, width: int, cut: str) -> None:
    assert middle_cut(text, width) == cut
    assert cell_len(middle_cut(text, width)) <= width
