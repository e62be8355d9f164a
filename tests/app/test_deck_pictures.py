"""The pictures in screenshots/ are those of the deck as it is, to the byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.readme import BEGIN, END, README, section
from tests.recording import NAME, recording
from tests.screenshots import DRAWN, FOLDER, LOOKS, SIZES, pictures, png

PLAIN = {"c5c8c6", "292929"}
"""The terminal's own foreground and background."""
REMEDY = "run: .venv/bin/python -m tests.screenshots"


def test_08_the_pictures_are_up_to_date() -> None:
    made = dict(pictures())
    kept = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.svg")}
    del kept[Path(NAME).stem]
    changed = [name for name in {*made, *kept} if made.get(name) != kept.get(name)]
    assert not changed, REMEDY
    for name in DRAWN:
        assert png(made[name]) == (FOLDER / f"{name}.png").read_bytes(), REMEDY
    assert {path.stem for path in FOLDER.glob("*.png")} == DRAWN


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("look", LOOKS)
def test_08_there_is_a_picture_of_every_size_in_every_look(size: str, look: str) -> None:
    name = "-".join(part for part in ("images", size, look) if part)
    svg = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    colours = set(re.findall(r"-r\d+ \{ fill: #([0-9a-f]{6})", svg))
    assert (colours <= PLAIN) is (look == "no-colour")


def test_the_recording_is_up_to_date() -> None:
    made = recording()
    assert made == (FOLDER / NAME).read_text(encoding="utf-8"), REMEDY
    assert len(made) < 1_000_000


def test_the_readme_has_the_keys_and_the_pictures_that_there_are() -> None:
    text = README.read_text(encoding="utf-8")
    assert f"{BEGIN}{section()}{END}" in text, "run: .venv/bin/python -m tests.readme"
    for picture in re.findall(r"\((screenshots/[^)]+)\)", text):
        assert (FOLDER.parent / picture).is_file()
