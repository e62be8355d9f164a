"""BuildKit's own account of a build, whichever way it comes: vertices, and what they print.

BuildKit sends snapshots of vertices.  Those called ``[stage 2/5] RUN ...`` are steps; the others
(``[internal] load build context``, ``exporting to oci image format``) are its own affairs.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.build.steps import Steps
from backend.events import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backend.build.dockerfile import Dockerfile
    from backend.errors import BuildError
    from backend.events import Report

_STEP = re.compile(r"\[(?:(.+) )?(\d+)/\d+\] (.*)", re.DOTALL)
_MAX_LINE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """A snapshot of one vertex.

    Attributes:
        digest: Its name among vertices.
        name: For people.
        started: Seconds since 1970; None while it waits.
        completed: Seconds since 1970; None until it ended.
        cached: Its result was there.
        error: Why it failed; empty while it did not.
    """

    digest: str
    name: str
    started: float | None = None
    completed: float | None = None
    cached: bool = False
    error: str = ""


class SolveLog:
    """Turns vertices and their output into the events of a build.

    Args:
        dockerfile: What is built.
        target: The stage; empty means the last.
        report: Gets the events.
    """

    def __init__(self, dockerfile: Dockerfile, target: str, report: Report) -> None:
        self._report = report
        self._stages = {name: index for index, name in enumerate(dockerfile.stage_names)}
        self._steps = Steps(dockerfile.needed(target), report)
        self._steps.total = 0  # BuildKit has no vertex for ENV and its like
        self._numbers: dict[str, int] = {}
        self._rests: dict[str, bytes] = {}
        self._error = ""

    def vertices(self, snapshots: Iterable[Vertex]) -> None:
        """Take the snapshots of one message, which BuildKit sends in no order of its own."""
        for vertex in sorted(snapshots, key=self._order):
            self._vertex(vertex)

    def _vertex(self, vertex: Vertex) -> None:
        match = _STEP.fullmatch(vertex.name)
        if match is None:
            self._other(vertex)
            return
        number = self._numbers.get(vertex.digest)
        if number is None:
            number = self._steps.add(match[3], stage=_stage(match))
            self._numbers[vertex.digest] = number
        if vertex.error:
            self._steps.failed(number, vertex.error)
        elif vertex.cached:
            self._steps.cached(number)
        elif vertex.completed is not None:
            self._steps.done(number, vertex.completed - (vertex.started or vertex.completed))
        elif vertex.started is not None:
            self._steps.begin(number)

    def output(self, digest: str, data: bytes) -> None:
        """Take what a vertex printed, which may end in the middle of a line."""
        text = self._rests.pop(digest, b"") + data
        *lines, rest = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._steps.output(self._numbers.get(digest, 0), line.decode("utf-8", "replace"))
        if rest:
            self._rests[digest] = rest[:_MAX_LINE]

    def problem(self, text: str) -> None:
        """Take what was said of the whole build's failure."""
        self._error = text

    def close(self) -> None:
        """Report the last lines, also those without an end."""
        for digest in list(self._rests):
            self.output(digest, b"\n")

    def error(self, fallback: str) -> BuildError:
        """Return the error of a build that failed."""
        self.close()
        return self._steps.error(self._error or fallback)

    def _other(self, vertex: Vertex) -> None:
        if vertex.error:
            self._error = self._error or f"{vertex.name}: {vertex.error}"
        if vertex.name.startswith("exporting to") and vertex.started is not None:
            ended = vertex.completed is not None
            self._report(Phase(name="export", state="done" if ended else "running"))

    def _order(self, vertex: Vertex) -> tuple[int, int]:
        """Return stage and number of a step; what is no step comes after all of them."""
        match = _STEP.fullmatch(vertex.name)
        if match is None:
            return (sys.maxsize, 0)
        return (self._stages.get(_stage(match), 0), int(match[2]))


def _stage(match: re.Match[str]) -> str:
    """Return the stage of a vertex; a platform may stand before it."""
    words = (match[1] or "").lower().split()
    return next((word for word in words if "/" not in word), "")
