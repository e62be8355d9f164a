"""The jobs: all of them above, and below how far the one under the cursor has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on

from app.board import JobRow
from app.commands import CommandLine
from app.requests import CommandRequested, RetryRequested
from app.screens.filtering import FilterScreen
from app.screens.job import JobScreen, open_shell, show_failure
from app.screens.jobtable import PART_COLUMNS, job_columns, parts_of, progress_words
from app.screens.panes import List, bindings
from app.words import count
from backend.escape import one_line
from widgets.roster import Roster
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from textual.widget import Widget


class JobsScreen(FilterScreen[JobRow]):
    """The list of jobs and the parts of one."""

    VIEW = "jobs"
    TAB = "jobs"
    BINDINGS = bindings("jobs")

    def compose_body(self) -> Iterable[Widget]:
        """Return the list and the detail."""
        yield StatusLine(id="summary")
        yield List(
            self.columns(job_columns(self.desk)),
            key=lambda row: row.job.number,
            empty=("No jobs yet.", "", "p    pull an image: that is a job"),
            marks=True,
            id="list",
        )
        yield StatusLine(id="detail", classes="pane-title")
        yield List(PART_COLUMNS, key=lambda part: part.key, id="parts")
        yield StatusLine(id="total")

    def on_mount(self) -> None:
        """Show the jobs."""
        super().on_mount()
        self.restore_order()
        self.roster.focus()

    @property
    def roster(self) -> Roster[JobRow]:
        """The list of jobs."""
        return self.query_one("#list", List)

    def show_board(self) -> None:
        """Show how the jobs stand, and how far the one under the cursor has come."""
        super().show_board()
        self.roster.show(self.board.rows)

    @on(Roster.Changed, "#list")
    def _show_summary(self) -> None:
        roster = self.roster
        marked = f", {len(roster.marked)} marked" if roster.marked else ""
        wanted = f"   filter: {one_line(roster.wanted)}" if roster.wanted else ""
        self.query_one("#summary", StatusLine).show(
            f"{count(len(roster.rows), 'job')}{marked}{wanted}",
            "Jobs go on when you quit or lose the connection.",
        )

    @on(Roster.Highlighted, "#list")
    def _show_current(self) -> None:
        self.show_command()
        row = self.roster.current
        row = self.board.want(row.job.number) if row else None
        self._look_at(row)
        parts = self.query_one("#parts", List)
        detail, total = self.query_one("#detail", StatusLine), self.query_one("#total", StatusLine)
        if row is None:
            parts.show(())
            detail.show("")
            total.show("")
            return
        progress = row.progress
        resolved = progress.resolved.platform if progress and progress.resolved else ""
        title = f"#{row.job.number} {row.job.verb} {one_line(row.job.title)}  {resolved}"
        process = row.job.process
        where = f"pid {process.pid}" if process.is_here else f"on {row.job.host}"
        detail.show(title, where if row.is_active else "")
        parts.show(parts_of(progress, is_active=row.is_active) if progress else ())
        if failure := row.failure:
            total.show(f"FAILED  {one_line(failure.message)}", "e why")
        else:
            words = progress_words(progress) if progress and row.is_active else [_ended(row)]
            total.show("  ".join(words))

    def _look_at(self, row: JobRow | None) -> None:
        """Take a failed job out of what the header counts, once it is on the screen."""
        seen = self.board.looked_at
        if row and row.state == "failed" and self.is_current and row.job.number not in seen:
            seen.add(row.job.number)
            super().show_board()

    def subject(self) -> Mapping[str, str]:
        """Return the job under the cursor."""
        row = self.roster.current
        return {"job": str(row.job.number)} if row else {}

    # Actions

    @on(Roster.Opened, "#list")
    def action_open(self) -> None:
        """Show the log."""
        if row := self.roster.current:
            self.app.push_screen(JobScreen(self.desk, self.board, row.job))

    def action_error(self) -> None:
        """Say why the job failed."""
        row = self.roster.current
        row = self.board.want(row.job.number) if row else None
        if row:
            show_failure(self, row)

    def action_cancel(self) -> None:
        """Ask, then end the job or all marked ones."""
        rows = [row for row in self.roster.chosen if row.is_active]
        if not rows:
            self.notify("only jobs that run or wait can be cancelled", severity="warning")
            return
        numbers = tuple(str(row.job.number) for row in rows)
        titles = [f"  #{row.job.number} {row.job.verb} {row.job.title}" for row in rows]
        self.post_message(
            CommandRequested(
                command=CommandLine(argv=("jobs", "cancel", *numbers)),
                question=[
                    f"Cancel {count(len(rows), 'job')}?",
                    *titles,
                    "What was downloaded is kept.",
                ],
                done=f"cancelled {', '.join(f'#{number}' for number in numbers)}",
                go="Cancel the job" if len(rows) == 1 else "Cancel the jobs",
            )
        )

    def action_retry(self) -> None:
        """Start the job again."""
        if row := self.roster.current:
            self.post_message(RetryRequested(row.job.number))

    def action_shell(self) -> None:
        """Open a shell in the last good layer of the build."""
        row = self.roster.current
        row = self.board.want(row.job.number) if row else None
        if row:
            open_shell(self, row)

    def action_find(self) -> None:
        """Ask for a text, and show where jobs printed it."""
        from app.dialogs.prompt import PromptDialog
        from app.screens.found import FoundScreen

        def answered(wanted: str | None) -> None:
            if wanted:
                self.app.push_screen(FoundScreen(self.desk, self.board, wanted))

        self.app.push_screen(PromptDialog("Find in all logs"), answered)

    def action_clear(self) -> None:
        """Forget the jobs that have ended."""
        over = [row for row in self.board.rows if not row.is_active]
        if over:
            self.post_message(
                CommandRequested(
                    command=CommandLine(argv=("jobs", "clear")),
                    question=[
                        f"Forget {count(len(over), 'job')} that ended, and what they printed?"
                    ],
                    done=f"forgot {count(len(over), 'job')}",
                    go="Forget",
                )
            )


def _ended(row: JobRow) -> str:
    job = row.job
    status = f", exit status {job.exit.status}" if job.exit and job.exit.status else ""
    lost = "  (its process is gone: killed, or the host was restarted)"
    return f"{row.state}{status}{lost if row.state == 'lost' else ''}"
