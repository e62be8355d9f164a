"""A screen with one main list that can be filtered and sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from textual import on
from textual.widgets import Input

from app.dialogs.choose import ChooseDialog
from app.screens.view import ViewScreen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget

    from widgets.roster import Roster

Row = TypeVar("Row")


class FilterScreen(ViewScreen, Generic[Row]):
    """The screen; ``roster`` is its main list."""

    @property
    def roster(self) -> Roster[Row]:
        """The main list."""
        raise NotImplementedError

    def compose_filter(self) -> Iterable[Widget]:
        """Return the line in which the filter is typed; it shows itself when needed."""
        yield Input(placeholder="words  !without  ~letters", compact=True, id="filter")

    def restore_order(self, default: str = "") -> None:
        """Sort as the user last did, else by ``default``; a minus means turned round."""
        order = self.desk.memory.orders.get(self.VIEW, default)
        self.roster.sort_by(order.removeprefix("-"), reverse=order.startswith("-"))

    def remember_order(self) -> None:
        """Keep how the list is sorted for the next time."""
        roster = self.roster
        order = f"{'-' if roster.reverse else ''}{roster.sorted_by}"
        if self.desk.memory.orders.get(self.VIEW, "") != order:
            self.desk.memory.orders[self.VIEW] = order
            self.desk.memory.save()

    def action_filter(self) -> None:
        """Type a filter."""
        line = self.query_one("#filter", Input)
        line.value = self.roster.wanted
        line.add_class("-shown")
        line.focus()

    @on(Input.Changed, "#filter")
    def _filter(self, event: Input.Changed) -> None:
        event.stop()
        self.roster.filter(event.value)

    @on(Input.Submitted, "#filter")
    def _filtered(self, event: Input.Submitted) -> None:
        event.stop()
        self.close_filter()

    def close_filter(self) -> None:
        """Put the filter's line away; the filter stays."""
        self.query_one("#filter", Input).remove_class("-shown")
        self.roster.focus()

    def go_back(self) -> bool:
        """Undo one thing: the filter's line, the filter, the marks.  False when there is none."""
        if self.query_one("#filter", Input).has_class("-shown"):
            self.roster.filter("")
            self.close_filter()
        elif self.roster.wanted:
            self.roster.filter("")
        elif self.roster.marked:
            self.roster.clear_marks()
        else:
            return super().go_back()
        return True

    def action_sort(self) -> None:
        """Choose the column to sort by."""
        roster = self.roster
        names = {column.key: column.title.capitalize() for column in roster.columns}

        def chosen(key: str | None) -> None:
            if key:
                again = key == roster.sorted_by
                roster.sort_by(key, reverse=not roster.reverse if again else False)
                self.remember_order()

        self.app.push_screen(ChooseDialog("Sort by", names, roster.sorted_by), chosen)
