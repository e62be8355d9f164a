"""The pictures in screenshots/ are those of the deck as it is, to the byte."""

from __future__ import annotations

import re

from tests.readme import BEGIN, END, README, section
from tests.screenshots import FOLDER, pictures, png

REMEDY = "run: .venv/bin/python -m tests.screenshots"


def test_the_pictures_are_up_to_date() -> None:
    made = dict(pictures())
    kept = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.svg")}
    changed = [name for name in {*made, *kept} if made.get(name) != kept.get(name)]
    assert not changed, REMEDY
    for name in ("images", "jobs-wide"):
        assert png(made[name]) == (FOLDER / f"{name}.png").read_bytes(), REMEDY
    assert {path.stem for path in FOLDER.glob("*.png")} == set(made)


def test_the_readme_has_the_keys_and_the_pictures_that_there_are() -> None:
    text = README.read_text(encoding="utf-8")
    assert f"{BEGIN}{section()}{END}" in text, "run: .venv/bin/python -m tests.readme"
    for picture in re.findall(r"\((screenshots/[^)]+)\)", text):
        assert (FOLDER.parent / picture).is_file()
