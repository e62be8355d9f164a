"""The process behind a job: waits for its turn, runs the command, keeps the log, says the end.

The supervisor is a small process of its own session.  It forks the command rather than
starting a program, so that arguments with secrets never stand in a process list, and becomes
the parent of whatever the command leaves behind, so that a cancelled job leaves nothing.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import BackendError
from backend.events import Failed, encode
from backend.jobs.folder import Jobs
from backend.jobs.identity import this_process
from backend.jobs.log import Log
from backend.jobs.record import Exit, Job, read_job, write_exit, write_job
from backend.jobs.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    Command = Callable[[Sequence[str], Path], int]

_GRACE_S = 10.0
"""Seconds between SIGTERM and SIGKILL for a cancelled job."""

_TURN_S = 2.0
"""Seconds after which a queued job looks again, should no change have been announced."""

_SETTLE_S = 2.0
"""Seconds that orphans of a job get to end on SIGTERM."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def supervise(
    folder: Path, argv: Sequence[str], command: Command, limits: Mapping[str, int] | None = None
) -> None:
    """Run ``command(argv, folder)`` as the job in ``folder``; return when it is on its own.

    The caller must have one thread, and must end soon: its child is the supervisor.

    Args:
        folder: The job's folder, with its record.
        argv: The command line with its secrets.
        command: Runs it and returns an exit status.
        limits: Kind to how many jobs of it run at once; None for what is usual.

    Raises:
        FormatError: The folder holds no record.
    """
    job = read_job(folder)
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        if not os.read(ready, 1):
            raise BackendError("the supervisor ended before it began")
        return
    status = 1
    try:
        os.close(ready)
        os.setsid()
        job = replace(job, process=this_process())
        write_job(job)
        supervisor = _Supervisor(job, argv, command, limits)
        os.write(tell, b"+")
        os.close(tell)
        _leave_standard_files()
        supervisor.run()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        os._exit(status)


class _Supervisor:
    """One job, from its place in the queue to its exit file."""

    def __init__(
        self, job: Job, argv: Sequence[str], command: Command, limits: Mapping[str, int] | None
    ) -> None:
        self._job = job
        self._argv = argv
        self._command = command
        self._jobs = Jobs(job.folder.parent, limits=limits)
        self._cancelled = False
        self._killed_at: float | None = None
        # A signal writes a byte here, which ends any wait.
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._cancel)
        signal.signal(signal.SIGCHLD, _noted)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self) -> None:
        """Do all of it."""
        log = Log(self._job.log)
        try:
            status = self._run_in_turn(log)
        except BackendError as error:
            self._record_failure(error, log)
            status = int(error.exit_code)
        log.close()
        write_exit(
            self._job.folder,
            Exit(status=status, cancelled=self._cancelled, ended=time.time()),
        )
        self._jobs.announce()

    def _run_in_turn(self, log: Log) -> int:
        """Wait for the job's turn, run it and return its exit status."""
        with Watch(self._jobs.root) as watch:
            while not self._cancelled:
                watch.drain()
                started = self._jobs.take_turn(self._job)
                if started is not None:
                    self._job = started
                    return self._run_command(log)
                watch.wait(_TURN_S, self._wake)
        return 128 + signal.SIGTERM

    def _run_command(self, log: Log) -> int:
        """Run the command, log what it prints, return its exit status."""
        output, inlet = os.pipe2(os.O_CLOEXEC)
        worker = os.fork()
        if worker == 0:
            _work(self._command, self._argv, self._job.folder, inlet)
        os.close(inlet)
        with suppress(ProcessLookupError):
            os.setpgid(worker, worker)
        os.set_blocking(output, False)
        status = None
        while status is None:
            select.select([output, self._wake], [], [], 1.0)
            _drain(self._wake)
            _copy(output, log)
            self._press(worker)
            status = _status(worker)
        if self._cancelled or status >= 128:
            _end_descendants()
        _copy(output, log)
        os.close(output)
        return status

    def _press(self, worker: int) -> None:
        """Pass a cancellation on: SIGTERM to the group, later SIGKILL."""
        if not self._cancelled:
            return
        now = time.monotonic()
        if self._killed_at is None:
            self._killed_at = now
            _signal_group(worker, signal.SIGTERM)
        elif now - self._killed_at > _GRACE_S:
            _signal_group(worker, signal.SIGKILL)

    def _cancel(self, _number: int, _frame: FrameType | None) -> None:
        self._cancelled = True

    def _record_failure(self, error: BackendError, log: Log) -> None:
        """Say why the command was never run where a reader looks for it."""
        log.write(f"ERROR:   {error.message}\n".encode())
        number = os.open(
            self._job.folder / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        with os.fdopen(number, "w", encoding="utf-8") as events:
            failed = Failed(message=error.message, hint=error.hint, exit_code=int(error.exit_code))
            events.write(encode(failed) + "\n")


def _work(command: Command, argv: Sequence[str], folder: Path, output: int) -> None:
    """Be the command: print into the pipe, end with its status.  Does not return."""
    status = 1
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = command(argv, folder)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  (a bug: its traceback belongs into the log)
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status & 255)


def _leave_standard_files() -> None:
    """Let go of the caller's terminal and pipes."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


def _copy(output: int, log: Log) -> None:
    """Move what can be read now from the pipe into the log."""
    with suppress(BlockingIOError):
        while data := os.read(output, 1 << 16):
            log.write(data)


def _drain(number: int) -> None:
    with suppress(BlockingIOError):
        while os.read(number, 4096):
            pass


def _status(worker: int) -> int | None:
    """Return the worker's exit status as a shell counts; None while it runs."""
    pid, raw = os.waitpid(worker, os.WNOHANG)
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(raw)
    return code if code >= 0 else 128 - code


def _signal_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, number)


def _end_descendants() -> None:
    """End what the command left behind, wherever in its tree it was.

    As the subreaper we inherit every orphan, one generation at a time.
    """
    for number, limit_s in ((signal.SIGTERM, _SETTLE_S), (signal.SIGKILL, _GRACE_S)):
        deadline = time.monotonic() + limit_s
        while _reap() and time.monotonic() < deadline:
            for pid in _children():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.02)


def _reap() -> bool:
    """Collect children that ended; return whether some still run."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """Return the processes whose parent we are."""
    own = os.getpid()
    path = Path(f"/proc/{own}/task/{own}/children")
    if path.exists():
        return [int(pid) for pid in path.read_text(encoding="ascii").split()]
    return []


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Be a handler, so that the signal wakes us."""
