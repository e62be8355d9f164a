"""Everything one job printed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on
from textual.containers import Horizontal

from app.commands import BY_ID, CommandLine
from app.requests import AttachRequested, CommandRequested, RetryRequested
from app.screens.panes import List, Text, bindings
from app.screens.view import ViewScreen
from app.trouble import Trouble, trouble_of_event, without_secrets
from app.words import duration, home_path
from backend.errors import UsageError
from backend.escape import one_line
from backend.events import Step
from backend.logfile import LogFile, StepLines
from widgets import ansi
from widgets.line_view import LineView
from widgets.roster import Column, Roster
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from textual.widget import Widget

    from app.board import Board, JobRow
    from app.desk import Desk
    from backend.jobs import Job

_WHOLE_LOG = Step(number=0, total=0, name="the whole log", state="done")
"""Stands before the steps of a build."""

_REPORTED = 50
"""Lines of a log that a report holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A line that was found in a log.

    Attributes:
        log: The file: a log may have an older half.
        line: Its number, from 1.
        wanted: The text that is in it.
    """

    log: Path
    line: int
    wanted: str


class JobScreen(ViewScreen):
    """The log, which follows its end while the job runs.

    Args:
        desk: As for every screen.
        board: As for every screen.
        job: The job.
        found: What to light up and go to; None follows the end of the log.
    """

    VIEW = "job"
    TAB = "jobs"
    BINDINGS = bindings("job")

    def __init__(self, desk: Desk, board: Board, job: Job, found: Found | None = None) -> None:
        super().__init__(desk, board)
        self.job = job
        self._log = LogFile(found.log if found else job.log)
        self._found = found
        self._is_chosen = found is not None  # whose lines are shown: by somebody, not by us

    def compose_body(self) -> Iterable[Widget]:
        """Return title, steps, log, and why the job failed."""
        yield StatusLine(id="title", classes="pane-title")
        name = f"sifdeck-job-{self.job.number}.log"
        with Horizontal(id="panes"):
            yield List(_STEP_COLUMNS, key=lambda step: step.number, id="steps")
            yield Text(
                follow=True, empty="Nothing printed yet.", stamped=True, save_as=name, id="log"
            )
        yield StatusLine(id="failure")
        yield StatusLine(id="offer")

    def on_mount(self) -> None:
        """Show the log."""
        self.text.show(self._log, keep_place=True)
        super().on_mount()
        self.text.focus()
        if self._found:
            self.text.find(self._found.wanted, line=self._found.line - 1)

    def on_unmount(self) -> None:
        """Close the file."""
        self._log.close()

    @property
    def text(self) -> Text:
        """The log."""
        return self.query_one("#log", Text)

    def show_board(self) -> None:
        """Show what was printed since."""
        super().show_board()
        if self._log.refresh():
            if isinstance(self.text.source, StepLines):
                self.text.source.refresh()
            self.text.grown()
        self._show_steps()
        self._show_title()

    def _show_steps(self) -> None:
        """Show the steps of a build, before them a row for the whole log.

        The cursor is on the step that runs or failed, until somebody chooses another one.
        """
        row = self.board.want(self.job.number)
        progress = row.progress if row else None
        steps = [step for _, step in sorted(progress.steps.items())] if progress else []
        pane = self.query_one("#steps", List)
        self._show_failure(row)
        pane.display = bool(steps)
        pane.show([_WHOLE_LOG, *steps] if steps else [])
        if progress and steps and not self._is_chosen:
            pane.select(progress.step.number if progress.step else 0)

    def _show_failure(self, row: JobRow | None) -> None:
        """Show which instruction failed, where it stands in the Dockerfile, and why."""
        failure = row.failure if row else None
        said, offer = self.query_one("#failure", StatusLine), self.query_one("#offer", StatusLine)
        said.display = offer.display = failure is not None
        if failure:
            why = f": {one_line(failure.why)}" if failure.why else ""
            said.show(f"FAILED  {one_line(failure.message)}{why}")
            retained = row.progress.retained if row and row.progress else None
            shell = f"  s Shell after step {retained.step}" if retained else ""
            offer.show(f"R Again{shell}")

    @on(Roster.Highlighted, "#steps")
    def _show_step(self) -> None:
        """Show the lines of the step under the cursor, from its last on."""
        pane = self.query_one("#steps", List)
        step = pane.current
        if pane.has_focus:  # whoever goes back to the step that runs follows the build again
            self._is_chosen = step is not None and step.state != "running"
        number = step.number if step else 0
        if number == self._shown_step:
            return
        self.text.following = True
        self.text.show(StepLines(self._log, number) if number else self._log, keep_place=True)
        self.text.save_as = f"sifdeck-job-{self.job.number}{f'-step-{number}' * bool(number)}.log"

    @property
    def _shown_step(self) -> int:
        """The step whose lines are shown; 0 for the whole log."""
        source = self.text.source
        return source.step if isinstance(source, StepLines) else 0

    @on(Roster.Opened, "#steps")
    def _enter_step(self) -> None:
        """Go into the lines of the step."""
        self.text.focus()

    @on(LineView.Changed)
    def _show_title(self) -> None:
        row = next((row for row in self.board.rows if row.job.number == self.job.number), None)
        state = row.state if row else "gone"
        view = self.text
        marks = [
            "FOLLOW" if view.following else "",
            "WRAP" if view.wrapping else "",
            "TIMES" if view.timing else "",
            f"match {view.match_at + 1} of {len(view.matches)}" if view.wanted else "",
            f"step {self._shown_step}" if self._shown_step else "",
            f"{view.line_count} lines",
        ]
        self.query_one("#title", StatusLine).show(
            f"#{self.job.number} {self.job.verb} {one_line(self.job.title)}  {state}",
            "  ".join(mark for mark in marks if mark),
        )

    def subject(self) -> Mapping[str, str]:
        """Return the job."""
        return {"job": str(self.job.number)}

    def command(self) -> CommandLine:
        """Return the command that prints the log."""
        return CommandLine(argv=("jobs", "log", str(self.job.number)))

    # Actions

    def action_cancel(self) -> None:
        """Ask, then end the job."""
        number = str(self.job.number)
        self.post_message(
            CommandRequested(
                command=CommandLine(argv=("jobs", "cancel", number)),
                question=[
                    f"Cancel job {number}?",
                    f"  {self.job.verb} {self.job.title}",
                    "What was downloaded is kept.",
                ],
                done=f"cancelled #{number}",
                go="Cancel the job",
            )
        )

    def action_retry(self) -> None:
        """Start the job again."""
        self.post_message(RetryRequested(self.job.number))

    def action_shell(self) -> None:
        """Open a shell in the last good layer of the build."""
        row = self.board.want(self.job.number)
        if row:
            open_shell(self, row)


def open_shell(screen: ViewScreen, row: JobRow) -> None:
    """Open a shell in the last good layer of a build that failed, or say why there is none."""
    from backend.build.shell import retained_by

    try:
        if row.progress:
            retained_by(row.progress)
    except UsageError as error:
        screen.notify(f"{error.message}; {error.why}" if error.why else error.message)
        return
    command = BY_ID["job.shell"].command({"job": str(row.job.number)})
    screen.post_message(AttachRequested(command))


def _step_note(step: Step) -> str:
    if step is _WHOLE_LOG:
        return ""
    if step.state == "failed":
        return "FAILED"
    return duration(step.seconds) if step.seconds else step.state


_STEP_TONES = {"failed": "bad", "running": "good", "waiting": "dim"}
_STEP_COLUMNS: tuple[Column[Step], ...] = (
    Column(
        key="number",
        title="STEP",
        width=4,
        right=True,
        text=lambda step: str(step.number or ""),
    ),
    Column(
        key="name",
        title="",
        width=12,
        stretch=True,
        text=lambda step: step.name,
    ),
    Column(
        key="state",
        title="",
        width=8,
        text=_step_note,
        tone=lambda step: _STEP_TONES.get(step.state, ""),
    ),
)


def show_failure(screen: ViewScreen, row: JobRow) -> None:
    """Show why a job failed, and start it again when that is the answer."""
    from app.dialogs.report import ReportDialog

    job = row.job
    title = f"{job.verb} failed: {job.title}"
    detail = f"sifdeck {shlex.join(job.argv)}\njob #{job.number}  log {home_path(str(job.log))}"
    failure = row.failure
    trouble = (
        trouble_of_event(failure, title, detail=detail, job=job.number, log=last_lines(job))
        if failure
        else Trouble(
            title=title,
            what=f"The job is {row.state}, and did not say why.",
            why=_silence(row),
            detail=detail,
            log=last_lines(job),
            job=job.number,
        )
    )

    def answered(answer: str | None) -> None:
        if answer == "retry":
            screen.post_message(RetryRequested(job.number))

    screen.app.push_screen(ReportDialog(trouble), answered)


def _silence(row: JobRow) -> str:
    if row.state == "lost":
        return "its process is gone: killed from outside, or the host was restarted"
    return ""


def last_lines(job: Job) -> list[str]:
    """Return the last lines that a job printed, fit to be sent to somebody."""
    with LogFile(job.log) as log:
        numbers = range(max(0, len(log) - _REPORTED), len(log))
        return [without_secrets(one_line(ansi.plain(log.line(number)))) for number in numbers]
