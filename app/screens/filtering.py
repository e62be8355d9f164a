"""A screen with one main list that can be filtered and sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from app.screens.view import ViewScreen
from backend.config import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from widgets.roster import Column, Roster

Row = TypeVar("Row")


class FilterScreen(ViewScreen, Generic[Row]):
    """The screen; ``roster`` is its main list."""

    @property
    def roster(self) -> Roster[Row]:
        """The main list."""
        raise NotImplementedError

    def columns(self, known: Sequence[Column[Row]]) -> Sequence[Column[Row]]:
        """Return the columns that the settings ask for, else all; say which there are not."""
        wanted = self.desk.config.columns.get(self.VIEW)
        if not wanted:
            return known
        by_name = {column.key: column for column in known}
        for name in wanted:
            if name not in by_name:
                self.notify(
                    f"[columns]: {self.VIEW} has no column {name!r}{nearest(name, by_name)}",
                    severity="warning",
                )
        return [by_name[name] for name in wanted if name in by_name] or known

    @property
    def filtered(self) -> Roster[Any]:
        """The list that a filter is for: the main one, of most screens."""
        return self.roster

    def restore_order(self, default: str = "") -> None:
        """Sort and filter as the user last did, else sort by ``default``; - means turned round."""
        self.roster.filter(self.desk.memory.filters.get(self.VIEW, ""))
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
        """Type a filter; the list follows every letter."""
        from app.dialogs.prompt import PromptDialog

        roster = self.filtered
        before = roster.wanted

        def answered(wanted: str | None) -> None:
            roster.filter(before if wanted is None else wanted)
            self._remember_filter()

        dialog = PromptDialog(
            "Filter", before, hint="words  !without  ~letters", on_change=roster.filter
        )
        self.app.push_screen(dialog, answered)

    def go_back(self) -> bool:
        """Undo one thing: the filter, then the marks.  False when there is none."""
        if self.filtered.wanted:
            self.filtered.filter("")
            self._remember_filter()
        elif self.roster.marked:
            self.roster.clear_marks()
        else:
            return super().go_back()
        return True

    def _remember_filter(self) -> None:
        """Keep the filter of the main list for the next time."""
        filters, wanted = self.desk.memory.filters, self.roster.wanted
        if filters.get(self.VIEW, "") != wanted:
            filters[self.VIEW] = wanted
            self.desk.memory.save()

    def action_sort(self) -> None:
        """Choose the column to sort by."""
        from app.dialogs.choose import ChooseDialog

        roster = self.roster
        names = {column.key: column.title.capitalize() for column in roster.columns}

        def chosen(key: str | None) -> None:
            if key:
                again = key == roster.sorted_by
                roster.sort_by(key, reverse=not roster.reverse if again else False)
                self.remember_order()

        self.app.push_screen(ChooseDialog("Sort by", names, roster.sorted_by), chosen)
