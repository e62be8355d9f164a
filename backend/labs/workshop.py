"""A lab in the hands of a learner: its folder, its registry, its checks and what was done.

The folder is a :mod:`backend.playground`, so nothing of the user's own is touched; in ``bin``
stands a ``sifdeck`` that notes what was typed.  Settings and cache are the user's, and where
the site shares a cache, the site's: thirty learners convert an image once.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shlex
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import ExistsError, NotFoundError
from backend.escape import quoted
from backend.labregistry.storage import is_served
from backend.labs import recorder
from backend.labs.checks import Finding, Scene
from backend.labs.document import MAX_SIZE, Lab, Step, parse_lab
from backend.labs.progress import (
    Progress,
    check_learner,
    read_history,
    read_progress,
    write_progress,
)
from backend.paths import state_home
from backend.playground import PASSWORD, PROJECT, USER, Playground, playing
from backend.program import OURSELVES
from backend.settings import variable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where labs and learners are.

    Attributes:
        folders: With labs (``*.md``), first come first served.
        home: With a folder per learner.
        learner: Who we are.
    """

    folders: tuple[Path, ...]
    home: Path
    learner: str

    def folder(self, lab: str) -> Path:
        """Return the folder of the learner's work on a lab."""
        return self.home / self.learner / lab

    def names(self) -> list[str]:
        """Return the names of all labs, those of the first folder first."""
        found = [path.stem for folder in self.folders for path in sorted(folder.glob("*.md"))]
        return list(dict.fromkeys(found))

    def read(self, name: str, *, registry: str = "HOST:PORT") -> Lab:
        """Return a lab.

        Args:
            name: Of the lab.
            registry: Stands in its texts.

        Raises:
            NotFoundError: There is no such lab.
            FormatError: Its file is none.
        """
        values = {"registry": registry, "user": USER, "password": PASSWORD, "project": PROJECT}
        for folder in self.folders if Path(name).name == name else ():
            with contextlib.suppress(FileNotFoundError), (folder / f"{name}.md").open("rb") as file:
                return parse_lab(name, file.read(MAX_SIZE + 1), values)
        known = ", ".join(self.names()) or "none"
        raise NotFoundError(f"there is no lab {quoted(name)}", hint=f"labs: {known}")

    def progress(self, lab: str) -> Progress:
        """Return where the learner stands with a lab."""
        return read_progress(self.folder(lab), self.learner, lab)

    def reset(self, lab: str) -> bool:
        """Remove the learner's work on a lab; return whether there was any.

        Raises:
            ExistsError: The lab is open.
        """
        folder = self.folder(lab)
        if not folder.exists():
            return False
        if is_served(folder / "registry"):
            raise ExistsError(
                f"the lab {quoted(lab)} is open", hint="leave it first, there where it is open"
            )
        shutil.rmtree(folder)
        return True


def find_place(shipped: Path, *, folder: Path | None = None, learner: str = "") -> Place:
    """Return where labs and learners are.

    Inside a lab the variables say which place it is, because the state folder is another there.

    Args:
        shipped: The folder of the labs that come with us.
        folder: The teacher's.
        learner: Who; otherwise ``SIFDECK_LEARNER``, otherwise the user.

    Raises:
        UsageError: The learner's name cannot be the name of a folder.
    """
    name = learner or variable("LEARNER") or _user()
    home = variable("LAB_HOME")
    return Place(
        folders=(folder, shipped) if folder else (shipped,),
        home=Path(home) if home else state_home() / "labs",
        learner=check_learner(name),
    )


