"""A pane that shows an image as pages: beside the list when there is room, else on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.containers import Vertical

from app.screens.view import Text
from backend.escape import one_line
from widgets.line_view import Document
from widgets.status_line import StatusLine
from widgets.view_tabs import ViewTabs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from app.inspection import Pages


class Inspector(Vertical):
    """Tabs, and below them the page that is shown."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (Textual's name)
        super().__init__(id=id)
        self._pages: Pages = {}
        self._title = ""

    def compose(self) -> ComposeResult:
        """Lay out title, tabs and page."""
        yield StatusLine(classes="pane-title")
        yield ViewTabs({}, id="pages")
        yield Text(id="page")

    def show(self, title: str, pages: Pages) -> None:
        """Show an image; the page stays the one that it was, where the image has it."""
        self._pages = pages
        self.query_one(StatusLine).show(one_line(title))
        self.query_one(ViewTabs).rename({name: name for name in pages})
        self._show_page()

    def replace(self, page: str, lines: Sequence[str]) -> None:
        """Show other lines on one page."""
        self._pages = {**self._pages, page: lines}
        if page == self.page:
            self._show_page()

    @property
    def page(self) -> str:
        """The title of the page that is shown."""
        return self.query_one(ViewTabs).current

    def step(self, by: int) -> None:
        """Show the next page, or the one before, round the end."""
        self.choose(self.query_one(ViewTabs).step(by))

    def choose(self, page: str) -> None:
        """Show a page by its title."""
        if page in self._pages:
            self.query_one(ViewTabs).show(page)
            self._show_page()

    def _show_page(self) -> None:
        lines = self._pages.get(self.page, ())
        self.query_one(Text).show(Document(lines))

    @on(ViewTabs.Chosen, "#pages")
    def _choose(self, event: ViewTabs.Chosen) -> None:
        event.stop()
        self.choose(event.key)
