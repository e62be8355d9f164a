"""``sifdeck lab``: guided labs, in the deck or in a shell."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.common import json_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backend.labs.document import Step
    from backend.labs.progress import Progress
    from backend.labs.workshop import Place, StepResult, Workshop

SHIPPED = Path(__file__).parents[1] / "labs"
"""The labs that come with us."""

_NAME = click.argument("name", metavar="LAB", envvar="SIFDECK_LAB")
_MARKS = {"done": "ok", "skipped": "--", "open": ".."}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What stands between ``lab`` and its sub-command."""

    folder: Path | None
    learner: str

    def place(self) -> Place:
        """Return where labs and learners are."""
        from backend.config import load_config
        from backend.labs.workshop import find_place
        from backend.paths import config_home, site_config
        from backend.settings import variable

        folder = self.folder or variable("LAB_DIR")
        folder = folder or load_config(config_home() / "config.toml", site_config()).labs
        own = Path(folder).expanduser() if folder else None
        return find_place(SHIPPED, folder=own, learner=self.learner)


@click.group()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A teacher's own labs, *.md.  [default: $SIFDECK_LAB_DIR, or `labs` in config.toml]",
)
@click.option("--learner", default="", help="Who learns.  [default: $SIFDECK_LEARNER, or you]")
@click.pass_context
def lab(ctx: click.Context, *, folder: Path | None, learner: str) -> None:
    r"""Learn by doing: guided labs that check the real result.

    \b
    sifdeck lab list
    sifdeck lab start oci-mode       # in the deck; --shell for a shell
    sifdeck lab check oci-mode       # what is done, what is missing
    """
    ctx.obj = {**ctx.obj, "lab": _Options(folder=folder, learner=learner)}


@lab.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, *, as_json: bool) -> None:
    """List the labs, and how far you are."""
    from backend.errors import FormatError

    place = ctx.obj["lab"].place()
    rows = []
    for name in place.names():
        try:
            rows.append(_row(place, name))
        except FormatError as error:
            click.echo(f"WARNING: {error.message}", err=True)
    if as_json:
        _echo_json(rows)
        return
    for row in rows:
        click.echo(f"{row['name']:<16} {row['done']:>2}/{row['steps']:<3} {row['title']}")


def _row(place: Place, name: str) -> dict[str, object]:
    found, progress = place.read(name), place.progress(name)
    return {
        "name": name,
        "title": found.title,
        "summary": found.summary,
        "minutes": found.minutes,
        "steps": len(found.steps),
        "done": sum(progress.is_done(step.id) for step in found.steps),
    }


@lab.command("start")
@_NAME
@click.option("--shell", is_flag=True, help="In your shell instead of the deck.")
@click.pass_context
def start(ctx: click.Context, name: str, *, shell: bool) -> int:
    """Open a lab: its registry runs until you leave, what you did stays."""
    import subprocess

    from backend.labs.workshop import opened
    from backend.program import OURSELVES

    with opened(ctx.obj["lab"].place(), name) as workshop:
        if shell:
            click.echo(_page(workshop, _current(workshop)), err=True)
            click.echo("(sifdeck lab show, sifdeck lab check; exit leaves the lab)", err=True)
        program = [os.environ.get("SHELL", "/bin/sh")] if shell else [*OURSELVES, "deck"]
        # The program has the terminal; Ctrl-C is for it.
        with _ignoring_interrupts():
            return subprocess.run(
                program, check=False, cwd=workshop.playground.work, env=workshop.environment
            ).returncode


@lab.command("show")
@_NAME
@click.argument("step", default="")
@click.pass_context
def show(ctx: click.Context, name: str, step: str) -> None:
    """Print a step: the next one that is not done, or STEP."""
    from backend.labs.workshop import opened

    with opened(ctx.obj["lab"].place(), name) as workshop:
        click.echo(_page(workshop, _step(workshop, step) if step else _current(workshop)))


@lab.command("check")
@_NAME
@click.argument("step", default="")
@json_option
@click.pass_context
def check(ctx: click.Context, name: str, step: str, *, as_json: bool) -> int:
    """Look at what was really done; without STEP up to the first step that is not."""
    from backend.labs.workshop import opened

    with opened(ctx.obj["lab"].place(), name) as workshop:
        results = _look(workshop, step)
    if as_json:
        _echo_json([_result(result) for result in results])
    else:
        for line in (line for result in results for line in _lines(result)):
            click.echo(line)
    return 1 if any(result.state == "open" for result in results) else 0


@lab.command("reset")
@_NAME
@click.pass_context
def reset(ctx: click.Context, name: str) -> None:
    """Forget what you did in a lab, and remove its files."""
    place = ctx.obj["lab"].place()
    place.read(name)
    words = "Removed" if place.reset(name) else "There is nothing of"
    if not ctx.obj["quiet"]:
        click.echo(f"INFO:    {words} {place.folder(name)}", err=True)


