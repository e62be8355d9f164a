"""Progress on a terminal: a bar for each layer and the whole, or the steps of a build."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from app.cli.sentences import (
    duration,
    headline,
    note_line,
    output_line,
    short_digest,
    size_text,
    step_lines,
)
from backend.escape import one_line
from backend.events import Blob, Event, Note, Output, Phase, Step
from backend.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

_HZ = 5
_HZ_SSH = 2
"""Draws a second, locally and over SSH."""

_BAR = 24
_NAME = 22
_TAIL = 6
"""Lines of the running step's output that are shown."""


_MOVING = frozenset({"downloading", "uploading", "retry", "verifying"})


class Bars:
    """Draws what a :class:`Progress` holds, some times a second."""

    def __init__(self, out: TextIO) -> None:
        self._progress = Progress()
        self._console = Console(file=out, highlight=False, emoji=False, markup=False)
        remote = "SSH_CONNECTION" in os.environ or "SSH_TTY" in os.environ
        self._live = Live(
            get_renderable=self._picture,
            console=self._console,
            refresh_per_second=_HZ_SSH if remote else _HZ,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def show(self, event: Event) -> None:
        """Take the event into the picture; what must stay is printed above it."""
        self._progress.feed(event)
        if text := headline(event):
            self._print(f"INFO:    {text}")
        elif isinstance(event, Note):
            self._print(note_line(event), style="yellow" if event.level == "warning" else "")
        elif isinstance(event, Step) and event.state in {"cached", "done", "failed"}:
            self._print_step(event)

    def close(self) -> None:
        """Draw once more and give the terminal back."""
        self._live.stop()

    def _print(self, line: str, style: str = "") -> None:
        self._console.print(Text(line, style=style, overflow="fold"))

    def _print_step(self, step: Step) -> None:
        """Print a step that ended; if it failed, with the last of what it printed."""
        head, end = step_lines(step)
        if step.state == "failed":
            for output in self._output_of(step.number, lines=20):
                self._print(output_line(output))
        style = {"failed": "red", "cached": "dim"}.get(step.state, "")
        self._print(f"{head}  {end.partition(' ')[2]}", style=style)

    def _output_of(self, number: int, *, lines: int) -> list[Output]:
        return [output for output in self._progress.output if output.step == number][-lines:]

    def _picture(self) -> Group:
        """Return what moves: running layers, phases, the running step, the whole."""
        progress = self._progress
        rows = max(self._console.size.height - 4, 4)
        lines = [*self._layers(rows), *self._phases(), *self._steps()]
        if len(progress.layers) > 1 and progress.done < progress.total:
            lines.append(self._total())
        return Group(*lines[-rows:])

    def _layers(self, rows: int) -> Iterable[Text]:
        layers = self._progress.layers
        if not layers or self._progress.done >= self._progress.total:
            return
        # Where they do not all fit, those that move are the interesting ones.
        moving = [blob for blob in layers if blob.state in _MOVING]
        for blob in layers if len(layers) < rows - 2 else moving[: rows - 2]:
            yield self._layer(blob, len(layers))

    def _layer(self, blob: Blob, count: int) -> Text:
        name = f"{blob.index + 1:>2}/{count} {short_digest(blob.digest)}"
        share = 1.0 if blob.state in {"done", "exists"} else blob.done / max(blob.size, 1)
        note = f"  {one_line(blob.note, limit=60)}" if blob.note else ""
        return self._line(name, share, f"{size_text(blob.size):>9}  {blob.state}{note}")

    def _phases(self) -> Iterable[Text]:
        for phase in self._progress.phases.values():
            if phase.state == "running" or not self._progress.steps:
                yield self._phase(phase)

    def _phase(self, phase: Phase) -> Text:
        share = 1.0 if phase.state == "done" else phase.done / phase.total if phase.total else 0.0
        amount = size_text(phase.done) if phase.unit == "bytes" else f"{phase.done} {phase.unit}"
        return self._line(one_line(phase.name, limit=_NAME), share, f"{amount:>9}  {phase.state}")

    def _steps(self) -> Iterable[Text]:
        for step in self._progress.steps.values():
            if step.state != "running":
                continue
            yield Text(step_lines(step)[0], style="bold", overflow="ellipsis", no_wrap=True)
            for output in self._output_of(step.number, lines=_TAIL):
                yield Text(
                    "  " + output_line(output), style="dim", overflow="ellipsis", no_wrap=True
                )

    def _total(self) -> Text:
        progress = self._progress
        eta = f"  ETA {duration(progress.eta_s)}" if progress.eta_s is not None else ""
        text = f"{size_text(progress.total):>9}  {size_text(progress.rate)}/s{eta}"
        return self._line("total", progress.done / max(progress.total, 1), text)

    def _line(self, name: str, share: float, text: str) -> Text:
        full = int(_BAR * min(max(share, 0.0), 1.0))
        bar = "#" * full + "-" * (_BAR - full)
        line = f"{name:<{_NAME}} {bar} {share:>4.0%} {text}"
        return Text(line, overflow="ellipsis", no_wrap=True)
