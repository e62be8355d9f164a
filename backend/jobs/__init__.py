"""The record of every pull, build, conversion and push that runs on its own.

A job is a folder under the state home (design.md, "a job")::

    41/job.json      what was asked for, where, by which process; rewritten atomically
       events.jsonl  what happened, one event a line
       log           everything it printed, with times; log.1 is the half before
       exit          how it ended; written last

Whoever looks only reads these files, so the deck, another shell and a Slurm script see the
same, and nothing is lost when any of them ends.
"""

from __future__ import annotations

from backend.jobs.folder import Jobs
from backend.jobs.record import Job
from backend.jobs.view import JobView
from backend.jobs.watch import Watch

__all__ = ["Job", "JobView", "Jobs", "Watch"]