@lab.command("report")
@click.argument("homes", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.pass_context
def report(ctx: click.Context, homes: tuple[Path, ...]) -> None:
    """Print as JSON who did what; nothing is sent anywhere.

    Without HOMES, of every learner in your own state folder; otherwise of those in the given
    folders, each with a folder per learner.
    """
    place = ctx.obj["lab"].place()
    found = (path for home in homes or (place.home,) for path in home.glob("*/*/progress.json"))
    _echo_json([_report(place, path) for path in sorted(found)])


@lab.command("rehearse")
@_NAME
@json_option
@click.pass_context
def rehearse(ctx: click.Context, name: str, *, as_json: bool) -> int:
    """Do a lab's own commands from start to end, in a folder of its own: for teachers.

    Each step's checks must fail before and pass after.
    """
    import tempfile
    from dataclasses import replace

    from backend.labs import rehearsal
    from backend.labs.workshop import missing_here, opened

    faults = 0
    with tempfile.TemporaryDirectory(prefix="sifdeck-lab-") as folder:
        place = replace(ctx.obj["lab"].place(), home=Path(folder))
        with opened(place, name) as workshop:
            for one in rehearsal.rehearse(workshop, missing_here()):
                faults += bool(one.fault)
                mark = "--" if one.skipped else "no" if one.fault else "ok"
                if as_json:
                    row = {"step": one.step.id, "skipped": one.skipped, "fault": one.fault}
                    _echo_json(row | {"output": one.output})
                    continue
                why = f": {one.fault}" if one.fault else ""
                click.echo(f"{mark}  {one.step.id}{why}")
                if one.fault and one.output:
                    click.echo("    " + one.output.strip().replace("\n", "\n    "), err=True)
    return 1 if faults else 0


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    import signal

    # A handler, not SIG_IGN, which the program would inherit.
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _look(workshop: Workshop, name: str) -> list[StepResult]:
    """Check one step, or all up to the first that is not done."""
    from backend.labs.workshop import missing_here

    missing = missing_here()
    if name:
        return workshop.check([_step(workshop, name)], missing)
    results: list[StepResult] = []
    for step in workshop.lab.steps:
        results += workshop.check([step], missing)
        if results[-1].state == "open":
            break
    return results


def _step(workshop: Workshop, name: str) -> Step:
    from backend.errors import NotFoundError
    from backend.escape import quoted

    found = workshop.lab.step(name)
    if found is None:
        known = ", ".join(step.id for step in workshop.lab.steps)
        raise NotFoundError(
            f"lab {workshop.lab.name} has no step {quoted(name)}", hint=f"steps: {known}"
        )
    return found


def _current(workshop: Workshop) -> Step:
    """Return the first step that is not done and can be, or the last."""
    from backend.labs.workshop import lacking

    progress = workshop.place.progress(workshop.lab.name)
    steps = workshop.lab.steps
    open_ = (step for step in steps if not progress.is_behind(step.id))
    return next((step for step in open_ if not lacking(step)), steps[-1])


def _page(workshop: Workshop, step: Step) -> str:
    """Return a step as plain text."""
    from backend.escape import printable
    from backend.labs.workshop import lacking

    number = workshop.lab.steps.index(step) + 1
    lines = [f"{workshop.lab.title}: step {number} of {len(workshop.lab.steps)}, {step.id}", ""]
    if number == 1 and workshop.lab.introduction:
        lines += [workshop.lab.introduction, ""]
    lines += [step.title, "", step.text, ""]
    if missing := lacking(step):
        lines += [f"{missing} Read this step, and go on.", ""]
    lines += _block("type", step.commands)
    lines += _block("with SingularityCE", step.singularity)
    return printable("\n".join(lines), limit=1 << 16)


def _block(label: str, commands: Sequence[str]) -> list[str]:
    if not commands:
        return []
    typed = [f"    {line}" for command in commands for line in command.split("\n")]
    return [f"  {label}:", *typed, ""]


def _lines(result: StepResult) -> list[str]:
    step = result.step
    lines = [f"{_MARKS[result.state]}  {step.title}"]
    if result.state == "skipped":
        from backend.labs.workshop import lacking

        lines.append(f"    {lacking(step)}")
    if result.state == "open":
        marks = ("ok" if finding.passed else "no" for finding in result.findings)
        lines += [
            f"    {mark}  {finding.text}"
            for mark, finding in zip(marks, result.findings, strict=True)
        ]
        lines += [f"    hint: {hint}" for hint in step.hints[:1]]
    return lines


def _result(result: StepResult) -> dict[str, object]:
    return {
        "step": result.step.id,
        "title": result.step.title,
        "state": result.state,
        "checks": [{"passed": finding.passed, "text": finding.text} for finding in result.findings],
    }


def _report(place: Place, path: Path) -> dict[str, object]:
    from backend.labs.progress import read_progress

    found = read_progress(path.parent, path.parents[1].name, path.parent.name)
    steps = _known_steps(place, found)
    rows = [
        {
            "step": step,
            "done": _time(found.steps[step].done) if found.is_done(step) else None,
            "skipped": found.is_behind(step) and not found.is_done(step),
            "tries": found.steps[step].tries if step in found.steps else 0,
        }
        for step in steps
    ]
    return {
        "learner": found.learner,
        "lab": found.lab,
        "started": _time(found.started),
        "finished": all(found.is_behind(step) for step in steps),
        "steps": rows,
    }


def _known_steps(place: Place, progress: Progress) -> list[str]:
    """Return the lab's steps in order; of a lab that is not here those that were tried."""
    from backend.errors import NotFoundError

    try:
        return [step.id for step in place.read(progress.lab).steps]
    except NotFoundError:
        return list(progress.steps)


def _time(seconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _echo_json(value: object) -> None:
    import json

    click.echo(json.dumps(value))
