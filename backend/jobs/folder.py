"""The folder of all jobs: numbering, starting, listing, cancelling, forgetting."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import BackendError, FormatError, NotFoundError, UsageError
from backend.jobs.identity import host_name, this_process
from backend.jobs.masking import is_masked, kept_environment
from backend.jobs.record import Job, JobKind, read_job, write_atomically, write_job
from backend.jobs.view import JobView
from backend.masking import mask_argv, mask_url
from backend.program import OURSELVES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LIMITS: Mapping[str, int] = {"network": 2, "build": 2, "local": 1}
"""Jobs of a kind that run at once on a host unless somebody set it; the others wait their turn."""

_KINDS: dict[str, JobKind] = {"build": "build", "convert": "local", "verify": "local"}
"""What verbs wait for that do not mostly wait for the network."""

_HISTORY = 200
"""Jobs that are kept; the oldest that are over go first."""


_WRITERS = frozenset({"build", "pull", "convert"})


def writes_anew(job: Job) -> bool:
    """Tell whether a job writes a file that must not be there: done again, it would fail."""
    return job.verb in _WRITERS and not {"-F", "--force"} & set(job.argv)


class Jobs:
    """All jobs of a user.

    A listing reads no file of a job that is over twice, and of the others only the records
    that changed, so it may be asked for at every change.

    Args:
        root: The folder of the jobs' folders; made when the first job starts.
        program: Runs ``jobs _supervise FOLDER``.
        limits: Kind to how many jobs of it run at once; what it lacks is in :data:`LIMITS`.
    """

    def __init__(
        self,
        root: Path,
        program: Sequence[str] = OURSELVES,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self.root = root
        self._limits = {**LIMITS, **(limits or {})}
        self._program = tuple(program)
        self._known: dict[int, tuple[tuple[int, ...], Job]] = {}

    def list(self) -> list[Job]:
        """Return all jobs, newest first."""
        numbers = self._numbers()
        jobs = [job for number in numbers if (job := self._read(number)) is not None]
        known = self._known  # another thread may start a job meanwhile
        self._known = {n: found for n in numbers if (found := known.get(n)) is not None}
        return jobs[::-1]

    def get(self, number: int) -> Job:
        """Return one job.

        Raises:
            NotFoundError: There is none of this number.
        """
        job = self._read(number)
        if job is None:
            raise NotFoundError(f"there is no job {number}", hint="sifdeck jobs lists them all")
        return job

    def view(self, number: int) -> JobView:
        """Return a view of a job's events, which has read none yet."""
        return JobView(self.get(number).folder)

    def start(
        self,
        argv: Sequence[str],
        *,
        title: str,
        verb: str = "",
        kind: JobKind | None = None,
        after: Sequence[int] = (),
    ) -> Job:
        """Start ``sifdeck ARGV`` as a job of its own and return it.

        The job has its own session and no terminal; it outlives the caller and the login.
        Secrets in ``argv`` reach it through a pipe and are kept nowhere.

        Args:
            argv: The command line after ``sifdeck``.
            title: What it works on, as the user named it.
            verb: The verb; empty means the first word of ``argv`` that is no option.
            kind: What it mostly waits for; None leaves that to the verb.
            after: Jobs that must end well before it begins.

        Raises:
            NotFoundError: A job that it should wait for does not exist.
            BackendError: It could not be started.
        """
        for number in after:
            self.get(number)
        verb = verb or next((word for word in argv if not word.startswith("-")), "")
        draft = Job(
            number=0,
            folder=self.root,
            verb=verb,
            title=mask_url(title),
            argv=mask_argv(argv),
            environment=kept_environment(os.environ),
            cwd=str(Path.cwd()),
            kind=kind or _KINDS.get(verb, "network"),
            created=0.0,
            process=this_process(),
            after=tuple(after),
        )
        return self._launch(draft, argv, os.environ)

    def retry(self, number: int, *, force: bool = False) -> Job:
        """Start a job that is over once more: same command line, folder and variables.

        Args:
            number: The job.
            force: Let it overwrite the file that it wrote the first time.

        Raises:
            NotFoundError: There is no such job, or its folder is gone.
            UsageError: It has not ended, or its command line held a secret.
        """
        job = self.get(number)
        if not job.is_over:
            raise UsageError(f"job {number} is {job.state}", hint=f"sifdeck jobs cancel {number}")
        if is_masked(job.argv):
            raise UsageError(
                f"job {number} was given a password, which is not kept",
                hint="log in with 'sifdeck registry login', or type the command again",
            )
        if not Path(job.cwd).is_dir():
            raise NotFoundError(f"the folder of job {number}, {job.cwd}, is gone")
        kept = {name: value for name, value in job.environment.items() if not is_masked([value])}
        argv = (job.argv[0], "--force", *job.argv[1:]) if force and writes_anew(job) else job.argv
        draft = replace(
            job,
            process=this_process(),
            argv=argv,
            after=(),
            retry_of=number,
            started=None,
            exit=None,
        )
        return self._launch(draft, argv, os.environ | kept)

    def cancel(self, number: int) -> Job:
        """Ask a job to end and return it as it was; its supervisor sees to the rest.

        Whatever the job started gets SIGTERM, and SIGKILL ten seconds later.

        Raises:
            NotFoundError: There is no such job.
            UsageError: It is over, or runs on another host.
        """
        job = self.get(number)
        if job.is_over:
            raise UsageError(f"job {number} is {job.state} already")
        if not job.process.is_here:
            raise UsageError(
                f"job {number} runs on {job.host}", hint=f"cancel it there: ssh {job.host}"
            )
        job.process.send(signal.SIGTERM)
        return job

    def clear(self) -> int:
        """Forget all jobs that are over; return how many that were."""
        over = [job for job in self.list() if job.is_over]
        for job in over:
            self._forget(job)
        return len(over)

    def take_turn(self, job: Job) -> Job | None:
        """Move a queued job to running if it is its turn; return it, or None to wait on.

        A job's turn has come when all that it waits for ended well, fewer than the limit of its
        kind run on this host, and none that may run was queued before it.

        Raises:
            BackendError: A job that it waits for did not end well.
        """
        with self._queue_lock():
            jobs = {other.number: other for other in self.list()}
            if not _is_ready(job, jobs):
                return None
            rivals = [other for other in jobs.values() if _competes(other, job)]
            running = sum(other.state == "running" for other in rivals)
            before = sum(
                other.state == "queued" and other.number < job.number and _may_be_ready(other, jobs)
                for other in rivals
            )
            if running + before >= self._limits[job.kind]:
                return None
            started = replace(job, started=time.time())
            write_job(started)
        self.announce()
        return started

    def announce(self) -> None:
        """Let everybody who watches know that a job's state changed."""
        with contextlib.suppress(OSError):
            os.utime(self.root)

    def _read(self, number: int) -> Job | None:
        """Return a job from its files, or from memory when they have not changed."""
        folder = self.root / str(number)
        known = self._known.get(number)
        try:
            signature = _signature(folder)
            if known is not None and known[0] == signature:
                return known[1]
            job = read_job(folder)
        except (OSError, FormatError):
            return None  # being made or being removed
        self._known[number] = (signature, job)
        return job

    def _numbers(self) -> Sequence[int]:
        """Return the numbers of all jobs, oldest first."""
        try:
            with os.scandir(self.root) as entries:
                return sorted(int(entry.name) for entry in entries if entry.name.isdecimal())
        except FileNotFoundError:
            return []

    def _new_folder(self) -> Path:
        """Make the folder of the next number; mkdir(2) is exclusive also between hosts."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = max([self._last_number(), *self._numbers()]) + 1
        while True:
            folder = self.root / str(number)
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                number += 1
                continue
            # Numbers are not used again after `jobs clear`: somebody wrote them down.
            write_atomically(self.root / ".last", str(number).encode())
            return folder

    def _last_number(self) -> int:
        try:
            return int((self.root / ".last").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def _launch(self, draft: Job, argv: Sequence[str], environment: Mapping[str, str]) -> Job:
        """Give a job its number and start its supervisor, which returns once it is on its own."""
        self._forget_oldest()
        folder = self._new_folder()
        write_job(replace(draft, number=int(folder.name), folder=folder, created=time.time()))
        result = subprocess.run(
            [*self._program, "jobs", "_supervise", str(folder)],
            input=json.dumps(list(argv)).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=draft.cwd,
            env=dict(environment),
            start_new_session=True,
            check=False,
        )
        if result.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            why = result.stderr.decode("utf-8", "replace").strip()[-400:]
            raise BackendError("the job could not be started", why=why)
        self.announce()
        return self.get(int(folder.name))

    def _forget_oldest(self) -> None:
        """Keep the history short."""
        surplus = self.list()[_HISTORY - 1 :]
        for job in surplus:
            if job.is_over:
                self._forget(job)

    def _forget(self, job: Job) -> None:
        # The record goes first, so that no listing shows half a job.
        (job.folder / "job.json").unlink(missing_ok=True)
        shutil.rmtree(job.folder, ignore_errors=True)
        self._known.pop(job.number, None)

    @contextlib.contextmanager
    def _queue_lock(self) -> Iterator[None]:
        """Hold the right to let jobs of this host begin."""
        path = self.root / f".queue-{host_name()}"
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            yield
        finally:
            os.close(number)


def _signature(folder: Path) -> tuple[int, ...]:
    """Return numbers that change whenever a job's record does."""
    record = (folder / "job.json").stat()
    ended = (folder / "exit").exists()
    return record.st_ino, record.st_mtime_ns, record.st_size, ended


def _is_ready(job: Job, jobs: dict[int, Job]) -> bool:
    """Tell whether all jobs that this one waits for ended well.

    Raises:
        BackendError: One of them did not.
    """
    for number in job.after:
        other = jobs.get(number)
        state = other.state if other else "gone"
        if state in {"failed", "cancelled", "lost", "gone"}:
            raise BackendError(f"job {number}, for which this one waited, is {state}")
        if state != "done":
            return False
    return True


def _may_be_ready(job: Job, jobs: dict[int, Job]) -> bool:
    """Tell the same of another job, whose failure is its own affair."""
    try:
        return _is_ready(job, jobs)
    except BackendError:
        return False


def _competes(other: Job, job: Job) -> bool:
    """Tell whether two jobs share a limit."""
    return other.kind == job.kind and other.host == job.host and other.number != job.number
