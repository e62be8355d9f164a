"""Where an operation stands: its events folded into what a person wants to see.

The progress bars of the command line and the deck's view of a job both feed the events they
get into a :class:`Progress` and draw what it holds; neither keeps a second account.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from backend.events import (
    Blob,
    Event,
    Failed,
    Finished,
    Note,
    Output,
    Phase,
    Report,
    Resolved,
    Retained,
    Started,
    Step,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOW_S = 8.0
"""Seconds over which a rate is averaged: long enough to be read, short enough to be true."""

_OUTPUT_LINES = 5000
"""Lines of build output kept in memory; the log file has the rest."""

_PER_SECOND = 5
"""Snapshots of one blob or phase a second that :class:`Throttle` lets through."""


class Meter:
    """The speed of a growing number, averaged over the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, done: int) -> None:
        """Note that the number is ``done`` now."""
        now = self._clock()
        self._samples.append((now, done))
        while now - self._samples[0][0] > _WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()

    def restart(self) -> None:
        """Forget how fast it was."""
        while len(self._samples) > 1:
            self._samples.popleft()

    @property
    def rate(self) -> float:
        """Units per second until now; 0 before there are two samples."""
        if len(self._samples) < 2:
            return 0.0
        begin, first = self._samples[0]
        elapsed = max(self._clock() - begin, 0.05)
        return max(self._samples[-1][1] - first, 0) / elapsed


class Progress:
    """What the events of one operation add up to.

    Attributes:
        started: What it is; None before its first event.
        resolved: The image it turned out to be.
        blobs: Latest snapshot of each blob, by role and index.
        phases: Latest snapshot of each phase, by name, in the order in which they began.
        steps: Latest snapshot of each build step, by number.
        output: The last lines that steps printed.
        notes: What was said to the user.
        retained: What a failed build left to look into; None when it left nothing.
        ended: How it ended; None while it runs.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.started: Started | None = None
        self.resolved: Resolved | None = None
        self.blobs: dict[tuple[str, int], Blob] = {}
        self.phases: dict[str, Phase] = {}
        self.steps: dict[int, Step] = {}
        self.output: deque[Output] = deque(maxlen=_OUTPUT_LINES)
        self.notes: deque[Note] = deque(maxlen=100)
        self.retained: Retained | None = None
        self.ended: Finished | Failed | None = None
        self._meter = Meter(clock)
        self._moved = 0

    def feed(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Blob():
                self._feed_blob(event)
            case Phase():
                self.phases[event.name] = event
            case Step():
                self.steps[event.number] = event
            case Output():
                self.output.append(event)
            case Note():
                self.notes.append(event)
            case Retained():
                self.retained = event
            case Finished() | Failed():
                self.ended = event
            case Resolved():
                self.resolved = event
            case Started():
                self.started = event
            case _:
                raise TypeError(f"no such event: {event!r}")

    def restart_meter(self) -> None:
        """Measure the rate from now on: the events so far were read late, all at once."""
        self._meter.restart()

    def _feed_blob(self, event: Blob) -> None:
        before = self.blobs.get((event.role, event.index))
        self.blobs[event.role, event.index] = event
        # What was in the cache, or is fetched again after a cut, is not speed.
        if before and event.state != "exists":
            self._moved += max(event.done - before.done, 0)
        self._meter.add(self._moved)

    @property
    def layers(self) -> list[Blob]:
        """The layers, base first."""
        return [blob for (role, _), blob in sorted(self.blobs.items()) if role == "layer"]

    @property
    def done(self) -> int:
        """Bytes of blobs that are here."""
        return sum(
            blob.size if blob.state in {"done", "exists"} else blob.done
            for blob in self.blobs.values()
        )

    @property
    def total(self) -> int:
        """Bytes of all blobs; 0 while unknown."""
        known = sum(blob.size for blob in self.blobs.values())
        return max(known, self.resolved.total if self.resolved else 0)

    @property
    def rate(self) -> float:
        """Bytes a second that come over the network."""
        return self._meter.rate

    @property
    def eta_s(self) -> float | None:
        """Seconds until all blobs are here; None while nobody can tell."""
        left, rate = self.total - self.done, self.rate
        return left / rate if rate > 0 and left > 0 else None

    @property
    def fraction(self) -> float | None:
        """How much of the whole is done, 0 to 1; None while nobody can tell.

        Of a build, steps done; of a transfer, bytes; else the share of the running phase.
        """
        if isinstance(self.ended, Finished):
            return 1.0
        if self.steps:
            steps = self.steps.values()
            total = max(len(steps), *(step.total for step in steps))
            return sum(step.state in {"cached", "done"} for step in steps) / total
        if self.total:
            return min(self.done / self.total, 1.0)
        phase = self.phase
        return min(phase.done / phase.total, 1.0) if phase and phase.total else None

    @property
    def phase(self) -> Phase | None:
        """The phase that runs now: of several, the one that began last."""
        running = [phase for phase in self.phases.values() if phase.state == "running"]
        return running[-1] if running else None

    @property
    def step(self) -> Step | None:
        """The build step that failed, else the one that runs now."""
        for state in ("failed", "running"):
            for step in reversed(self.steps.values()):
                if step.state == state:
                    return step
        return None


class Throttle:
    """Let every change of state through at once, and of the rest a few a second.

    A snapshot that is held back gives way to the next of the same blob or phase; what is
    still held at the end of the operation, or at :meth:`flush`, is passed on then.

    Args:
        report: Who gets what passes.
        clock: Seconds.
    """

    def __init__(self, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._passed: dict[tuple[str, ...], tuple[str, float]] = {}
        self._held: dict[tuple[str, ...], Event] = {}

    def __call__(self, event: Event) -> None:
        """Pass the event on, now or later."""
        if not isinstance(event, Blob | Phase):
            if isinstance(event, Finished | Failed):
                self.flush()
            self._report(event)
            return
        key = (
            (event.kind, event.role, str(event.index))
            if isinstance(event, Blob)
            else (event.kind, event.name)
        )
        now = self._clock()
        state, when = self._passed.get(key, ("", 0.0))
        if event.state == state and now - when < 1 / _PER_SECOND:
            self._held[key] = event
            return
        # A snapshot says everything: the one that was held back has nothing to add.
        self._held.pop(key, None)
        self._passed[key] = (event.state, now)
        self._report(event)

    def flush(self) -> None:
        """Pass on what was held back."""
        held, self._held = self._held, {}
        for event in held.values():
            self._report(event)
