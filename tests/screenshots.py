"""``python -m tests.screenshots [FOLDER]``: pictures of the running deck.

Time, host, user and images are made up (:mod:`tests.support.stage`), so that every run gives
the same bytes.  The SVG names its font without fetching it from anywhere; the PNG, of those that
the README shows, is drawn with DejaVu Sans Mono.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from textual.widgets import Input
from textual.worker import WorkerCancelled

from tests.support.decks import make_deck
from tests.support.stage import set_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.pilot import Pilot

    from tests.support.stage import Stage

FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf")
FAMILY = "DejaVu Sans Mono"
FOLDER = Path(__file__).parents[1] / "screenshots"
DRAWN = {
    "images-wide",
    "registries",
    "pull",
    "jobs",
    "build",
    "run",
    "error",
    "doctor",
    "lab",
    "images-light",
    "images-16-colours",
}
"""Pictures that are there as PNG, too: the README shows them."""

Size = tuple[int, int]
SMALL, LARGE = (80, 24), (200, 50)
SIZES: dict[str, Size] = {
    "smallest": (60, 15),
    "": SMALL,
    "middle": (100, 30),
    "wide": LARGE,
}
LOOKS = {
    "": "sifdeck-dark",
    "light": "sifdeck-light",
    "16-colours": "ansi-dark",
    "no-colour": "ansi-dark",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture.

    Attributes:
        name: Of its file, without ending.
        keys: Pressed before it is taken, in Textual's names.
        size: Columns and lines.
        look: One of LOOKS.
        fill: What is typed into the fields of a dialog, by their keys.
        lab: Whether the deck was opened for a lab.
    """

    name: str
    keys: tuple[str, ...] = ()
    size: Size = SMALL
    look: str = ""
    fill: tuple[tuple[str, str], ...] = ()
    lab: bool = False


SOLVER = ("slash", *"v2.3", "enter")
VIEWS = (
    Shot(name="registries", keys=("2", "j", "j", "j", "j", "tab", "j")),
    Shot(name="jobs", keys=("3",)),
    Shot(name="running", keys=("4",)),
    Shot(name="doctor", keys=("5",)),
    Shot(name="lab", keys=("escape", "c"), lab=True),
    Shot(name="build", keys=("3", "j", "enter")),
    Shot(name="run", keys=(*SOLVER, "r"), fill=(("binds", "/srv:/data"),)),
)
DIALOGS = (
    Shot(name="image", keys=(*SOLVER, "enter", "right_square_bracket")),
    Shot(name="pull", keys=("p",), fill=(("reference", "ghcr.io/lab/cfd-solver:v3"),)),
    Shot(name="error", keys=("3", "j", "j", "e")),
    Shot(name="help", keys=("question_mark",)),
)


def shots() -> Iterator[Shot]:
    """Yield the list of images in every size and look, every view small and large, dialogs."""
    for size_name, size in SIZES.items():
        for look in LOOKS:
            name = "-".join(part for part in ("images", size_name, look) if part)
            yield Shot(name=name, size=size, look=look, keys=("j",))
    yield from VIEWS
    yield from (replace(shot, name=f"{shot.name}-wide", size=LARGE) for shot in VIEWS)
    yield replace(VIEWS[1], name="jobs-light", look="light")
    yield replace(VIEWS[1], name="jobs-16-colours", look="16-colours")
    yield from DIALOGS


async def take(shot: Shot, stage: Stage) -> str:
    """Drive a deck to the place of a picture and return it as SVG."""
    app = make_deck(stage.desk(lab=shot.lab), theme=LOOKS[shot.look])
    async with app.run_test(size=shot.size) as pilot:
        await rest(pilot)
        for key in shot.keys:
            await pilot.press(key)
            await rest(pilot)
        for key, text in shot.fill:
            app.screen.query_one(f"#field-{key}", Input).value = text
        await rest(pilot)
        return framed(app.export_screenshot(title="sifdeck"))


async def rest(pilot: Pilot[int]) -> None:
    """Wait until nothing is left to do but to answer a dialog; let no cursor blink."""
    app = pilot.app
    while busy := [one for one in app.workers if one.group != "dialog" and not one.is_finished]:
        with contextlib.suppress(WorkerCancelled):
            await busy[0].wait()
    await pilot.pause()
    for one in app.screen.query(Input):
        one.cursor_blink = False
    await pilot.pause()


def framed(svg: str) -> str:
    """Return the picture without fonts from the network; every viewer has a monospace one."""
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", FAMILY).replace("arial", FAMILY)


def png(svg: str) -> bytes:
    """Draw a picture with the font of Debian's fonts-dejavu-core."""
    import resvg_py

    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg,
            skip_system_fonts=True,
            font_files=[str(FONT), str(FONT.with_name("DejaVuSansMono-Bold.ttf"))],
            monospace_family=FAMILY,
            font_family=FAMILY,
        )
    )


def pictures() -> Iterator[tuple[str, str]]:
    """Yield name and SVG of every picture."""
    with tempfile.TemporaryDirectory() as name, set_up(Path(name)) as stage:
        for shot in shots():
            colours = {"NO_COLOR": "1"} if shot.look == "no-colour" else {}
            with mock.patch.dict(os.environ, colours):
                yield shot.name, asyncio.run(take(shot, stage))


def main(target: Path = FOLDER) -> None:
    """Write all pictures, the moving one too, and delete what is no longer one."""
    from tests.recording import NAME, recording

    target.mkdir(exist_ok=True)
    target = target.absolute()
    written = {NAME}
    (target / NAME).write_text(recording(), encoding="utf-8")
    for name, svg in pictures():
        (target / f"{name}.svg").write_text(svg, encoding="utf-8")
        written.add(f"{name}.svg")
        if name in DRAWN:
            (target / f"{name}.png").write_bytes(png(svg))
            written.add(f"{name}.png")
    for path in target.iterdir():
        if path.name not in written:
            path.unlink()


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:2]))
