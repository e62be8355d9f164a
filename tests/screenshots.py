"""``python -m tests.screenshots [FOLDER]``: pictures of the running deck.

Time, host, user and images are made up, so that every run gives the same bytes.  The SVG
names its font without fetching it from anywhere; the PNG is drawn with DejaVu Sans Mono.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from textual.widgets import Input

from backend.events import Blob, Event, Failed, Finished, Phase, Resolved, Started
from tests.support.decks import NOW, make_deck, make_desk, settle, write_job
from tests.support.imagefiles import write_native, write_ocisif
from tests.support.images import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.deck import Deck

FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf")
FAMILY = "DejaVu Sans Mono"
FOLDER = Path(__file__).parents[1] / "screenshots"

SMALL, LARGE = (80, 24), (200, 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture.

    Attributes:
        name: Of its files, without ending.
        keys: Pressed before it is taken, in Textual's names.
        size: Columns and lines.
        theme: Name of a theme.
        fill: What is typed into the fields of a dialog, by their keys.
    """

    name: str
    keys: tuple[str, ...] = ()
    size: tuple[int, int] = SMALL
    theme: str = "sifdeck-dark"
    fill: tuple[tuple[str, str], ...] = ()


SOLVER = ("slash", *"solver", "enter")
SHOTS = (
    Shot(name="images"),
    Shot(name="images-light", theme="sifdeck-light"),
    Shot(name="images-16-colours", theme="ansi-dark"),
    Shot(name="images-wide", size=LARGE, keys=("j",)),
    Shot(name="images-wide-light", size=LARGE, keys=("j",), theme="sifdeck-light"),
    Shot(name="images-smallest", size=(60, 15)),
    Shot(name="images-middle", size=(100, 30)),
    Shot(name="image", keys=(*SOLVER, "enter", "right_square_bracket")),
    Shot(name="pull", keys=("p",), fill=(("reference", "ghcr.io/lab/cfd-solver:v3"),)),
    Shot(name="run", keys=(*SOLVER, "r"), fill=(("binds", "/scratch/alice:/data"),)),
    Shot(name="jobs", keys=("3",)),
    Shot(name="jobs-wide", size=LARGE, keys=("3",)),
    Shot(name="log", keys=("3", "j", "j", "enter")),
    Shot(name="error", keys=("3", "j", "e")),
    Shot(name="help", keys=("question_mark",)),
)


def layer(index: int, state: str, done: int, size: int, note: str = "") -> Event:
    """Return where the transfer of a made-up layer stands."""
    return Blob(
        digest=digest(bytes([index])),
        role="layer",
        index=index,
        state=state,  # type: ignore[arg-type]
        done=done,
        size=size,
        note=note,
    )


def prepare(folder: Path) -> None:
    """Make the images, and the jobs as they stand at one moment."""
    images = folder / "images"
    images.mkdir()
    for name, reference, size in (
        ("pytorch_24.10-py3", "nvcr.io/nvidia/pytorch:24.10-py3", 9_771_000_000),
        ("python_3.12-slim", "docker.io/library/python:3.12-slim", 46_100_000),
        ("cfd-solver_v2.3", "ghcr.io/lab/cfd-solver:v2.3", 1_288_000_000),
        ("cfd-solver_v2.2", "ghcr.io/lab/cfd-solver:v2.2", 1_287_000_000),
        ("samtools_1.21", "quay.io/biocontainers/samtools:1.21", 59_700_000),
        ("tidyverse_4.4.1", "docker.io/rocker/tidyverse:4.4.1", 913_000_000),
    ):
        path = write_ocisif(images / f"{name}.oci.sif", reference=reference)
        os.truncate(path, size)  # holes, which weigh nothing
    os.truncate(write_native(images / "old-env.sif"), 3_650_000_000)
    for number, path in enumerate(sorted(images.iterdir())):
        os.utime(path, (NOW - 86400 * (number + 2), NOW - 86400 * (number + 2)))
    jobs = folder / "state" / "jobs"
    jobs.mkdir(parents=True)
    prepare_jobs(jobs)


