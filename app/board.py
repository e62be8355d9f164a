"""The jobs as the deck shows them: records, and how far each that matters has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.events import Failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.jobs import Job, Jobs, JobView
    from backend.progress import Progress
    from backend.space import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job.

    Attributes:
        job: Its record.
        state: As it was when the board was refreshed; asking again would ask the kernel.
        progress: What its events add up to; None while nobody needs to know.
    """

    job: Job
    state: str
    progress: Progress | None = None

    @property
    def is_active(self) -> bool:
        """Whether anything more will happen."""
        return self.state in {"queued", "running"}

    @property
    def failure(self) -> Failed | None:
        """How it failed; None when it did not, or did not say."""
        ended = self.progress.ended if self.progress else None
        return ended if isinstance(ended, Failed) else None


class Board:
    """All jobs, newest first.

    Events are read of jobs that run and of those that somebody looks at, and of each only
    what is new.

    Args:
        jobs: Where the records are.

    Attributes:
        rows: One for each job.
        looked_at: Numbers of failed jobs that somebody has looked at.
        store: How full the place is where images are kept; None while nobody looked.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.rows: Sequence[JobRow] = ()
        self.looked_at: set[int] = set()
        self.store: Store | None = None
        self._views: dict[int, JobView] = {}
        self._wanted: set[int] = set()

    def refresh(self) -> None:
        """Read what is new."""
        rows = []
        for job in self.jobs.list():
            state = job.state
            active = state in {"queued", "running"}
            progress = self._progress(job) if active or job.number in self._wanted else None
            rows.append(JobRow(job=job, state=state, progress=progress))
        self.rows = rows
        numbers = {row.job.number for row in rows}
        self._views = {n: view for n, view in self._views.items() if n in numbers}

    def want(self, number: int) -> JobRow | None:
        """Return a job with its progress, and keep that up to date from now on."""
        self._wanted = {number}
        for row in self.rows:
            if row.job.number == number:
                return JobRow(job=row.job, state=row.state, progress=self._progress(row.job))
        return None

    def _progress(self, job: Job) -> Progress:
        from backend.jobs import JobView

        view = self._views.get(job.number)
        if view is None:
            view = self._views[job.number] = JobView(job.folder)
        view.refresh()
        return view.progress

    @property
    def active(self) -> list[JobRow]:
        """The jobs that run or wait, newest first."""
        return [row for row in self.rows if row.is_active]

    @property
    def unseen_failures(self) -> int:
        """How many jobs failed that nobody has looked at."""
        return sum(
            row.state == "failed" and row.job.number not in self.looked_at for row in self.rows
        )

    def count(self, *states: str) -> int:
        """Return how many jobs are in one of these states."""
        return sum(row.state in states for row in self.rows)
