"""Find a text in what all jobs printed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.jobs.log import logs_of
from backend.logfile import LogFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from backend.jobs.record import Job

_MOST = 1000
"""Places that are told of one job: a word like ``a`` is in every line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A line with the text.

    Attributes:
        job: Who printed it.
        log: The file that it is in.
        line: Its number in that file, from 1.
        text: What it says; hostile.
    """

    job: Job
    log: Path
    line: int
    text: str


def find_in_logs(
    jobs: Iterable[Job], wanted: str, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Hit]:
    """Yield the lines with a text in any case of letters, job by job, the first thousand of each.

    Args:
        jobs: In whose logs to look.
        wanted: The text.
        should_stop: Asked before each file, and at each line that was found.
    """
    pattern = re.compile(re.escape(wanted.encode("utf-8", "surrogateescape")), re.IGNORECASE)
    for job in jobs:
        count = 0
        for path in logs_of(job.log):
            with LogFile(path) as log:
                for number in () if should_stop() else log.find(pattern):
                    count += 1
                    if count > _MOST or should_stop():
                        break
                    yield Hit(job=job, log=path, line=number + 1, text=log.line(number))
