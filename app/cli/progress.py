"""How every verb tells what it does: bars on a terminal, lines elsewhere, JSON, a job's record.

    with reporting(ctx, verb="pull", title=reference, target=str(path), as_json=as_json) as report:
        pull_image(..., report=report)
        report(Finished(path=...))

The verb reports ``Finished`` itself, because it knows what it made; an error that leaves the
block is reported as ``Failed`` and goes on, so that ``main`` prints it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

import click

from app.cli.sentences import (
    headline,
    how_far,
    note_line,
    output_line,
    phase_text,
    short_digest,
    size_text,
    step_lines,
)
from backend.errors import BackendError, ExitCode, LaunchError
from backend.escape import one_line
from backend.events import (
    Blob,
    Event,
    Failed,
    Note,
    Output,
    Phase,
    Report,
    Started,
    Step,
    encode,
)
from backend.progress import Progress, Throttle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

_PLAIN_PERIOD_S = 10.0
"""Seconds between two lines that only say how far it is, where there is no terminal."""

_MAX_RECORD = 64 << 20
"""Bytes of a job's events after which the output of its steps is in its log only."""

_STATES = {
    "exists": "already in the cache",
    "downloading": "downloading",
    "uploading": "uploading",
    "retry": "trying again",
    "verifying": "verifying",
    "done": "done",
    "failed": "failed",
}


class Drawing(Protocol):
    """Something that shows events as they come; used by several threads, one at a time."""

    def show(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Leave the terminal as it was found."""


@contextmanager
def reporting(
    ctx: click.Context, *, verb: str, title: str, target: str = "", as_json: bool = False
) -> Iterator[Report]:
    """Give the verb its ``report`` and show what it says in the way that fits.

    Inside a job the events go to the job's record and plain lines to its log; with
    ``as_json`` they are lines of JSON on standard output; with ``-q`` nothing is shown; on a
    terminal there are bars; elsewhere one line for each change.

    SIGTERM and SIGHUP end the block like Ctrl-C does, so that temporary files are removed.

    Args:
        ctx: The verb's context.
        verb: ``pull``, ``build`` ...
        title: What it works on, as the user named it.
        target: The file it writes; empty when it writes none.
        as_json: What ``--json`` says.
    """
    settings = ctx.obj if isinstance(ctx.obj, dict) else {}
    job: Path | None = settings.get("job")
    lock = threading.Lock()
    with ExitStack() as stack:
        drawings = _drawings(stack, job=job, as_json=as_json, quiet=bool(settings.get("quiet")))

        def report(event: Event) -> None:
            with lock:
                for drawing in drawings:
                    drawing.show(event)

        stack.enter_context(_orderly_end())
        report(Started(verb=verb, title=title, target=target))
        try:
            yield report
        except BaseException as error:
            if failed := _failed(error):
                report(failed)
            raise


def _failed(error: BaseException) -> Failed | None:
    """Return the event that tells of an error; None for a bug of ours, which tells itself."""
    match error:
        case BackendError():
            status = error.status if isinstance(error, LaunchError) else error.exit_code
            return Failed(
                message=error.message,
                why=error.why,
                kept=error.kept,
                hint=error.hint,
                exit_code=int(status),
            )
        case OSError():
            return Failed(message=str(error), exit_code=int(ExitCode.FAILED))
        case KeyboardInterrupt() | click.Abort():
            return Failed(message="Interrupted", exit_code=128 + signal.SIGINT)
        case SystemExit():
            code = error.code if isinstance(error.code, int) else int(ExitCode.FAILED)
            return Failed(message="Interrupted", exit_code=code) if code else None
        case _:
            return None


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, unless the caller ignores them (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drawings(stack: ExitStack, *, job: Path | None, as_json: bool, quiet: bool) -> list[Drawing]:
    """Return who shows the events; the stack closes them."""
    drawings: list[Drawing] = []
    if job is not None:
        drawings += [_Lines.appending(job / "events.jsonl"), _Plain(sys.stderr)]
    elif as_json:
        drawings.append(_Lines(sys.stdout))
    elif quiet:
        pass
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from app.cli.bars import Bars

        drawings.append(Bars(sys.stderr))
    else:
        drawings.append(_Plain(sys.stderr))
    for drawing in drawings:
        stack.callback(drawing.close)
    return drawings


class _Lines:
    """Events as lines of JSON, snapshots at most five a second."""

    def __init__(self, out: TextIO, *, owned: bool = False) -> None:
        self._out = out
        self._owned = owned
        self._written = 0
        self._throttle = Throttle(self._write)

    @classmethod
    def appending(cls, path: Path) -> _Lines:
        """Write to a file that only its owner may read."""
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return cls(os.fdopen(number, "a", encoding="utf-8"), owned=True)

    def show(self, event: Event) -> None:
        self._throttle(event)

    def close(self) -> None:
        self._throttle.flush()
        if self._owned:
            self._out.close()

    def _write(self, event: Event) -> None:
        # A job's log is bounded and has the rest; what became of the steps is always kept.
        if self._owned and self._written > _MAX_RECORD and isinstance(event, Output):
            return
        # One write for one line: whoever follows the file never sees half of it for long.
        line = encode(event) + "\n"
        self._written += len(line)
        self._out.write(line)
        self._out.flush()


class _Plain:
    """One line for each change of state, and one now and then that says how far it is."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._progress = Progress()
        self._states: dict[tuple[str, str], str] = {}
        self._spoke = time.monotonic()

    def show(self, event: Event) -> None:
        self._progress.feed(event)
        for line in self._lines(event):
            self._say(line)
        if time.monotonic() - self._spoke > _PLAIN_PERIOD_S and (line := how_far(self._progress)):
            self._say(f"INFO:    {line}")

    def close(self) -> None:
        """Nothing is held open."""

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        self._out.write(line + "\n")
        self._out.flush()

    def _lines(self, event: Event) -> list[str]:
        if isinstance(event, Output):
            return [output_line(event)]
        if isinstance(event, Step):
            return self._step(event)
        if isinstance(event, Note):
            return [note_line(event)]
        if isinstance(event, Blob | Phase):
            return self._changed(event)
        text = headline(event)
        return [f"INFO:    {text}"] if text else []

    def _step(self, step: Step) -> list[str]:
        head, *rest = step_lines(step) or [""]
        key = ("step", str(step.number))
        if step.state == "waiting" or self._states.get(key) == step.state:
            return []
        named = key in self._states
        self._states[key] = step.state
        return rest if named else [head, *rest]

    def _changed(self, event: Blob | Phase) -> list[str]:
        name = f"{event.role} {event.index}" if isinstance(event, Blob) else event.name
        key = (event.kind, name)
        # A retry is said each time, with its note.
        state = event.state + (event.note if isinstance(event, Blob) else "")
        if self._states.get(key) == state or event.state == "waiting":
            return []
        self._states[key] = state
        text = phase_text(event) if isinstance(event, Phase) else self._blob_text(event)
        return [f"INFO:    {text}"] if text else []

    def _blob_text(self, blob: Blob) -> str:
        total = sum(other.role == blob.role for other in self._progress.blobs.values())
        place = f"{blob.role} {blob.index + 1}/{total}" if blob.role == "layer" else blob.role
        note = f" ({one_line(blob.note)})" if blob.note else ""
        size = f", {size_text(blob.size)}" if blob.state != "verifying" else ""
        return f"{place} {short_digest(blob.digest)}: {_STATES[blob.state]}{size}{note}"
