"""A pane that shows an image as pages: beside the list when there is room, else on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.containers import Vertical

from app.screens.panes import Text
from backend.escape import one_line
from widgets.line_view import Document
from widgets.status_line import StatusLine
from widgets.view_tabs import ViewTabs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual.app import ComposeResult
    from textual.widget import Widget

    from app.inspection import Pages


class Inspector(Vertical):
    """Tabs, and below them the page that is shown.

    Args:
        panes: Title of a page to the widget that shows it; such pages come last.
    """

    def __init__(
        self,
        panes: Mapping[str, Widget] | None = None,
        *,
        id: str | None = None,  # noqa: A002  (Textual's name)
    ) -> None:
        super().__init__(id=id)
        self._pages: Pages = {}
        self._panes = panes or {}

    def compose(self) -> ComposeResult:
        """Lay out title, tabs and page."""
        yield StatusLine(classes="pane-title")
        yield ViewTabs({}, id="pages")
        yield Text(id="page")
        for pane in self._panes.values():
            pane.display = False
            yield pane

    def show(self, title: str, pages: Pages, *, panes: bool = False) -> None:
        """Show an image, with the panes or without.

        The page stays the one that it was, where the image has it.
        """
        self._pages = pages
        self.query_one(StatusLine).show(one_line(title))
        names = (*pages, *(self._panes if panes else ()))
        self.query_one(ViewTabs).rename({name: name for name in names})
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
        if page in self._pages or page in self._panes:
            self.query_one(ViewTabs).show(page)
            self._show_page()

    def _show_page(self) -> None:
        text = self.query_one(Text)
        widgets: tuple[Widget, ...] = (text, *self._panes.values())
        shown = self._panes.get(self.page, text)
        text.show(Document(self._pages.get(self.page, ())))
        had_focus = any(widget.has_focus for widget in widgets)
        for widget in widgets:
            widget.display = widget is shown
        if had_focus:
            shown.focus()

    @on(ViewTabs.Chosen, "#pages")
    def _choose(self, event: ViewTabs.Chosen) -> None:
        event.stop()
        self.choose(event.key)
