"""A moving picture of the deck: browse, pull, inspect, run.  ``tests.screenshots`` writes it.

The deck runs on the stage of the screenshots and is pressed key by key.  Each moment is a frame
of an SVG that needs no script: style sheets show one after the other.  What jobs and the
container print is made up, as all the rest of the stage, so that every run gives the same bytes.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from rich.console import Console
from rich.text import Text

from app.deck import Deck
from backend.events import Finished, Phase, Resolved, Started, encode
from backend.jobs import Jobs, JobView
from tests.screenshots import framed, rest
from tests.support.decks import NOW, make_deck, write_job
from tests.support.imagefiles import write_ocisif
from tests.support.stage import SETTINGS, SOLVER, before, layer, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from textual.pilot import Pilot

    from backend.events import BlobState, Event
    from backend.jobs import Job
    from tests.support.stage import Stage

NAME = "recording.svg"
SIZE = (100, 30)
NUMBER = 41
SIZES = (28_200_000, 412_000_000, 813_400_000)
IMAGE = "cfd-solver_v2.4.oci.sif"
PRINTED = f"""
[bold]$ sifdeck run {IMAGE} --mesh wing.msh[/]

solver v2.4, 8 threads, mesh wing.msh: 1.2 M cells
  iteration  100   residual 3.1e-02
  iteration  200   residual 4.4e-03
  iteration  300   residual 5.0e-04
  iteration  400   residual 6.2e-05
converged; wrote wing.vtk

[exit status 0; Enter goes back to the deck]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A moment.

    Attributes:
        svg: What is to be seen.
        seconds: How long.
    """

    svg: str
    seconds: float


class Recorder:
    """Presses keys and keeps what is shown.

    Args:
        pilot: Of the running deck.
    """

    def __init__(self, pilot: Pilot[int]) -> None:
        self.frames: list[Frame] = []
        self._pilot = pilot

    async def show(self, title: str, *keys: str, seconds: float = 2.0) -> None:
        """Press keys, and keep the screen for so long under a title."""
        for key in keys:
            await self._pilot.press(key)
            await rest(self._pilot)
        svg = self._pilot.app.export_screenshot(title=title)
        self.frames.append(Frame(svg=framed(svg), seconds=seconds))
        self._pilot.app.clear_notifications()
        await self._pilot.pause()


class Clock:
    """A clock that goes when it is told to, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def record(stage: Stage) -> Sequence[Frame]:
    """Drive a deck from the list of images to a container and back."""
    clock = Clock()
    shutil.rmtree(stage.jobs / str(NUMBER))
    with (
        mock.patch("backend.jobs.JobView", partial(JobView, clock=clock)),
        mock.patch.object(Jobs, "start", partial(start, stage)),
        mock.patch.object(Deck, "NOTIFICATION_TIMEOUT", 600),
    ):
        app = make_deck(stage.desk())
        async with app.run_test(size=SIZE, notifications=True) as pilot:
            recorder = Recorder(pilot)
            await rest(pilot)
            await recorder.show("the images on this machine")
            await recorder.show("2: registries", "2", seconds=1.5)
            await recorder.show("browse tags", *"jjjj", "tab")
            await recorder.show("p: pull", "p", seconds=2.5)
            await recorder.show("ctrl+s: it becomes a job", "ctrl+s", seconds=2.5)
            await recorder.show("3: jobs, layer by layer", "3", seconds=1.0)
            await watch(recorder, stage, clock)
            await recorder.show("1: the image is there", "1", "g")
            await recorder.show("enter: look inside", "enter")
            await recorder.show("]: the next page", "right_square_bracket")
            await recorder.show("r: run", "escape", "r", seconds=2.5)
            recorder.frames.append(Frame(svg=container(), seconds=4.0))
            await recorder.show("back in the deck", "escape")
            return recorder.frames


def start(stage: Stage, argv: Sequence[str], *, title: str, **_more: object) -> Job:
    """Write a job instead of starting one; nothing of it has come yet."""
    resolved = Resolved(
        reference=title, digest=f"sha256:{'c0' * 32}", platform="linux/amd64", total=sum(SIZES)
    )
    write_job(
        stage.jobs,
        NUMBER,
        title=title,
        argv=argv,
        status=None,
        begun=NOW - 12,
        events=(Started(verb="pull", title=title, target=IMAGE), resolved, *moved(0)),
        log=f"2024-10-27T03:33:08.000Z INFO:    Pull {title}\n",
    )
    return Jobs(stage.jobs).get(NUMBER)


