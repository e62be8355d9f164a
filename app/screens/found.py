"""Where jobs printed a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on, work
from textual.message import Message
from textual.worker import get_current_worker

from app.commands import CommandLine
from app.screens.job import Found, JobScreen
from app.screens.panes import List, bindings
from app.screens.view import ViewScreen
from app.words import age, count
from backend.escape import one_line
from backend.jobs.search import Hit, find_in_logs
from widgets import ansi
from widgets.line_view import STAMP
from widgets.roster import Column, Roster
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk

_MOST = 20_000
"""Lines that are listed."""
_BATCH = 500


@dataclass
class _Found(Message):
    """More lines were found, or the search is over."""

    hits: Sequence[Hit]
    complete: bool


class FoundScreen(ViewScreen):
    """The lines; Enter goes to one in its log.

    Args:
        desk: As for every screen.
        board: As for every screen.
        wanted: The text.
    """

    VIEW = "found"
    TAB = "jobs"
    BINDINGS = bindings("found")

    def __init__(self, desk: Desk, board: Board, wanted: str) -> None:
        super().__init__(desk, board)
        self._wanted = wanted

    def compose_body(self) -> Iterable[Widget]:
        """Return summary and list."""
        yield StatusLine(id="summary")
        yield List(
            _columns(self.desk), key=lambda hit: (hit.log, hit.line), empty=("searching ...",),
            id="list",
        )  # fmt: skip

    def on_mount(self) -> None:
        """Search."""
        super().on_mount()
        self.query_one(List).focus()
        self._search()

    @work(thread=True, exclusive=True)
    def _search(self) -> None:
        worker = get_current_worker()
        jobs = [row.job for row in self.board.rows]
        hits: list[Hit] = []
        for hit in find_in_logs(jobs, self._wanted, lambda: worker.is_cancelled):
            hits.append(hit)
            if len(hits) % _BATCH == 0:
                self.post_message(_Found(tuple(hits), complete=False))
            if len(hits) >= _MOST:
                break
        if not worker.is_cancelled:
            self.post_message(_Found(tuple(hits), complete=True))

    @on(_Found)
    def _show_found(self, event: _Found) -> None:
        roster = self.query_one(List)
        roster.empty = (f"No job printed {one_line(self._wanted)}.",)
        roster.show(event.hits)
        jobs = len({hit.job.number for hit in event.hits})
        self.query_one("#summary", StatusLine).show(
            f"{one_line(self._wanted)}: {count(len(event.hits), 'line')} in {count(jobs, 'log')}",
            "" if event.complete else "searching ...",
        )

    @on(Roster.Opened, "#list")
    def action_open(self) -> None:
        """Go to the line in its log."""
        hit = self.query_one(List).current
        if hit:
            found = Found(log=hit.log, line=hit.line, wanted=self._wanted)
            self.app.push_screen(JobScreen(self.desk, self.board, hit.job, found))

    def subject(self) -> Mapping[str, str]:
        """Return what is looked for."""
        hit = self.query_one(List).current
        return {"words": self._wanted, **({"job": str(hit.job.number)} if hit else {})}

    def command(self) -> CommandLine:
        """Return what prints the same."""
        return CommandLine(argv=("jobs", "find", self._wanted))


def _columns(desk: Desk) -> tuple[Column[Hit], ...]:
    return (
        Column(key="job", title="JOB", width=5, text=lambda hit: f"#{hit.job.number}"),
        Column(key="verb", title="VERB", width=7, rank=1, text=lambda hit: hit.job.verb),
        Column(
            key="begun",
            title="BEGUN",
            width=8,
            rank=2,
            text=lambda hit: age(desk.now() - hit.job.created),
        ),
        Column(key="line", title="LINE", width=7, right=True, text=lambda hit: str(hit.line)),
        Column(
            key="text",
            title="TEXT",
            width=20,
            stretch=True,
            text=lambda hit: STAMP.sub("", ansi.plain(hit.text), count=1).strip(),
        ),
    )
