"""What a learner has done in a lab: two files under the state home, and nowhere else.

::

    labs/LEARNER/LAB/progress.json     steps with the times at which they were done
    labs/LEARNER/LAB/history.jsonl     commands typed in the lab, and how they ended
    labs/LEARNER/LAB/...               the lab's folder, see workshop

The files are the learner's own and can be changed by them; they help to learn, not to grade.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from backend.errors import FormatError, UsageError
from backend.escape import quoted
from backend.labs.checks import Typed
from backend.oci.json import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_MAX_HISTORY = 8 << 20
_LEARNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """Where a learner stands with a step.

    Attributes:
        tries: How often its checks were looked at before they passed.
        done: When they passed, seconds since 1970, UTC; 0 while they have not.
        skipped: The machine could not do it when it was looked at last.
    """

    tries: int = 0
    done: int = 0
    skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a learner stands with a lab.

    Attributes:
        learner: Who.
        lab: Name of the lab.
        started: Seconds since 1970, UTC.
        port: Of the lab's registry, so that its address stays what it was.
        steps: By id.
    """

    learner: str
    lab: str
    started: int = 0
    port: int = 0
    steps: Mapping[str, StepProgress] = field(default_factory=dict)

    def is_done(self, step: str) -> bool:
        """Tell whether a step was done."""
        return bool(self.steps.get(step, StepProgress()).done)

    def is_behind(self, step: str) -> bool:
        """Tell whether a step was done, or cannot be here, so that the next one counts."""
        known = self.steps.get(step, StepProgress())
        return bool(known.done) or known.skipped

    def tried(self, step: str, *, passed: bool) -> Progress:
        """Return the progress after a look at a step; what was done stays done."""
        old = self.steps.get(step, StepProgress())
        if old.done:
            return self
        done = int(time.time()) if passed else 0
        return self._with(step, replace(old, tries=old.tries + 1, done=done, skipped=False))

    def skipping(self, step: str) -> Progress:
        """Return the progress after a look at a step that this machine cannot do."""
        old = self.steps.get(step, StepProgress())
        return self._with(step, replace(old, skipped=True))

    def _with(self, step: str, new: StepProgress) -> Progress:
        return replace(self, steps={**self.steps, step: new})


def check_learner(name: str) -> str:
    """Return the name of a learner, which becomes the name of a folder.

    Raises:
        UsageError: It cannot.
    """
    if not _LEARNER.fullmatch(name):
        hint = "use letters, digits, _ . @ and -, at most 64"
        raise UsageError(f"a learner cannot be called {quoted(name, limit=80)}", hint=hint)
    return name


def read_progress(folder: Path, learner: str, lab: str) -> Progress:
    """Return what a lab's folder says; of a lab that was never started, nothing.

    Raises:
        FormatError: The file is damaged.
    """
    try:
        data = (folder / "progress.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Progress(learner=learner, lab=lab)
    root = load(data, f"{folder / 'progress.json'}")
    return Progress(
        learner=learner,
        lab=lab,
        started=root.need("started").size(),
        port=root.need("port").size(),
        steps={
            name: StepProgress(
                tries=_number(step, "tries"),
                done=_number(step, "done"),
                skipped=isinstance(step, dict) and step.get("skipped") is True,
            )
            for name, step in root.need("steps").object().items()
        },
    )


def write_progress(folder: Path, progress: Progress) -> None:
    """Write a lab's file so that a reader sees the old or the new one."""
    document = {
        "learner": progress.learner,
        "lab": progress.lab,
        "started": progress.started,
        "port": progress.port,
        "steps": {
            name: {"tries": step.tries, "done": step.done, "skipped": step.skipped}
            for name, step in progress.steps.items()
        },
    }
    temporary = folder / f"progress.{os.getpid()}"
    temporary.write_text(json.dumps(document, indent=2))
    temporary.replace(folder / "progress.json")


def read_history(path: Path) -> list[Typed]:
    """Return the commands that were typed, oldest first; damaged lines are left out."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_HISTORY)
    except FileNotFoundError:
        return []
    return list(_typed(data))


def _typed(data: bytes) -> Iterator[Typed]:
    for line in data.splitlines():
        try:
            root = load(line, "the history")
            yield Typed(argv=root.need("argv").texts(), status=root.need("status").size())
        except FormatError:
            continue


def _number(step: Any, name: str) -> int:  # noqa: ANN401  (JSON)
    value = step.get(name) if isinstance(step, dict) else None
    return value if type(value) is int and value >= 0 else 0
