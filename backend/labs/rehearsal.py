"""Does a lab from start to end, with the commands that the lab itself shows.

A lab is good when each of its steps can be done as it says, when the checks of a step fail
before it is done, and pass after.  Tests hold the shipped labs to this, teachers their own.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.escape import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.labs.checks import Finding
    from backend.labs.document import Step
    from backend.labs.workshop import Workshop

_COMMAND_S = 300.0
_MAX_OUTPUT = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What became of one step.

    Attributes:
        step: The step.
        skipped: It needs what this machine has not.
        before: What the checks found before its commands.
        after: And after.
        output: What the commands printed.
    """

    step: Step
    skipped: bool = False
    before: tuple[Finding, ...] = ()
    after: tuple[Finding, ...] = ()
    output: str = ""

    @property
    def fault(self) -> str:
        """What is wrong with the step; empty when it is good or was skipped."""
        if self.skipped or not self.step.checks:
            return ""
        if all(finding.passed for finding in self.before):
            return "its checks pass before it is done"
        wrong = [finding.text for finding in self.after if not finding.passed]
        return "; ".join(wrong)


def rehearse(workshop: Workshop, missing: frozenset[str]) -> Iterator[Rehearsed]:
    """Do the steps of an open lab, one after the other.

    Args:
        workshop: Fresh: nothing of the lab has been done in it.
        missing: What this machine cannot do.
    """
    for step in workshop.lab.steps:
        if missing.intersection(step.needs):
            yield Rehearsed(step=step, skipped=True)
            continue
        before = workshop.look(step)
        output = "".join(_run(command, workshop) for command in step.commands)
        after = workshop.look(step)
        yield Rehearsed(step=step, before=before, after=after, output=output)


def _run(command: str, workshop: Workshop) -> str:
    """Run a block of commands as a learner's shell would; return what it printed."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        check=False,
        cwd=workshop.playground.work,
        env=workshop.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_COMMAND_S,
    )
    return printable(done.stdout.decode("utf-8", "replace"), limit=_MAX_OUTPUT)
