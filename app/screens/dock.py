"""On a large screen: the jobs and the log of one of them, below whatever else is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.containers import Horizontal

from app.screens.jobtable import PART_COLUMNS, job_columns, parts_of
from app.screens.panes import List, Text
from backend.logfile import LogFile
from widgets.roster import Roster

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from app.board import Board, JobRow
    from app.desk import Desk


class Dock(Horizontal):
    """Jobs at the left, at the right the log of the one under the cursor.

    Args:
        desk: As for a screen.
        board: The jobs.
    """

    def __init__(self, desk: Desk, board: Board) -> None:
        super().__init__(id="dock")
        self._desk, self._board = desk, board
        self._file: LogFile | None = None

    def compose(self) -> ComposeResult:
        """Lay out list and log."""
        yield List(
            job_columns(self._desk),
            key=lambda row: row.job.number,
            empty=("No jobs yet.",),
            id="dock-jobs",
        )
        yield List(PART_COLUMNS, key=lambda part: part.key, id="dock-parts")
        yield Text(follow=True, empty="Nothing printed yet.", stamped=True, id="dock-log")

    def on_mount(self) -> None:
        """Show the jobs."""
        self.show()

    def on_unmount(self) -> None:
        """Close the log."""
        if self._file:
            self._file.close()

    def show(self) -> None:
        """Show how the jobs stand, and what was printed since."""
        if not self.query("#dock-jobs"):  # it is being built
            return
        self.query_one("#dock-jobs", List).show(self._board.rows)
        self._show_parts()
        if self._file and self._file.refresh():
            self.query_one(Text).grown()

    def _show_parts(self) -> None:
        """Show how far each part of the job under the cursor is, while it runs."""
        row: JobRow | None = self.query_one("#dock-jobs", List).current
        parts = self.query_one("#dock-parts", List)
        progress = row.progress if row and row.is_active else None
        parts.display = progress is not None
        parts.show(parts_of(progress) if progress else ())

    @on(Roster.Highlighted, "#dock-jobs")
    def _show_log(self, event: Roster.Highlighted) -> None:
        event.stop()
        self._show_parts()
        row: JobRow | None = self.query_one("#dock-jobs", List).current
        path = row.job.log if row else None
        if self._file and self._file.path == path:
            return
        if self._file:
            self._file.close()
        self._file = LogFile(path) if path else None
        if self._file:
            self.query_one(Text).show(self._file, keep_place=True)