def moved(percent: int) -> Iterator[Event]:
    """Yield where the layers stand when so much has come; the smallest is here first."""
    for index, size in enumerate(SIZES):
        part = min(100, percent * (len(SIZES) - index))
        state: BlobState = "done" if part == 100 else "downloading" if part else "waiting"
        yield layer(index, state, size * part // 100, size)


async def watch(recorder: Recorder, stage: Stage, clock: Clock) -> None:
    """Let the pull come to its end."""
    folder = stage.jobs / str(NUMBER)
    for percent in (8, 22, 45, 70, 92):
        clock.now += 1.5
        converted = Phase(name="convert", done=percent * sum(SIZES) // 125, total=sum(SIZES))
        tell(folder, *moved(percent), converted)
        await recorder.show("3: jobs, layer by layer", "ctrl+r", seconds=0.5)
    write_ocisif(
        stage.images / IMAGE, reference=f"{SOLVER}:v2.4", created=before(1), settings=SETTINGS
    )
    with (stage.images / IMAGE).open("r+b") as image:
        image.truncate(1_302_000_000)
    end = Phase(name="convert", done=sum(SIZES), total=sum(SIZES), state="done")
    tell(folder, *moved(100), end, Finished(size=1_302_000_000))
    (folder / "exit").write_text(json.dumps({"status": 0, "cancelled": False, "ended": NOW}))
    await recorder.show("done: one file", "ctrl+r", seconds=1.5)


def tell(folder: Path, *events: Event) -> None:
    """Add to the events of a job."""
    with (folder / "events.jsonl").open("a", encoding="ascii") as out:
        out.writelines(f"{encode(event)}\n" for event in events)


def container() -> str:
    """Return the terminal while the container has it."""
    columns, lines = SIZE
    console = Console(
        file=io.StringIO(), record=True, width=columns, force_terminal=True, legacy_windows=False
    )
    text = Text.from_markup(PRINTED.replace("[exit", "\\[exit"))
    text.append("\n" * (lines - text.plain.count("\n") - 1))
    console.print(text, highlight=False)
    return framed(console.export_svg(title="the container has the terminal"))


def moving(frames: Sequence[Frame]) -> str:
    """Return one SVG that shows the frames in turn, for ever; the first where nothing moves."""
    total = sum(frame.seconds for frame in frames)
    rules, shown, at = [], [], 0.0
    for number, frame in enumerate(frames):
        begin, at = at, at + frame.seconds
        first, last = (f"{100 * place / total:.2f}%" for place in (begin, at))
        hidden = "0%{visibility:hidden}" if number else ""
        rules.append(f"@keyframes k{number}{{{hidden}{first}{{visibility:visible}}")
        rules.append(
            f"{last}{{visibility:{'visible' if number == len(frames) - 1 else 'hidden'}}}}}\n"
        )
        rules.append(f"#f{number}{{animation-name:k{number}}}\n")
        shown.append(small(frame.svg, number))
    box = re.search(r'viewBox="[^"]*"', frames[0].svg)
    assert box
    return (
        f'<svg {box.group()} xmlns="http://www.w3.org/2000/svg">\n<style>\n'
        f".frame{{visibility:hidden;animation:{total:g}s step-end infinite}}\n"
        f"#f0{{visibility:visible}}\n{''.join(rules)}</style>\n{''.join(shown)}</svg>\n"
    )


def small(svg: str, number: int) -> str:
    """Return a frame with short names and without the clips that its texts do not need."""
    svg = re.sub(r"<clipPath.*?</clipPath>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' clip-path="[^"]*"', "", svg)
    svg = re.sub(r"terminal-\d+", f"t{number}", svg)
    return svg.replace("<svg ", f'<svg id="f{number}" ', 1).replace(
        'class="rich-terminal"', 'class="rich-terminal frame"', 1
    )


def recording() -> str:
    """Return the moving picture."""
    with tempfile.TemporaryDirectory() as name, set_up(Path(name)) as stage:
        return moving(asyncio.run(record(stage)))