def prepare_jobs(jobs: Path) -> None:
    """Write three jobs: one done, one failed, one that runs."""
    solver = "docker://ghcr.io/lab/cfd-solver:v2.4"
    resolved = Resolved(
        reference=solver, digest="sha256:" + "c0" * 32, platform="linux/amd64", total=1_253_600_000
    )
    write_job(
        jobs,
        37,
        title="docker://python:3.12-slim",
        begun=NOW - 172_800,
        events=(Started(verb="pull", title="docker://python:3.12-slim"), Finished(size=44 << 20)),
        log="2024-10-25T03:33:20.000Z INFO:    Pull docker://python:3.12-slim\n"
        "2024-10-25T03:33:37.000Z INFO:    Complete: python_3.12-slim.oci.sif (44.1 MB)\n",
    )
    failed = Failed(
        message="nvcr.io refused the credentials",
        why="the stored key was accepted until 2 days ago; the token has expired",
        kept="3 of 38 layers, 410 MB, are in the cache and will not be downloaded again",
        hint="sifdeck registry login nvcr.io, then R",
        exit_code=10,
    )
    pytorch = "docker://nvcr.io/nvidia/pytorch:24.10-py3"
    write_job(
        jobs,
        38,
        title=pytorch,
        argv=("pull", pytorch),
        status=10,
        begun=NOW - 7200,
        events=(Started(verb="pull", title=pytorch), failed),
        log="2024-10-27T01:33:20.000Z ERROR:   nvcr.io refused the credentials\n",
    )
    layers = (
        layer(0, "exists", 28_200_000, 28_200_000),
        layer(1, "done", 412_000_000, 412_000_000),
        layer(2, "downloading", 312_700_000, 512_700_000),
        layer(3, "downloading", 44_300_000, 201_300_000),
        layer(4, "retry", 38_400_000, 96_000_000, "2 of 5, from 38 MB"),
        layer(5, "waiting", 0, 3_400_000),
    )
    write_job(
        jobs,
        41,
        title=solver,
        status=None,
        begun=NOW - 17,
        events=(
            Started(verb="pull", title=solver, target="cfd-solver_v2.4.oci.sif"),
            resolved,
            *layers,
            Phase(name="convert", done=436_000_000, total=1_253_600_000),
        ),
        log="2024-10-27T03:33:03.000Z INFO:    Pull " + solver + "\n",
    )


async def take(shot: Shot, folder: Path) -> str:
    """Drive a deck to the place of a picture and return it as SVG."""
    desk = make_desk(folder / "images", state=folder / "state")
    app: Deck = make_deck(desk, theme=shot.theme)
    async with app.run_test(size=shot.size) as pilot:
        await settle(pilot)
        await pilot.press(*shot.keys)
        await pilot.pause()
        for key, text in shot.fill:
            field = app.screen.query_one(f"#field-{key}", Input)
            field.value = text
        for one in app.screen.query(Input):
            one.cursor_blink = False
        await pilot.pause(0.2)
        return framed(app.export_screenshot(title="sifdeck"))


def framed(svg: str) -> str:
    """Return the picture without fonts from the network; every viewer has a monospace one."""
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", FAMILY)


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
    with tempfile.TemporaryDirectory() as name, mock.patch.dict(os.environ, ENVIRONMENT):
        os.environ.pop("NO_COLOR", None)
        folder = Path(name)
        prepare(folder)
        before = Path.cwd()
        os.chdir(folder / "images")
        try:
            for shot in SHOTS:
                yield shot.name, asyncio.run(take(shot, folder))
        finally:
            os.chdir(before)


ENVIRONMENT = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "TZ": "UTC"}


def main(target: Path = FOLDER) -> None:
    """Write all pictures."""
    target.mkdir(exist_ok=True)
    target = target.absolute()
    for name, svg in pictures():
        (target / f"{name}.svg").write_text(svg, encoding="utf-8")
        (target / f"{name}.png").write_bytes(png(svg))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:2]))