def _user() -> str:
    """Return our name, as the name of a folder; some sites' names have a backslash in them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no variable says, and no passwd knows
        name = f"uid{os.getuid()}"
    return re.sub(r"[^A-Za-z0-9_.@-]|^[^A-Za-z0-9_]", "_", name)[:64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What the checks of a step found.

    Attributes:
        step: The step.
        state: ``done`` stays, whatever the checks say later; ``skipped`` cannot be done here.
        findings: One per check; empty for a step that was done before or is skipped.
    """

    step: Step
    state: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """A lab that is open: its registry is being served.

    Attributes:
        place: Where it is.
        lab: With the registry's address in its texts.
        playground: Its folder and registry.
    """

    place: Place
    lab: Lab
    playground: Playground

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the learner's shell and the deck."""
        found = self.playground.environment
        for name in ("SIFDECK_CACHE_DIR", "SIFDECK_CONFIG_DIR"):
            del found[name]
            if own := os.environ.get(name):
                found[name] = own
        return found | {
            "PATH": f"{self.playground.folder / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "SIFDECK_LAB": self.lab.name,
            "SIFDECK_LAB_DIR": str(self.place.folders[0]),
            "SIFDECK_LAB_HOME": str(self.place.home),
            "SIFDECK_LEARNER": self.place.learner,
        }

    def scene(self) -> Scene:
        """Return what the checks look at."""
        return Scene(
            folder=self.playground.work,
            environment=self.environment,
            typed=read_history(self.playground.folder / "history.jsonl"),
        )

    def look(self, step: Step) -> tuple[Finding, ...]:
        """Return what the checks of a step find now; a step without checks was read."""
        scene = self.scene()
        return tuple(check.look(scene) for check in step.checks)

    def check(self, steps: Sequence[Step], missing: frozenset[str]) -> list[StepResult]:
        """Look at steps that are not done yet, and keep what was found.

        Args:
            steps: Of this lab.
            missing: What this machine cannot do.
        """
        return [self._check(step, missing) for step in steps]

    def _check(self, step: Step, missing: frozenset[str]) -> StepResult:
        if self.place.progress(self.lab.name).is_done(step.id):
            return StepResult(step=step, state="done")
        if missing.intersection(step.needs):
            progress = self.place.progress(self.lab.name).skipping(step.id)
            write_progress(self.playground.folder, progress)
            return StepResult(step=step, state="skipped")
        findings = self.look(step)
        passed = all(finding.passed for finding in findings)
        # Read again: the look may have taken long, and the deck looks as well.
        progress = self.place.progress(self.lab.name).tried(step.id, passed=passed)
        write_progress(self.playground.folder, progress)
        state = "done" if passed else "open"
        return StepResult(step=step, state=state, findings=findings)


@contextlib.contextmanager
def opened(place: Place, name: str) -> Iterator[Workshop]:
    """Open a lab: make its folder, serve its registry, begin its progress.

    A lab that another process has open is used as it is.

    Raises:
        NotFoundError: There is no such lab.
        FormatError: The lab or the learner's progress is damaged.
    """
    place.read(name)
    folder = place.folder(name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    progress = place.progress(name)
    with contextlib.ExitStack() as stack:
        try:
            playground = stack.enter_context(playing(folder, port=progress.port))
        except ExistsError:
            if not progress.port:
                raise
            yield attach(place, name)
            return
        port = int(playground.registry.rpartition(":")[2])
        started = progress.started or int(time.time())
        write_progress(folder, replace(progress, port=port, started=started))
        _write_recorder(folder)
        lab = place.read(name, registry=playground.registry)
        yield Workshop(place=place, lab=lab, playground=playground)


def attach(place: Place, name: str) -> Workshop:
    """Return a lab that another process has open.

    Raises:
        NotFoundError: There is no such lab, or it was never started.
        FormatError: The lab or the learner's progress is damaged.
    """
    port = place.progress(name).port
    if not port:
        raise NotFoundError(f"the lab {quoted(name)} is not open", hint=f"sifdeck lab start {name}")
    playground = Playground(folder=place.folder(name), registry=f"127.0.0.1:{port}")
    lab = place.read(name, registry=playground.registry)
    return Workshop(place=place, lab=lab, playground=playground)


def _write_recorder(folder: Path) -> None:
    """Put the ``sifdeck`` that notes what was typed on the lab's path."""
    program = folder / "bin" / "sifdeck"
    program.parent.mkdir(exist_ok=True)
    words = (sys.executable, "-IS", recorder.__file__, str(folder / "history.jsonl"), *OURSELVES)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} -- "$@"\n')
    program.chmod(0o755)


def missing_here() -> frozenset[str]:
    """Return which of the things that steps may need this machine does not have."""
    from backend.build.detect import candidates

    has_builder = any(candidate.make for candidate in candidates())
    return frozenset() if has_builder else frozenset({"builder"})


def lacking(step: Step) -> str:
    """Return the sentence on what a step needs and this machine has not; "" for nothing."""
    from backend.build.detect import install_hint

    if not step.needs or not missing_here().intersection(step.needs):
        return ""
    return f"This machine cannot do this step: it has no builder ({install_hint()})."
