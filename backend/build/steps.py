"""The steps of a build, told as events whoever runs them."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from backend.build.dockerfile import Locator
from backend.errors import BuildError
from backend.escape import one_line
from backend.events import Output, Report, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.build.dockerfile import Stage

_MAX_LINE = 16 << 10
"""Characters of one line of output; what is longer is cut."""

_MAX_NAME = 2000


_ANONYMOUS = re.compile(r"FROM [0-9a-f]{64}.*")
"""How buildah names a stage that another one begins with."""

_FOREIGN = "exec format error"
_FOREIGN_HINT = (
    "its programs are for another kind of processor, and nothing emulates that here: leave out "
    "--platform, build on such a machine, or ask an administrator for qemu-user-static"
)


class Steps:
    """Numbers the steps, measures them and finds their lines.

    Args:
        stages: What will be built, as far as the Dockerfile says.
        report: Gets the events.
        clock: Seconds.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        report: Report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._clock = clock
        self._locator = Locator(stages)
        self._steps: dict[int, Step] = {}
        self._began: dict[int, float] = {}
        self._foreign: set[int] = set()
        self.total = sum(len(stage.instructions) for stage in stages)

    def add(self, name: str, *, stage: str = "") -> int:
        """Make a step known and return its number.

        Args:
            name: The instruction.
            stage: The name of its stage, when the builder gives it.
        """
        number = len(self._steps) + 1
        self.total = max(self.total, number)
        meant = self._locator.find(name, stage)
        if meant and _ANONYMOUS.fullmatch(name):
            name = meant.text
        step = Step(
            number=number,
            total=self.total,
            name=name[:_MAX_NAME],
            state="waiting",
            line=meant.line if meant else 0,
        )
        self._steps[number] = step
        self._report(step)
        return number

    def begin(self, number: int) -> None:
        """The step runs now."""
        self._began.setdefault(number, self._clock())
        self._change(number, replace(self._steps[number], state="running"))

    def cached(self, number: int) -> None:
        """The step was not run: its result was there."""
        self._change(number, replace(self._steps[number], state="cached"))

    def done(self, number: int, seconds: float | None = None) -> None:
        """The step ended well, unless it is known to have been cached.

        Args:
            number: The step.
            seconds: How long it took, when the builder measured it.
        """
        step = self._steps[number]
        if step.state in {"waiting", "running"}:
            took = self._elapsed(number) if seconds is None else seconds
            self._change(number, replace(step, state="done", seconds=took))

    def failed(self, number: int, error: str) -> None:
        """The step failed."""
        step = self._steps[number]
        if step.state != "failed":
            took = self._elapsed(number)
            self._change(number, replace(step, state="failed", seconds=took, error=error))

    def output(self, number: int, text: str) -> None:
        """The step printed a line; 0 is no step."""
        if _FOREIGN in text.lower():
            self._foreign.add(number)
        self._report(Output(text=text[:_MAX_LINE], step=number))

    def error(self, fallback: str) -> BuildError:
        """Return the error of the build that failed.

        Args:
            fallback: What the builder said, for when no step is known to have failed.
        """
        failed = [step for step in self._steps.values() if step.state == "failed"]
        if not failed:
            return BuildError("the build failed", why=one_line(fallback))
        step = failed[0]
        place = f" (line {step.line} of the Dockerfile)" if step.line else ""
        good = sum(other.state in {"done", "cached"} for other in self._steps.values())
        steps = "step before it is" if good == 1 else f"{good} steps before it are"
        return BuildError(
            f"step {step.number} failed{place}: {one_line(step.name, limit=200)}",
            why=one_line(step.error or fallback),
            kept=f"the {steps} in the builder's cache" if good else "",
            hint=_FOREIGN_HINT if self._is_foreign(step) else "",
        )

    def _is_foreign(self, step: Step) -> bool:
        return step.number in self._foreign or _FOREIGN in step.error.lower()

    def _elapsed(self, number: int) -> float:
        began = self._began.get(number)
        return 0.0 if began is None else self._clock() - began

    def _change(self, number: int, step: Step) -> None:
        step = replace(step, total=self.total)
        if step != self._steps[number]:
            self._steps[number] = step
            self._report(step)
